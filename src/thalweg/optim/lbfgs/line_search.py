"""A line search for the strong Wolfe conditions.

Along a descent direction d, with phi(t) = f(x + t d), a step length t is accepted when

    phi(t) <= phi(0) + c1 t phi'(0)        sufficient decrease
    |phi'(t)| <= -c2 phi'(0)               curvature

Sources: Nocedal and Wright, *Numerical Optimization*, 2nd edition (2006): conditions (3.7),
Algorithm 3.5 (widen until an acceptable step is bracketed), Algorithm 3.6 (narrow the bracket),
formula (3.59) (the minimizer of a cubic).

Deviations from the book, so that the iterates are those of ``torch.optim.LBFGS``: a widening step
stays within [1.01, 10] times the last one, a trial too close to an end of the bracket is moved
inwards, and a search that runs out of evaluations returns the better of its last two points.
A point where the loss or its slope is NaN counts as too high: the search turns back from where the
function is not defined.
"""

from collections.abc import Callable
from math import isnan
from typing import NamedTuple

from torch import Tensor


class Point(NamedTuple):
    """A step length with what was measured there.

    The slope is a 0-d tensor and not a float on purpose: the tests below are then rounded to the
    parameters' precision, so that a float32 search does not chase decreases that float32 losses
    cannot show.
    """

    t: float
    loss: float
    gradient: Tensor  # of f at x + t d, [n]
    slope: Tensor  # phi'(t) = gradient . d

    @property
    def undefined(self) -> bool:
        return isnan(self.loss) or bool(self.slope.isnan())


class Search(NamedTuple):
    """What all parts of one search share."""

    evaluate: Callable[[float], Point]
    start: Point  # t = 0
    largest: float  # max |d_i|: turns a difference of step lengths into one of parameters
    tolerance_change: float
    c1: float
    c2: float

    def decreases(self, point: Point) -> bool:
        """The first condition."""
        limit = self.start.loss + self.c1 * point.t * self.start.slope
        return not (point.undefined or bool(point.loss > limit))

    def is_flat(self, point: Point) -> bool:
        return bool(abs(point.slope) <= -self.c2 * self.start.slope)


def strong_wolfe(
    evaluate: Callable[[float], Point],
    start: Point,
    t: float,
    largest: float,
    *,
    max_ls: int = 25,
    tolerance_change: float = 1e-9,
    c1: float = 1e-4,
    c2: float = 0.9,
) -> tuple[Point, int]:
    """The first acceptable point found, starting from step length t, and the evaluations made.

    At most ``max_ls + 1`` evaluations; where they run out, the best point that is known.
    """
    search = Search(evaluate, start, largest, tolerance_change, c1, c2)
    ends, found, rounds = _bracket(search, evaluate(t), max_ls)
    evaluations = 1 + rounds
    if found is None:
        found, rounds = _zoom(search, ends, max_ls - rounds)
        evaluations += rounds
    return found, evaluations


def _bracket(
    search: Search, trial: Point, max_rounds: int
) -> tuple[list[Point], Point | None, int]:
    """Widen the step until an acceptable point is met or lies between two known ones."""
    previous = search.start
    for rounds in range(max_rounds):
        too_high = rounds > 1 and trial.loss >= previous.loss
        if not search.decreases(trial) or too_high:
            return [previous, trial], None, rounds
        if search.is_flat(trial):
            return [], trial, rounds
        if trial.slope >= 0:
            return [previous, trial], None, rounds
        bounds = (trial.t + 0.01 * (trial.t - previous.t), trial.t * 10)
        t = cubic_minimizer(previous, trial, bounds)
        previous, trial = trial, search.evaluate(t)
    return [], _lower([search.start, trial]), max(max_rounds, 0)


def _zoom(search: Search, ends: list[Point], max_rounds: int) -> tuple[Point, int]:
    """Narrow a bracket until an acceptable point is met; ``ends`` is in no particular order."""
    low = _lower_index(ends)
    stalled = False
    for rounds in range(max_rounds):
        if abs(ends[1].t - ends[0].t) * search.largest < search.tolerance_change:
            return ends[low], rounds
        t, stalled = _inside(cubic_minimizer(ends[0], ends[1]), ends, stalled)
        trial = search.evaluate(t)
        if not search.decreases(trial) or trial.loss >= ends[low].loss:
            ends[1 - low] = trial
            low = _lower_index(ends)
            continue
        if search.is_flat(trial):
            return trial, rounds + 1
        if trial.slope * (ends[1 - low].t - ends[low].t) >= 0:
            ends[1 - low] = ends[low]
        ends[low] = trial
    return ends[low], max_rounds


def _inside(t: float, ends: list[Point], stalled: bool) -> tuple[float, bool]:
    """Keep the trial a tenth of the bracket away from its ends, and say whether it hugged one.

    Hugging an end is forgiven once, since interpolation near a solution does that; twice in a row,
    or a trial on the end itself, would not shrink the bracket.
    """
    left, right = min(ends[0].t, ends[1].t), max(ends[0].t, ends[1].t)
    margin = 0.1 * (right - left)
    if not min(right - t, t - left) < margin:
        return t, False
    if not (stalled or t >= right or t <= left):
        return t, True
    nearer_right = abs(t - right) < abs(t - left)
    return (right - margin if nearer_right else left + margin), False


def cubic_minimizer(a: Point, b: Point, bounds: tuple[float, float] | None = None) -> float:
    """The minimizer of the cubic through two points with their slopes, clamped to the bounds.

    The bounds default to the two step lengths. Without a minimizer, the middle of the bounds.
    """
    left, right = (a, b) if a.t <= b.t else (b, a)
    low, high = bounds if bounds is not None else (left.t, right.t)
    if left.t == right.t:
        return (low + high) / 2.0
    d1 = left.slope + right.slope - 3 * (left.loss - right.loss) / (left.t - right.t)
    square = d1**2 - left.slope * right.slope
    if not square >= 0:
        return (low + high) / 2.0
    d2 = square.sqrt()
    share = (right.slope + d2 - d1) / (right.slope - left.slope + 2 * d2)
    t = float(right.t - (right.t - left.t) * share)
    return (low + high) / 2.0 if isnan(t) else min(max(t, low), high)


def _lower_index(ends: list[Point]) -> int:
    if ends[1].undefined:
        return 0
    return 1 if ends[0].undefined or ends[1].loss < ends[0].loss else 0


def _lower(ends: list[Point]) -> Point:
    return ends[_lower_index(ends)]
