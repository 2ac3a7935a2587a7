"""Shapes from one value to another, which is then held."""

import math
from abc import abstractmethod
from dataclasses import dataclass, field

from thalweg.ranges import ANY, NON_NEGATIVE, POSITIVE
from thalweg.schedules.base import Schedule, ramp, span


def linear(fraction: float) -> float:
    return 1 - fraction


def cosine(fraction: float) -> float:
    return (1 + math.cos(math.pi * fraction)) / 2


def rex(fraction: float) -> float:
    return (1 - fraction) / (1 / 2 + (1 - fraction) / 2)


def square_root(fraction: float) -> float:
    return 1 - math.sqrt(fraction)


# The ways from one value to another that can be chosen by name.
WEIGHTS = {"linear": linear, "cosine": cosine, "sqrt": square_root}


@dataclass(frozen=True, slots=True)
class Ramp(Schedule):
    """From start to end in so many steps, after which the end is held; see its subclasses."""

    start: float
    end: float
    steps: float = field()  # field(): else the property of this name would be its default

    ranges = {"start": ANY, "end": ANY, "steps": NON_NEGATIVE}

    @abstractmethod
    def _weight(self, fraction: float) -> float:
        """The weight of ``start``: 1 at fraction 0, 0 at fraction 1."""

    def _value(self, t: float) -> float:
        return ramp(self.start, self.end, self.steps, t, self._weight)

    @property
    def bounds(self) -> tuple[float, float]:
        return span(self.start, self.end)


@dataclass(frozen=True, slots=True)
class Linear(Ramp):
    """A straight line from start to end, which is held.

    ::

        end + (start - end) * (1 - t / steps)      (t < steps)
        end                                        (t >= steps)

    Args:
        start: value at t = 0.
        end: value from t = steps on.
        steps: length, >= 0; with 0 it is at its end at once.

    Raises:
        ValueError: an argument out of range.

    >>> Linear(1, 0, steps=4).values(6)
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def _weight(self, fraction: float) -> float:
        return linear(fraction)


@dataclass(frozen=True, slots=True)
class Polynomial(Ramp):
    """A power of the straight line, from start to end, which is held.

    ::

        end + (start - end) * (1 - t / steps) ** power      (t < steps)
        end                                                 (t >= steps)

    Args:
        start: value at t = 0.
        end: value from t = steps on.
        steps: length, >= 0; with 0 it is at its end at once.
        power: > 0; above 1 it is steep at first, below 1 at the end.

    Raises:
        ValueError: an argument out of range.

    >>> Polynomial(1, 0, steps=4, power=2).values(5)
    [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """

    power: float = 1.0

    ranges = {**Ramp.ranges, "power": POSITIVE}

    def _weight(self, fraction: float) -> float:
        return math.pow(linear(fraction), self.power)


@dataclass(frozen=True, slots=True)
class Cosine(Ramp):
    """Half a wave of the cosine from start to end, which is held.

    ::

        end + (start - end) * (1 + cos(pi * t / steps)) / 2      (t < steps)
        end                                                      (t >= steps)

    Args:
        start: value at t = 0.
        end: value from t = steps on.
        steps: length, >= 0; with 0 it is at its end at once.

    Raises:
        ValueError: an argument out of range.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    equation 5, without restarts.

    >>> [round(value, 4) for value in Cosine(1, 0, steps=4).values(6)]
    [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """

    def _weight(self, fraction: float) -> float:
        return cosine(fraction)


@dataclass(frozen=True, slots=True)
class Rex(Ramp):
    """Reflected exponential: from start to end, which is held, slow at first and then faster.

    ::

        end + (start - end) * (1 - x) / (1/2 + (1 - x) / 2)      (x = t / steps < 1)
        end                                                      (t >= steps)

    Args:
        start: value at t = 0.
        end: value from t = steps on.
        steps: length, >= 0; with 0 it is at its end at once.

    Raises:
        ValueError: an argument out of range.

    Source: Chen, Wolfe and Kyrillidis, "REX: Revisiting Budgeted Training with an Improved
    Schedule", 2021.

    >>> [round(value, 4) for value in Rex(1, 0, steps=4).values(6)]
    [1.0, 0.8571, 0.6667, 0.4, 0.0, 0.0]
    """

    def _weight(self, fraction: float) -> float:
        return rex(fraction)
