"""The test surfaces: values by their formulas, known minima, and digits that float32 keeps."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from thalweg import landscape
from thalweg.landscape import SURFACES, Surface

Array = NDArray[np.float64]
NAMES = sorted(SURFACES)


def goldstein_price(x: Array, y: Array) -> Array:
    first = 1 + (x + y + 1) ** 2 * (19 - 14 * x + 3 * x**2 - 14 * y + 6 * x * y + 3 * y**2)
    return first * (
        30 + (2 * x - 3 * y) ** 2 * (18 - 32 * x + 12 * x**2 + 48 * y - 36 * x * y + 27 * y**2)
    )


def ackley(x: Array, y: Array) -> Array:
    waves = np.exp((np.cos(2 * np.pi * x) + np.cos(2 * np.pi * y)) / 2)
    return 20 + math.e - 20 * np.exp(-0.2 * np.sqrt((x**2 + y**2) / 2)) - waves


# As the papers write them, in float64.
FORMULAS: dict[str, Callable[[Array, Array], Array]] = {
    "bowl": lambda x, y: (x**2 + 10 * y**2) / 2,
    "rosenbrock": lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
    "beale": lambda x, y: (
        (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2
    ),
    "himmelblau": lambda x, y: (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2,
    "rastrigin": lambda x, y: (
        20 + x**2 + y**2 - 10 * (np.cos(2 * np.pi * x) + np.cos(2 * np.pi * y))
    ),
    "ackley": ackley,
    "goldstein_price": goldstein_price,
    "saddle": lambda x, y: x**2 - y**2,
    "monkey_saddle": lambda x, y: x**3 - 3 * x * y**2,
}


def gradient(surface: Surface, at: tuple[float, float], dtype: torch.dtype) -> torch.Tensor:
    p = torch.tensor(at, dtype=dtype, requires_grad=True)
    (found,) = torch.autograd.grad(surface(p[0], p[1]), p)
    return found


def test_every_surface_is_checked_here() -> None:
    assert sorted(FORMULAS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_the_formula(name: str) -> None:
    x, y, z = SURFACES[name]().grid(31)
    want = FORMULAS[name](x[None, :], y[:, None])
    np.testing.assert_allclose(z, want, rtol=1e-12, atol=1e-12 * abs(want).max())


@pytest.mark.parametrize("name", NAMES)
def test_minima_are_level_and_nothing_lies_lower(name: str) -> None:
    surface = SURFACES[name]()
    values = [float(surface(*torch.tensor(m, dtype=torch.float64))) for m in surface.minima]
    for minimum, value in zip(surface.minima, values, strict=True):
        assert gradient(surface, minimum, torch.float64).abs().max() < 1e-12
        assert value == pytest.approx(values[0], abs=1e-25)
    if values:
        assert surface.grid(200)[2].min() > surface.lowest
        assert surface.lowest == (3.0 if name == "goldstein_price" else pytest.approx(0, abs=1e-25))


@pytest.mark.parametrize("name", NAMES)
def test_minima_and_start_lie_in_the_picture(name: str) -> None:
    surface = SURFACES[name]()
    left, right, bottom, top = surface.region
    for x, y in (*surface.minima, surface.start):
        assert left < x < right
        assert bottom < y < top


@pytest.mark.parametrize("name", NAMES)
def test_formula_and_source_are_told(name: str) -> None:
    surface = SURFACES[name]()
    assert surface.formula.startswith("f(x, y) = ")
    assert any(year in surface.source for year in ("19", "20"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_are_finite_everywhere(name: str, dtype: torch.dtype) -> None:
    surface = SURFACES[name]()
    x, y, _ = surface.grid(41)  # the origin is among the points
    at = torch.tensor([(a, b) for a in x for b in y], dtype=dtype, requires_grad=True)
    surface(at[:, 0], at[:, 1]).sum().backward()
    assert at.grad is not None
    assert at.grad.isfinite().all()


@pytest.mark.parametrize("name", ["ackley", "rastrigin", "bowl"])
@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6, 1e-25])
def test_float32_keeps_its_digits_near_the_minimum(name: str, distance: float) -> None:
    surface = SURFACES[name]()
    at = (np.float32(distance), np.float32(-0.7 * distance))
    x, y = (torch.tensor(v) for v in at)
    assert x.dtype == torch.float32
    exact = float(surface(x.double(), y.double()))
    if exact > 1e-37:  # else it has no room in float32
        assert float(surface(x, y)) == pytest.approx(exact, rel=1e-6)
    want = gradient(surface, (float(at[0]), float(at[1])), torch.float64)
    found = gradient(surface, (float(at[0]), float(at[1])), torch.float32)
    torch.testing.assert_close(found.double(), want, rtol=1e-6, atol=0)


def test_ackleys_tip_has_slopes_around_it_and_gradient_0_at_it() -> None:
    surface = landscape.ackley()
    assert gradient(surface, (0.0, 0.0), torch.float32).tolist() == [0.0, 0.0]
    # One-sided: 20 * 0.2 * sqrt(1/2) in every direction.
    for at in ((1e-9, 0.0), (0.0, 1e-9), (0.6e-9, -0.8e-9)):
        steepness = gradient(surface, at, torch.float64).norm()
        assert float(steepness) == pytest.approx(4 * math.sqrt(0.5), rel=1e-7)


@pytest.mark.parametrize("condition", [1.0, 3.0, 1e4])
@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, -135.0])
def test_bowl_has_the_curvatures_and_axes_asked_for(condition: float, angle: float) -> None:
    surface = landscape.bowl(condition, angle)
    zero = torch.zeros(2, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda p: surface(p[0], p[1]), zero).numpy()
    turn = np.radians(angle)
    long = np.array([np.cos(turn), np.sin(turn)])
    short = np.array([-np.sin(turn), np.cos(turn)])
    np.testing.assert_allclose(hessian @ long, long, atol=1e-11 * condition)
    np.testing.assert_allclose(hessian @ short, condition * short, atol=1e-11 * condition)


@pytest.mark.parametrize(("a", "b"), [(1.0, 100.0), (-3.0, 5.0), (0.0, 1.0)])
def test_rosenbrocks_frame_goes_with_its_minimum(a: float, b: float) -> None:
    surface = landscape.rosenbrock(a, b)
    left, right, bottom, top = surface.region
    assert surface.minima == ((a, a * a),)
    assert left < a < right
    assert bottom < a * a < top
    assert surface.lowest == 0


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: landscape.bowl(0.5), ValueError, "bowl: condition must be a finite number >= 1"),
        (lambda: landscape.bowl(math.inf), ValueError, "bowl: condition must be"),
        (lambda: landscape.bowl(10, math.nan), ValueError, "bowl: angle must be finite, got nan"),
        (lambda: landscape.bowl("10"), TypeError, "bowl: condition must be a number, got str"),
        (
            lambda: landscape.rosenbrock(b=0),
            ValueError,
            "rosenbrock: b must be a finite number > 0",
        ),
        (lambda: landscape.rosenbrock(a=None), TypeError, "rosenbrock: a must be a number"),
    ],
    ids=["below-1", "infinite", "nan", "string", "flat", "none"],
)
def test_nonsense_is_refused(
    call: Callable[[], Surface], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=f"^{words}"):
        call()
