"""Contour lines: the heights at which they are drawn, and the lines themselves.

They keep the rules by which a map is read: along a line the height is one and the same; lines of
different heights never cross; from each line to the next the height changes by the same interval,
so that their density shows the slope; and every line closes, in the picture or beyond its frame.
The interval is one of log height, because the height of a loss surface spans many powers of ten:
from one line to the next the height above the minimum grows by one and the same factor.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from thalweg.landscape.surfaces import Array, Surface
from thalweg.page import needs
from thalweg.ranges import Range, integer, number

# Where a function is cheap, lines come from a grid far finer than what is seen: a coarser one tears
# the lines of a narrow valley into pieces.
FINE = 1601
COSTLY = 100  # a surface whose resolution is at most this takes long to evaluate
SHADED = 200  # intervals to a side that are enough for shading
TOLERANCE = 1e-4  # of the picture's size, by which a line may leave the one on the fine grid
# Below this part of the picture's area a basin is too small for lines of its own.
SMALLEST_BASIN = 1e-3
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Levels:
    """At which heights lines are drawn.

    Attributes:
        values: of the function on the lines, ascending.
        heights: what the lines are labelled with: the height above ``base``.
        base: the value that heights are measured from.
        per_decade: lines for each factor of ten in height; None if they are equally far apart in
            height itself.
        labelled: indices of the lines that carry their height: the powers of ten, or every second.
    """

    values: tuple[float, ...]
    heights: tuple[float, ...]
    base: float
    per_decade: int | None
    labelled: tuple[int, ...]

    @property
    def logarithmic(self) -> bool:
        """Equally far apart in log height."""
        return self.per_decade is not None

    @property
    def rule(self) -> str:
        """The interval between neighbours in words, for captions."""
        if self.per_decade is None:
            if len(self.heights) < 2:
                return "One line." if self.heights else "No line: there is no slope."
            return f"Lines at equal steps of height: every {self.heights[1] - self.heights[0]:.3g}."
        above = " above the lowest value" if self.base else ""
        rule = f"Lines at equal steps of log height{above}: "
        if self.per_decade == 1:
            return f"{rule}each is 10 times as high as the one below."
        each = 10 ** (1 / self.per_decade)
        return f"{rule}{self.per_decade} to a factor of ten, each {each:.3g} times the one below."

    def label(self, index: int) -> str:
        """The height of a line in few characters.

        >>> Levels((0.1, 1000.0), (0.1, 1000.0), 0.0, 1, (0, 1)).label(1)
        '1000'
        """
        height = self.heights[index]
        exponent = math.log10(abs(height)) if height else 0.0
        if not -3 <= exponent < 5:
            power = f"10{str(round(exponent)).translate(_RAISED)}"
            whole = math.isclose(exponent, round(exponent))
            return power if whole else f"{height:.1e}"
        digits = f"{height:.0f}" if exponent >= 3 else f"{height:.3g}"
        return digits.replace("-", "−")

    def scaled(self, values: Array) -> Array:
        """Values on the scale on which lines are equally far apart: log10 of the height, or itself.

        What is lower than any line by a whole interval is drawn at that height.
        """
        if self.per_decade is None:
            return values - self.base
        floor = self.heights[0] * 10 ** (-1 / self.per_decade)
        with np.errstate(invalid="ignore"):
            return np.log10(np.maximum(values - self.base, floor))


@dataclass(frozen=True, eq=False)
class Line:
    """One connected piece of a contour line.

    Attributes:
        level: index in :class:`Levels`.
        points: shape (n, 2); the last is the first again if the line is closed.
    """

    level: int
    points: Array

    @property
    def closed(self) -> bool:
        """It ends where it begins."""
        return bool(np.array_equal(self.points[0], self.points[-1]))

    @property
    def length(self) -> float:
        """In units of x and y."""
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())


class Relief:
    """A surface on a grid, with its contour lines; the function is evaluated once.

    Args:
        surface: what to draw.
        count: about how many lines; from 1 to 60.
        resolution: points to a side of the grid that lines are taken from, at least 2 (default:
            1601, or the surface's own if that is at most 100, as where the function takes long).

    Raises:
        TypeError: count or resolution is not an integer.
        ValueError: one is out of range, or the surface is nowhere finite.
    """

    def __init__(self, surface: Surface, count: int = 16, resolution: int | None = None) -> None:
        owner = "contours"
        number(owner, "count", integer(owner, "count", count, flags=False), Range(1, 61))
        if resolution is not None:
            number(owner, "resolution", integer(owner, "resolution", resolution), Range(2))
        self.surface = surface
        self.count = count
        if resolution is None:
            resolution = surface.resolution if surface.resolution <= COSTLY else FINE
        self._fine = x, y, z = surface.grid(resolution)
        every, rest = divmod(resolution - 1, SHADED)
        every = 1 if rest or not every else every  # the last point must be one of them
        self.x, self.y, self.z = x[::every], y[::every], z[::every, ::every]
        if not np.isfinite(self.z).any():
            raise ValueError(
                f"contours: surface {surface.name!r} must be finite somewhere in its region "
                f"{surface.region}, got no finite value; choose another region"
            )

    @cached_property
    def levels(self) -> Levels:
        """See :func:`levels`."""
        z = self.z[np.isfinite(self.z)]
        base = self.surface.lowest
        if base is None and z.min() > 0:
            base = 0.0  # a loss whose lowest value is not known
        if base is not None:
            heights = z - base
            low, high = np.quantile(heights[heights > 0], SMALLEST_BASIN), heights.max()
            if low > 0 and high > 2 * low:
                return _logarithmic(base, float(low), float(high), self.count)
        return _linear(float(z.min()), float(z.max()), self.count)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """See :func:`lines`."""
        return self.lines_at(self.levels)

    def lines_at(self, at: Levels) -> tuple[Line, ...]:
        """The lines at other levels than the surface's own."""
        x, y, z = self._fine
        z = z if np.isfinite(z).all() else np.ma.masked_invalid(z)
        generator = needs("contourpy").contour_generator(x, y, z)
        size = np.array([x[-1] - x[0], y[-1] - y[0]])
        return tuple(
            Line(index, _thinned(points, TOLERANCE * size))
            for index, value in enumerate(at.values)
            for points in generator.lines(value)
        )

    @cached_property
    def scaled(self) -> Array:
        """The grid's values on the scale of :meth:`Levels.scaled`."""
        return self.levels.scaled(self.z)


def levels(surface: Surface, count: int = 16) -> Levels:
    """The heights at which contour lines of a surface are drawn.

    With a known lowest value they are 10^(k/n) above it, n lines to each factor of ten, so that
    neighbours are equally far apart in log height. A positive surface without a known minimum is
    measured from zero in the same way. Where values have both signs, as at a saddle, lines are
    equally far apart in height, on a round number, and height 0 is one of them.

    Args:
        surface: what to draw.
        count: about how many lines (default: 16), from 1 to 60.

    Raises:
        TypeError: count is not an integer.
        ValueError: count is out of range, or the surface is nowhere finite.

    >>> from thalweg.landscape import bowl, saddle
    >>> levels(bowl(), 8).rule
    'Lines at equal steps of log height: 2 to a factor of ten, each 3.16 times the one below.'
    >>> 0.0 in levels(saddle()).values
    True
    """
    return Relief(surface, count).levels


def lines(
    surface: Surface, at: Levels | None = None, resolution: int | None = None
) -> tuple[Line, ...]:
    """The contour lines of a surface over its region.

    Each piece is closed or ends at the frame; only where the function is not finite does a line
    end within the picture. The grid is contoured by contourpy; between grid points heights are
    interpolated linearly.

    Args:
        surface: what to draw.
        at: the heights (default: those of :func:`levels`).
        resolution: points to a side of the grid, at least 2; see :class:`Relief` for the default.

    Raises:
        ModuleNotFoundError: contourpy is not installed; the message says what to install.
        TypeError: resolution is not an integer.
        ValueError: it is less than 2, or the surface is nowhere finite.
    """
    relief = Relief(surface, resolution=resolution)
    return relief.lines if at is None else relief.lines_at(at)


def _thinned(points: Array, tolerance: Array) -> Array:
    """Without the points that hardly differ from a straight line between their neighbours."""
    points = points / tolerance
    while len(points) > 4:
        # Of three in a row only the middle one may go, so that errors do not add up.
        before, middle, after = points[:-2:2], points[1:-1:2], points[2::2]
        count = min(len(before), len(middle), len(after))
        before, middle, after = before[:count], middle[:count], after[:count]
        chord = after - before
        length = np.maximum(np.hypot(*chord.T), 1e-9)
        off = middle - before
        away = np.abs(chord[:, 0] * off[:, 1] - chord[:, 1] * off[:, 0]) / length
        straight = (away < 0.5) & (length < 200)
        if not straight.any():
            break
        keep = np.ones(len(points), dtype=bool)
        keep[1 : 2 * count : 2] = ~straight
        points = points[keep]
    return points * tolerance


def _logarithmic(base: float, low: float, high: float, count: int) -> Levels:
    decades = math.log10(high / low)
    per_decade = max(1, round(count / decades))
    exponents = range(
        math.ceil(math.log10(low) * per_decade), math.floor(math.log10(high) * per_decade) + 1
    )
    heights = tuple(10 ** (k / per_decade) for k in exponents)
    whole = tuple(i for i, k in enumerate(exponents) if k % per_decade == 0)
    # Within one or two factors of ten, too few lines would carry a number.
    return Levels(
        values=tuple(base + height for height in heights),
        heights=heights,
        base=base,
        per_decade=per_decade,
        labelled=whole if len(whole) > 2 else tuple(range(0, len(heights), 2)),
    )


def _linear(low: float, high: float, count: int) -> Levels:
    step = _round_step((high - low) / count) if high > low else 1.0
    multiples = range(math.ceil(low / step), math.floor(high / step) + 1)
    values = tuple(k * step for k in multiples)
    return Levels(
        values=values,
        heights=values,
        base=0.0,
        per_decade=None,
        labelled=tuple(i for i, k in enumerate(multiples) if k % 2 == 0),
    )


def _round_step(about: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten, by their ratio."""
    power = 10.0 ** math.floor(math.log10(about))
    bounds = [1.0, 2.0, 5.0, 10.0]
    for lower, upper in pairwise(bounds):
        if about < power * math.sqrt(lower * upper):
            return lower * power
    return 10.0 * power
