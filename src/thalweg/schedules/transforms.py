"""Schedules made of one: moved, repeated, clamped."""

import math
from dataclasses import dataclass

from thalweg.ranges import ANY, POSITIVE, Range, flag, number
from thalweg.schedules.base import Schedule, span
from thalweg.schedules.compose import as_schedule


@dataclass(frozen=True, slots=True)
class Shifted(Schedule):
    """A schedule moved along the steps: see :meth:`Schedule.shifted`.

    Args:
        schedule: what is moved.
        by: how many steps later; negative to start in the middle.

    Raises:
        ValueError: ``by`` starts past the end of the schedule.
    """

    schedule: Schedule
    by: float

    ranges = {"by": ANY}

    def __post_init__(self) -> None:
        self._set("schedule", as_schedule("Shifted", "schedule", self.schedule))
        Schedule.__post_init__(self)
        domain = self.schedule.domain
        if max(0, -self.by) not in domain:
            raise ValueError(
                f"Shifted: by must not start past the end of the schedule, got {self.by}, but "
                f"{self.schedule!r} has values for t {domain}"
            )

    def _value(self, t: float) -> float:
        return self.schedule._value(max(0, t - self.by))

    @property
    def steps(self) -> float:
        return max(0, self.schedule.steps + self.by)

    @property
    def domain(self) -> Range:
        return self.schedule.domain.moved(self.by)

    @property
    def bounds(self) -> tuple[float, float]:
        return self.schedule.bounds


def shifted(schedule: Schedule, by: float) -> Schedule:
    """A schedule moved along the steps, shifts of shifts added; see :meth:`Schedule.shifted`."""
    if (by := number("shifted", "by", by)) == 0:
        return schedule
    # A later beginning after a start in the middle holds a value that is not the first one.
    if isinstance(schedule, Shifted) and not schedule.by < 0 < by:
        by += schedule.by
        schedule = schedule.schedule
    return Shifted(schedule, by) if by else schedule


@dataclass(frozen=True, slots=True)
class Repeated(Schedule):
    """A schedule again and again: see :meth:`Schedule.repeated`.

    Args:
        schedule: what is repeated.
        every: steps after which it starts over, > 0.
        mirrored: run it backwards every second time.

    Raises:
        ValueError: ``every`` is out of range or the schedule goes no further than before it.
    """

    schedule: Schedule
    every: float
    mirrored: bool = False

    ranges = {"every": POSITIVE}

    def __post_init__(self) -> None:
        self._set("schedule", as_schedule("Repeated", "schedule", self.schedule))
        self._set("mirrored", flag("Repeated", "mirrored", self.mirrored))
        Schedule.__post_init__(self)
        domain = self.schedule.domain
        # Only the mirrored one is asked for its value at `every` itself.
        if self.every not in domain if self.mirrored else self.every > domain.high:
            raise ValueError(
                f"Repeated: every must not lie past the end of the schedule, got {self.every}, "
                f"but {self.schedule!r} has values for t {domain}"
            )

    def _value(self, t: float) -> float:
        if not self.mirrored:
            return self.schedule._value(t % self.every)
        place = t % (2 * self.every)
        return self.schedule._value(min(place, 2 * self.every - place))

    @property
    def bounds(self) -> tuple[float, float]:
        return self.schedule.bounds


@dataclass(frozen=True, slots=True, repr=False)
class Clamped(Schedule):
    """A schedule kept between two values: see :meth:`Schedule.clamped`.

    Args:
        schedule: what is kept.
        low: lowest value (default: none).
        high: highest value, >= low (default: none).

    Raises:
        ValueError: a bound is NaN, or the lowest is above the highest.
    """

    schedule: Schedule
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        self._set("schedule", as_schedule("Clamped", "schedule", self.schedule))
        if self.low != -math.inf:
            self._set("low", number("Clamped", "low", self.low))
        if self.high != math.inf:
            self._set("high", number("Clamped", "high", self.high))
        if self.low > self.high:
            raise ValueError(
                f"Clamped: low must not be above high, got low={self.low} and high={self.high}"
            )

    def _value(self, t: float) -> float:
        return self._clamp(self.schedule._value(t))

    def _clamp(self, value: float) -> float:
        return min(max(value, self.low), self.high)  # in this order NaN stays NaN

    @property
    def steps(self) -> float:
        return self.schedule.steps

    @property
    def domain(self) -> Range:
        return self.schedule.domain

    @property
    def bounds(self) -> tuple[float, float]:
        low, high = self.schedule.bounds
        return span(self._clamp(low), self._clamp(high))

    def __repr__(self) -> str:
        low = f", low={self.low}" if self.low != -math.inf else ""
        high = f", high={self.high}" if self.high != math.inf else ""
        return f"Clamped({self.schedule!r}{low}{high})"
