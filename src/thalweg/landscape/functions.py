"""Surfaces with a known minimum, to test optimizers on; see also :mod:`thalweg.landscape.saddles`.

They are written so that float32 keeps its digits where it matters: near the minima no term is the
small difference of two large ones, and every gradient is finite wherever the value is.
"""

import math

import torch
from torch import Tensor

from thalweg.landscape.surfaces import Surface
from thalweg.ranges import AT_LEAST_ONE, POSITIVE, number


def bowl(condition: float = 10.0, angle: float = 0.0) -> Surface:
    """A quadratic bowl: the simplest ravine there is.

    ::

        f(x, y) = (u^2 + condition * v^2) / 2
        u =  x cos(angle) + y sin(angle)
        v = -x sin(angle) + y cos(angle)

    Its lowest value is 0 at the origin. Gradient descent at the best rate shrinks the error by
    ``(condition - 1) / (condition + 1)`` a step. Turned, it has no curvature along an axis alone:
    what rules do that scale each coordinate by itself.

    Args:
        condition: the greater curvature over the smaller one, which is 1; >= 1.
        angle: of the long axis to the x axis, in degrees.

    Raises:
        TypeError: an argument is not a number.
        ValueError: it is out of range.

    Source: Nocedal and Wright, "Numerical Optimization", 2006, section 3.3.

    >>> x, y = torch.tensor([0.0, 2.0, 0.0]), torch.tensor([0.0, 0.0, 2.0])
    >>> bowl(10)(x, y)
    tensor([ 0.,  2., 20.])
    """
    condition = number("bowl", "condition", condition, AT_LEAST_ONE)
    turn = math.radians(number("bowl", "angle", angle))
    cos, sin = math.cos(turn), math.sin(turn)

    def function(x: Tensor, y: Tensor) -> Tensor:
        u, v = x * cos + y * sin, y * cos - x * sin
        return (u * u + condition * v * v) / 2

    turned = "" if angle == 0 else f", turned by {angle:g}°"
    return Surface(
        name=f"Bowl of condition {condition:g}{turned}",
        formula=f"f(x, y) = (u² + {condition:g} v²) / 2"
        + (", u = x, v = y" if angle == 0 else f", (u, v) = (x, y) turned by {-angle:g}°"),
        function=function,
        region=(-4.0, 4.0, -4.0, 4.0),
        minima=((0.0, 0.0),),
        start=(-3.0 * cos - 1.5 * sin, -3.0 * sin + 1.5 * cos),
        across=(-sin, cos),
        source="Nocedal and Wright, Numerical Optimization, 2006, section 3.3",
    )


def rosenbrock(a: float = 1.0, b: float = 100.0) -> Surface:
    """Rosenbrock's banana: a curved, flat-bottomed ravine with steep sides.

    ::

        f(x, y) = (a - x)^2 + b (y - x^2)^2

    Its lowest value is 0 at ``(a, a^2)``, and its valley line is ``y = x^2``.

    Args:
        a: x of the minimum.
        b: how much steeper the sides are than the bottom, > 0.

    Raises:
        TypeError: an argument is not a number.
        ValueError: it is out of range.

    Source: Rosenbrock, "An Automatic Method for Finding the Greatest or Least Value of a Function",
    The Computer Journal 3 (1960); the start is his.

    >>> rosenbrock()(torch.tensor([1.0, -1.2]), torch.tensor([1.0, 1.0]))
    tensor([ 0.0000, 24.2000])
    """
    a = number("rosenbrock", "a", a)
    b = number("rosenbrock", "b", b, POSITIVE)

    def function(x: Tensor, y: Tensor) -> Tensor:
        before, aside = a - x, y - x * x
        return before * before + b * (aside * aside)

    # f keeps its shape when x is scaled by s and y by s², so the frame goes with the minimum.
    s = max(1.0, abs(a))
    return Surface(
        name="Rosenbrock",
        formula=f"f(x, y) = ({a:g} - x)² + {b:g} (y - x²)²",
        function=function,
        region=(-2.0 * s, 2.0 * s, -s * s, 3.0 * s * s),
        minima=((a, a * a),),
        start=(-1.2 * s, s * s),
        across=(0.0, 1.0),
        source="Rosenbrock, The Computer Journal 3, 1960",
    )


def beale() -> Surface:
    """Beale's function: a ravine between plateaus, with very steep corners.

    ::

        f(x, y) = (1.5 - x + xy)^2 + (2.25 - x + xy^2)^2 + (2.625 - x + xy^3)^2

    Its lowest value is 0 at (3, 0.5).

    Source: Beale, "On an Iterative Method for Finding a Local Minimum of a Function of More than
    One Variable", 1958; as problem 5, with this start, in Moré, Garbow and Hillstrom, "Testing
    Unconstrained Optimization Software", ACM TOMS 7 (1981).

    >>> beale()(torch.tensor([3.0, 0.0]), torch.tensor([0.5, 0.0]))
    tensor([ 0.0000, 14.2031])
    """

    def function(x: Tensor, y: Tensor) -> Tensor:
        return sum(
            ((c - x * (1 - y**k)) ** 2 for k, c in enumerate((1.5, 2.25, 2.625), start=1)),
            start=torch.zeros((), dtype=x.dtype, device=x.device),
        )

    return Surface(
        name="Beale",
        formula="f(x, y) = (1.5 - x + xy)² + (2.25 - x + xy²)² + (2.625 - x + xy³)²",
        function=function,
        region=(-4.5, 4.5, -4.5, 4.5),
        minima=((3.0, 0.5),),
        start=(1.0, 1.0),
        source="Beale, 1958; Moré, Garbow and Hillstrom, ACM TOMS 7, 1981, problem 5",
    )


def himmelblau() -> Surface:
    """Himmelblau's function: four minima of the same height.

    ::

        f(x, y) = (x^2 + y - 11)^2 + (x + y^2 - 7)^2

    Its lowest value is 0, at (3, 2) and at three more points.

    Source: Himmelblau, "Applied Nonlinear Programming", 1972.

    >>> himmelblau()(torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.0]))
    tensor([  0., 170.])
    """
    return Surface(
        name="Himmelblau",
        formula="f(x, y) = (x² + y - 11)² + (x + y² - 7)²",
        function=lambda x, y: (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2,
        region=(-6.0, 6.0, -6.0, 6.0),
        # The four real solutions of x² + y = 11, x + y² = 7, to float64.
        minima=(
            (3.0, 2.0),
            (-2.805118086952745, 3.131312518250573),
            (-3.779310253377747, -3.2831859912861696),
            (3.5844283403304918, -1.848126526964404),
        ),
        source="Himmelblau, Applied Nonlinear Programming, 1972",
    )


def rastrigin() -> Surface:
    """Rastrigin's function: a bowl with a minimum near every pair of integers.

    ::

        f(x, y) = 20 + x^2 + y^2 - 10 (cos(2 pi x) + cos(2 pi y))

    Its lowest value is 0 at the origin.

    Source: Rastrigin, "Systems of Extremal Control", 1974; in this form: Mühlenbein, Schomisch and
    Born, "The Parallel Genetic Algorithm as Function Optimizer", Parallel Computing 17 (1991).

    >>> rastrigin()(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]))
    tensor([0., 1.])
    """

    def function(x: Tensor, y: Tensor) -> Tensor:
        # 10 - 10 cos(2t) = 20 sin(t)²: nothing cancels near the minimum.
        waves = torch.sin(math.pi * x) ** 2 + torch.sin(math.pi * y) ** 2
        return x * x + y * y + 20 * waves

    return Surface(
        name="Rastrigin",
        formula="f(x, y) = 20 + x² + y² - 10 (cos 2πx + cos 2πy)",
        function=function,
        region=(-5.12, 5.12, -5.12, 5.12),
        minima=((0.0, 0.0),),
        start=(-3.4, 2.7),
        across=(1.0, 0.0),
        source="Rastrigin 1974; Mühlenbein, Schomisch and Born, Parallel Computing 17, 1991",
    )


def ackley() -> Surface:
    """Ackley's function: a funnel with a sharp tip, its walls full of dents.

    ::

        f(x, y) = 20 + e - 20 exp(-0.2 sqrt((x^2 + y^2) / 2))
                  - exp((cos(2 pi x) + cos(2 pi y)) / 2)

    Its lowest value is 0 at the origin, which is the tip: there it has no gradient, and the one
    that is computed is 0, the middle of the slopes around it.

    Source: Ackley, "A Connectionist Machine for Genetic Hillclimbing", 1987.

    >>> ackley()(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]))
    tensor([0.0000, 2.6375])
    """

    def function(x: Tensor, y: Tensor) -> Tensor:
        x, y = torch.broadcast_tensors(x, y)  # type: ignore[no-untyped-call]
        tip = (x == 0) & (y == 0)
        # hypot does not square, so that no distance underflows; its gradient at 0 would be 0 / 0.
        distance = torch.where(tip, 0.0, torch.hypot(torch.where(tip, 1.0, x), y))
        # (2 - cos(2s) - cos(2t)) / 2 = sin(s)² + sin(t)²; expm1 keeps what is left of 1 - exp.
        waves = torch.sin(math.pi * x) ** 2 + torch.sin(math.pi * y) ** 2
        return -20 * torch.expm1(-0.2 * math.sqrt(0.5) * distance) - math.e * torch.expm1(-waves)

    return Surface(
        name="Ackley",
        formula="f(x, y) = 20 + e - 20 exp(-0.2 √((x² + y²) / 2)) - exp((cos 2πx + cos 2πy) / 2)",
        function=function,
        region=(-5.0, 5.0, -5.0, 5.0),
        minima=((0.0, 0.0),),
        start=(-3.4, 2.7),
        across=(1.0, 0.0),  # without curvature at the tip there is no steepest direction
        source="Ackley, A Connectionist Machine for Genetic Hillclimbing, 1987",
    )


def goldstein_price() -> Surface:
    """Goldstein and Price's function: values from 3 to a million within a small square.

    ::

        f(x, y) = (1 + (x + y + 1)^2 (19 - 14x + 3x^2 - 14y + 6xy + 3y^2))
                * (30 + (2x - 3y)^2 (18 - 32x + 12x^2 + 48y - 36xy + 27y^2))

    Its lowest value is 3 at (0, -1); three more minima lie higher.

    Source: Goldstein and Price, "On Descent from Local Minima", Mathematics of Computation 25
    (1971).

    >>> goldstein_price()(torch.tensor([0.0, 0.0]), torch.tensor([-1.0, 0.0]))
    tensor([  3., 600.])
    """

    def function(x: Tensor, y: Tensor) -> Tensor:
        # The polynomials depend on x + y and on 2x - 3y alone, but for a linear term.
        s, d = x + y, 2 * x - 3 * y
        first = 1 + (s + 1) ** 2 * (19 - 14 * s + 3 * s * s)
        return first * (30 + d * d * (18 - 16 * d + 3 * d * d))

    return Surface(
        name="Goldstein-Price",
        formula="f(x, y) = (1 + (x + y + 1)² (19 - 14x + 3x² - 14y + 6xy + 3y²))"
        " (30 + (2x - 3y)² (18 - 32x + 12x² + 48y - 36xy + 27y²))",
        function=function,
        region=(-2.0, 2.0, -2.0, 2.0),
        minima=((0.0, -1.0),),
        start=(-1.5, 0.5),
        source="Goldstein and Price, Mathematics of Computation 25, 1971",
    )
