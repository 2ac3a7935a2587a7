"""Constants, powers, tables and functions."""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from thalweg.ranges import ANY, NON_NEGATIVE, POSITIVE, Range, flag, milestones, numbers
from thalweg.schedules.base import Schedule, ramp, span
from thalweg.schedules.ramps import linear


def powered(start: float, base: float, exponent: float) -> float:
    """start * base ** exponent, infinite where that is too large for a float."""
    if not start:  # 0 times an infinite power would be NaN
        return 0.0
    try:
        return start * math.pow(base, exponent)
    except OverflowError:
        return math.copysign(math.inf, start)


@dataclass(frozen=True, slots=True)
class Constant(Schedule):
    """The same value at every step.

    ::

        value

    Args:
        value: finite.

    Raises:
        TypeError, ValueError: ``value`` is not a finite number.

    >>> Constant(0.1)(1000)
    0.1
    """

    value: float

    ranges = {"value": ANY}

    def _value(self, t: float) -> float:
        return self.value

    @property
    def bounds(self) -> tuple[float, float]:
        return span(self.value)


@dataclass(frozen=True, slots=True)
class Step(Schedule):
    """Multiplied by gamma after every so many steps.

    ::

        start * gamma ** floor(t / every)

    Args:
        every: steps between two changes, > 0.
        gamma: factor, >= 0.
        start: value at t = 0.

    Raises:
        ValueError: an argument out of range.

    >>> Step(2, gamma=0.5).values(5)
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    every: float
    gamma: float = 0.1
    start: float = 1.0

    ranges = {"every": POSITIVE, "gamma": NON_NEGATIVE, "start": ANY}

    def _value(self, t: float) -> float:
        return powered(self.start, self.gamma, t // self.every)

    @property
    def bounds(self) -> tuple[float, float]:
        return span(self.start, powered(self.start, self.gamma, math.inf))


@dataclass(frozen=True, slots=True)
class MultiStep(Schedule):
    """Multiplied by gamma at each milestone.

    ::

        start * gamma ** (number of milestones <= t)

    Args:
        milestones: steps, each >= 0, in order; one that occurs twice counts twice.
        gamma: factor, >= 0.
        start: value before the first milestone.

    Raises:
        ValueError: an argument out of range, or milestones that decrease.

    >>> MultiStep((1, 3), gamma=0.5).values(5)
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    milestones: tuple[float, ...]
    gamma: float = 0.1
    start: float = 1.0

    ranges = {"gamma": NON_NEGATIVE, "start": ANY}

    def __post_init__(self) -> None:
        self._set("milestones", milestones("MultiStep", self.milestones))
        Schedule.__post_init__(self)

    def _value(self, t: float) -> float:
        return powered(self.start, self.gamma, bisect_right(self.milestones, t))

    @property
    def steps(self) -> float:
        return self.milestones[-1] if self.milestones else math.inf

    @property
    def bounds(self) -> tuple[float, float]:
        return span(self.start, powered(self.start, self.gamma, len(self.milestones)))


@dataclass(frozen=True, slots=True)
class Exponential(Schedule):
    """Multiplied by gamma at every step.

    ::

        start * gamma ** t

    Args:
        gamma: factor, >= 0.
        start: value at t = 0.

    Raises:
        ValueError: an argument out of range.

    >>> Exponential(0.5).values(4)
    [1.0, 0.5, 0.25, 0.125]
    """

    gamma: float
    start: float = 1.0

    ranges = {"gamma": NON_NEGATIVE, "start": ANY}

    def _value(self, t: float) -> float:
        return powered(self.start, self.gamma, t)

    @property
    def bounds(self) -> tuple[float, float]:
        return span(self.start, powered(self.start, self.gamma, math.inf))


@dataclass(frozen=True, slots=True)
class Table(Schedule):
    """Values given one by one, one for each step.

    ::

        entries[floor(t)]
        interpolate:  entries[i] + (entries[i + 1] - entries[i]) * (t - i)      (i = floor(t))

    It has a value for 0 <= t < len(entries). The last entry has no next one to move to and is
    held during its step.

    Args:
        entries: the values at t = 0, 1, 2, ...; at least one.
        interpolate: between whole steps, move to the next entry in a straight line.

    Raises:
        ValueError: no entry, or one that is not finite.

    >>> Table((4, 2, 1))(1.5), Table((4, 2, 1), interpolate=True)(1.5)
    (2.0, 1.5)
    """

    entries: tuple[float, ...]
    interpolate: bool = False

    def __post_init__(self) -> None:
        self._set("entries", numbers("Table", "entries", self.entries))
        if not self.entries:
            raise ValueError("Table: entries must hold at least one value, got none")
        self._set("interpolate", flag("Table", "interpolate", self.interpolate))

    def _value(self, t: float) -> float:
        i = min(math.floor(t), len(self.entries) - 1)
        if not self.interpolate or i + 1 == len(self.entries):
            return self.entries[i]
        return ramp(self.entries[i], self.entries[i + 1], 1, t - i, linear)

    @property
    def steps(self) -> float:
        return len(self.entries)

    @property
    def domain(self) -> Range:
        return Range(0, len(self.entries))

    @property
    def bounds(self) -> tuple[float, float]:
        return span(*self.entries)


@dataclass(frozen=True, slots=True)
class Function(Schedule):
    """Any function of the step.

    ::

        function(t)

    Nothing is known of its values: :attr:`bounds` is infinite. It is as pure as the function is;
    two are equal, and one can be hashed or pickled, if their functions are or can.

    Args:
        function: takes t >= 0 and returns a number.

    Raises:
        TypeError: ``function`` cannot be called.

    >>> Function(lambda t: 1 / (1 + t)).values(3)
    [1.0, 0.5, 0.3333333333333333]
    """

    function: Callable[[float], float]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"Function: function must be callable, got {self.function!r}")

    def _value(self, t: float) -> float:
        return float(self.function(t))
