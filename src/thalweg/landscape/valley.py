"""The valley line of a surface, its thalweg: the lowest points of the cross-sections."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from thalweg.engine.modes import with_gradients
from thalweg.landscape.surfaces import Array, Point, Surface, pair
from thalweg.ranges import Range, integer, number

FINE = 801  # points of a cross-section between which lowest points are looked for
LEVEL = 1e-13  # of the steepest slope: what rounding may leave of a slope that is 0
HALVINGS = 60  # of an interval: down to the rounding of float64


def valley(surface: Surface, count: int = 401, across: Point | None = None) -> tuple[Array, ...]:
    """The lowest points of a surface's cross-sections, joined to lines.

    ::

        {p : the slope of f along d is 0 at p, and goes from falling to rising there}

    d is the surface's :attr:`~Surface.across`; without one it is the direction of the greatest
    curvature at the first minimum. Parallel cross-sections along d are laid through the region,
    every lowest point of each is found to the rounding of float64, and two points in neighbouring
    sections are joined if each lies in the other's basin: no higher point between them.

    A thalweg joins the lowest points of successive cross-sections: that is the definition. It
    needs a direction, which the surveyor of a river takes from its course. Two others do without
    it, and say something else:

    - Height ridges and valleys, in the plane the same as gradient extremals, ask for the gradient
      to be an eigenvector of the Hessian: the slope along the steepest curvature is 0. That
      direction turns from point to point and sees the curvature of the line itself. Rosenbrock's
      function is lowest over each x at ``y = x^2``; its gradient extremal leaves that parabola,
      by up to 0.008 in y (0.005 at right angles to it) where the picture is drawn.
    - Lines of steepest descent flow into the valley and along it, but every point has one. To
      find the one that counts takes a start: a saddle, or infinity.

    Where the line is a line of steepest descent itself, as on bowls and saddles, all three agree.
    In chemistry this line is known as a reduced gradient or Newton trajectory: along it the
    gradient keeps its direction, at right angles to d. So height changes along it as the lowest
    point of the section does, and minima and saddles lie on it.

    Args:
        surface: differentiable by autograd.
        count: cross-sections, evenly spaced over the region, at least 2.
        across: their direction (default: the surface's).

    Returns:
        Lines of shape (points, 2) inside the region, in order of the section that they begin in. A
        line ends on the frame, or within one section of where its lowest point ceases to be one.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or there is neither a direction nor a minimum to
            take it from.

    Source: the definition: "thalweg" in the Oxford Dictionary of English; height ridges: Eberly et
    al., "Ridges for Image Analysis", Journal of Mathematical Imaging and Vision 4 (1994); gradient
    extremals: Hoffman, Nord and Ruedenberg, "Gradient Extremals", Theoretica Chimica Acta 69
    (1986); slope lines: Koenderink and van Doorn, "Local Features of Smooth Shapes: Ridges and
    Courses", 1993; Newton trajectories: Quapp et al., "Searching for Saddle Points of Potential
    Energy Surfaces by Following a Reduced Gradient", Journal of Computational Chemistry 19 (1998).

    >>> from thalweg.landscape import rosenbrock
    >>> (line,) = valley(rosenbrock())
    >>> x, y = line.T
    >>> bool(abs(y - x**2).max() < 1e-12)
    True
    """
    number("valley", "count", integer("valley", "count", count, flags=False), Range(2))
    lines: list[Array] = []
    for direction in _directions(surface, across):
        lines += _Sections(surface, direction, count).lines()
    return tuple(lines)


def valley_if_known(surface: Surface) -> tuple[Array, ...]:
    """The lines of :func:`valley`; none if nothing gives their sections a direction."""
    return valley(surface) if surface.minima or surface.across else ()


def _directions(surface: Surface, across: Point | None) -> list[Point]:
    """Unit vectors: the one that is asked for, the surface's, or the steepest at a minimum."""
    given = surface.across if across is None else across
    if given is None:
        return [_steepest(surface)]
    found = []
    for each in given if np.ndim(given) == 2 else [given]:
        dx, dy = pair("valley", "across", each)
        length = float(np.hypot(dx, dy))
        if length == 0:
            raise ValueError(f"valley: across must not be zero, got {each}")
        # What rounding has left of a zero would turn a section along an axis out of the region.
        unit = [0.0 if abs(d) < 1e-12 * length else d / length for d in (dx, dy)]
        found.append((unit[0], unit[1]))
    return found


def _steepest(surface: Surface) -> Point:
    """The eigenvector of the greatest eigenvalue of the Hessian at the first minimum.

    Second derivatives are differences of the gradient, as not every function has them by autograd.
    """
    if not surface.minima:
        raise ValueError(
            f"valley: {surface.name} has no known minimum to take the direction of its "
            "cross-sections from; give across"
        )
    at = np.array(surface.minima[0])
    left, right, bottom, top = surface.region
    h = 1e-5 * max(right - left, top - bottom)
    around = at + h * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    slopes = _gradient(surface, around)
    hessian = np.stack([slopes[0] - slopes[1], slopes[2] - slopes[3]]) / (2 * h)
    dx, dy = np.linalg.eigh((hessian + hessian.T) / 2).eigenvectors[:, -1]
    return float(dx), float(dy)


@with_gradients(True)
def _gradient(surface: Surface, points: Array) -> Array:
    """The gradient at points of shape (..., 2), of the same shape."""
    x, y = torch.from_numpy(points).unbind(-1)
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    value = surface(x, y)
    surface.check_gradient("valley", value)
    slopes = torch.autograd.grad(value.sum(), (x, y), materialize_grads=True)
    return torch.stack(slopes, -1).numpy()


class _Lowest(NamedTuple):
    """A lowest point of a section, and the ends of its basin: where it stops falling towards it."""

    at: float
    low: float
    high: float


@dataclass(eq=False)
class _Line:
    """A line as it grows: its first section, and the lowest point of that and of each after it."""

    first: int
    lowest: list[_Lowest]


class _Sections:
    """Parallel cross-sections through a surface's region.

    Args:
        surface: the surface.
        across: their direction, a unit vector.
        count: how many.

    A point is given by ``s``, the position of its section, and ``t``, the position in it:
    ``s * along + t * across``.
    """

    def __init__(self, surface: Surface, across: Point, count: int) -> None:
        self.surface = surface
        self.across = np.array(across)
        self.along = np.array([across[1], -across[0]])
        left, right, bottom, top = surface.region
        self.box = np.array([[left, bottom], [right, top]])
        corners = np.array([[x, y] for x in (left, right) for y in (bottom, top)])
        reach = corners @ self.along
        self.s = np.linspace(reach.min(), reach.max(), count)
        self.low, self.high = self.borders(self.s)

    def borders(self, s: Array) -> tuple[Array, Array]:
        """Where sections enter and leave the region; the same position if they miss it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = (self.box[:, None] - s[:, None] * self.along) / self.across
        # A section along an axis is never beyond the other one: it lies in the region's reach.
        ends[:, :, self.across == 0] = np.array([-np.inf, np.inf])[:, None, None]
        low, high = ends.min(0).max(-1), ends.max(0).min(-1)
        return low, np.maximum(low, high)

    def points(self, s: Array, t: Array) -> Array:
        """Their coordinates, kept in the region where rounding has led out of it."""
        found: Array = s[..., None] * self.along + t[..., None] * self.across
        return found.clip(self.box[0], self.box[1])

    def slope(self, s: Array, t: Array) -> Array:
        """The surface's slope along its cross-section."""
        slope: Array = _gradient(self.surface, self.points(s, t)) @ self.across
        return slope

    def lines(self) -> list[Array]:
        """Lowest points joined from section to section."""
        lines: list[_Line] = []
        growing: list[_Line] = []
        for i, found in enumerate(self._lowest()):
            # Basins of one section do not overlap: a point has at most one line to continue.
            pairs = [(point, [x for x in growing if _meet(x.lowest[-1], point)]) for point in found]
            growing = []
            for point, before in pairs:
                line = before[0] if before else _Line(i, [])
                if not before:
                    lines.append(line)
                line.lowest.append(point)
                growing.append(line)
        return [self._drawn(line) for line in lines if len(line.lowest) > 1]

    def _lowest(self) -> list[list[_Lowest]]:
        """The lowest points of each section, in order."""
        share = np.linspace(0, 1, FINE)
        t = self.low[:, None] + (self.high - self.low)[:, None] * share
        slope = self.slope(np.broadcast_to(self.s[:, None], t.shape), t)
        # A level section has no lowest point, though rounding may dig some.
        self.level = LEVEL * float(abs(slope).max())
        slope[abs(slope) <= self.level] = 0
        sign = _without_zeros(np.sign(slope))
        rises = sign[:, :-1] * sign[:, 1:] < 0
        section, k = np.nonzero(rises & (sign[:, 1:] > 0))
        at = self._zero(self.s[section], t[section, k], t[section, k + 1])
        tops, m = np.nonzero(rises & (sign[:, 1:] < 0))
        found = []
        for i in range(len(self.s)):
            # The outermost basins have no end: beyond the frame nothing is known.
            ends = np.array([-np.inf, *t[i, m[tops == i]], np.inf])
            lowest = at[section == i]
            index = np.searchsorted(ends, t[i, k[section == i] + 1]) - 1
            found.append(
                [_Lowest(float(a), *ends[j : j + 2]) for a, j in zip(lowest, index, strict=True)]
            )
        return found

    def _zero(self, s: Array, falling: Array, rising: Array) -> Array:
        """Where the slope is 0 between positions at which it is negative and positive."""
        for _ in range(HALVINGS):
            middle = (falling + rising) / 2
            down = self.slope(s, middle) < 0
            falling, rising = np.where(down, middle, falling), np.where(down, rising, middle)
        return rising

    def _drawn(self, line: _Line) -> Array:
        """The line's points, and those at which it leaves the region between two sections."""
        first, last = line.first, line.first + len(line.lowest) - 1
        middle = self.points(self.s[first : last + 1], np.array([each.at for each in line.lowest]))
        begin = self._crossing(line.lowest[0], first, first - 1)
        end = self._crossing(line.lowest[-1], last, last + 1)
        return np.concatenate([begin, middle, end])

    def _crossing(self, point: _Lowest, inside: int, outside: int) -> Array:
        """Where a line crosses the frame between two sections: one point, or none.

        It does at an end of the sections if nothing lies between its last lowest point and that
        end, the slope there, which still leads up from the point, does not in the section outside,
        and in between the lowest point gets there: the section does not just tip over.
        """
        if 0 <= outside < len(self.s):
            for upper, outward in ((0, -1), (1, 1)):
                if math.isfinite((point.low, point.high)[upper]):
                    continue
                s = self.s[[inside, outside]]
                rise = outward * self.slope(s, self.borders(s)[upper])
                if rise[0] > self.level and rise[1] <= self.level:
                    within = self._turn(s[:1], s[1:], upper, outward)
                    if self._is_near(point, inside, within, upper, outward):
                        return self.points(within, self.borders(within)[upper])
        return np.empty((0, 2))

    def _turn(self, within: Array, beyond: Array, upper: int, outward: int) -> Array:
        """The section between two in which the slope at the frame is 0."""
        for _ in range(HALVINGS):
            s = (within + beyond) / 2
            up = outward * self.slope(s, self.borders(s)[upper]) > 0
            within, beyond = np.where(up, s, within), np.where(up, beyond, s)
        return within

    def _is_near(self, point: _Lowest, inside: int, turn: Array, upper: int, outward: int) -> bool:
        """Whether just before a section the lowest point has come near the frame.

        If half of the way that it had to go leads down to the frame, it lies beyond.
        """
        s = turn - 1e-3 * (turn - self.s[inside])
        border = self.borders(s)
        half = abs((self.low, self.high)[upper][inside] - point.at) / 2
        t = np.clip(border[upper] - outward * half, *border)
        return bool(outward * self.slope(s, t)[0] < 0)


def _meet(a: _Lowest, b: _Lowest) -> bool:
    """Whether two lowest points of neighbouring sections lie in each other's basin."""
    return b.low < a.at < b.high and a.low < b.at < a.high


def _without_zeros(sign: Array) -> Array:
    """Signs, where a zero takes that of the next one that is none; the last ones may stay."""
    for k in range(sign.shape[1] - 2, -1, -1):
        sign[:, k] = np.where(sign[:, k] == 0, sign[:, k + 1], sign[:, k])
    return sign
