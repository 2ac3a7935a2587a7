"""Schedules made of several: one after the other, multiplied, added.

Each is brought to one form when it is made: a join of joins is one join, a product of products one
product. So (a * b) * c and a * (b * c) are equal as values, and equal
bit for bit at every step. Milestones of nested joins are added: exactly if they are whole numbers
of steps, rounded as floats are if they are not.
"""

import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

from thalweg.ranges import Range, milestones, number
from thalweg.schedules.base import Schedule, span
from thalweg.schedules.shapes import Constant


def as_schedule(owner: str, name: str, value: Any) -> Schedule:
    """The value if it is a schedule; a number becomes a Constant."""
    if isinstance(value, Schedule):
        return value
    try:
        return Constant(number(owner, name, value))
    except TypeError:
        raise TypeError(
            f"{owner}: {name} must be a schedule or a number, got {type(value).__name__} "
            f"{value!r}; a function of the step is made one by Function(function)"
        ) from None


def schedules_of(owner: str, name: str, values: Any) -> tuple[Schedule, ...]:
    """The values as a tuple of at least one schedule."""
    if not isinstance(values, Iterable):
        raise TypeError(f"{owner}: {name} must be a list or a tuple of schedules, got {values!r}")
    found = tuple(as_schedule(owner, f"{name}[{i}]", value) for i, value in enumerate(values))
    if not found:
        raise ValueError(f"{owner}: {name} must hold at least one schedule, got none")
    return found


@dataclass(frozen=True, slots=True)
class Join(Schedule):
    """One schedule after the other, each from its own zero.

    ::

        schedules[0](t)                        (t < milestones[0])
        schedules[i](t - milestones[i - 1])    (milestones[i - 1] <= t < milestones[i])

    Parts that are joins themselves are taken apart, and parts of no length are left out: both
    leave every value as it is.

    Args:
        schedules: at least one; numbers are constants.
        milestones: the steps at which the next one takes over, >= 0 and in order; one fewer.

    Raises:
        ValueError: milestones of another number, negative or decreasing; or a schedule that goes
            no further than before the next one takes over.

    >>> from thalweg.schedules import Linear
    >>> Join((Linear(0, 2, steps=2), 5, Linear(2, 0, steps=2)), (2, 4)).values(7)
    [0.0, 1.0, 5.0, 5.0, 2.0, 1.0, 0.0]
    """

    schedules: tuple[Schedule, ...]
    milestones: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        parts = schedules_of("Join", "schedules", self.schedules)
        ends = milestones("Join", self.milestones)
        if len(ends) != len(parts) - 1:
            raise ValueError(
                f"Join: milestones must be one fewer than the {len(parts)} schedules, got "
                f"{len(ends)}: {list(ends)}"
            )
        begins = (0, *ends)
        pieces = [
            piece
            for part, begin, end in zip(parts, begins, (*ends, math.inf), strict=True)
            for piece in _pieces(part, begin, end)
        ]
        for (part, begin), (_, end) in pairwise(pieces):
            if begin + part.domain.high < end:
                raise ValueError(
                    f"Join: milestones must not lie past the end of a schedule, got {end}, but "
                    f"{part!r} begins at {begin} and ends at {begin + part.domain.high}"
                )
        self._set("schedules", tuple(part for part, _ in pieces))
        self._set("milestones", tuple(begin for _, begin in pieces[1:]))

    @property
    def _last_begin(self) -> float:
        return self.milestones[-1] if self.milestones else 0

    def _value(self, t: float) -> float:
        i = bisect_right(self.milestones, t)
        return self.schedules[i]._value(t - self.milestones[i - 1] if i else t)

    @property
    def steps(self) -> float:
        return self._last_begin + self.schedules[-1].steps

    @property
    def domain(self) -> Range:
        return self.schedules[-1].domain.moved(self._last_begin)

    @property
    def bounds(self) -> tuple[float, float]:
        return span(*(bound for part in self.schedules for bound in part.bounds))


def _pieces(part: Schedule, begin: float, end: float) -> list[tuple[Schedule, float]]:
    """What a part of a join consists of between two steps, each piece with its own beginning."""
    if not isinstance(part, Join):
        return [(part, begin)] if begin < end else []
    begins = [begin, *(begin + milestone for milestone in part.milestones)]
    return [
        (piece, first)
        for piece, first, following in zip(part.schedules, begins, (*begins[1:], end), strict=True)
        if first < min(following, end)
    ]


def join(schedules: Iterable[Schedule | float], milestones: Iterable[float] = ()) -> Schedule:
    """One schedule after the other, each from its own zero; see :class:`Join`.

    What consists of a single schedule is that schedule.

    >>> from thalweg.schedules import Linear
    >>> join([Linear(1, 0, steps=4)])
    Linear(start=1, end=0, steps=4)
    """
    joined = Join(schedules, milestones)  # type: ignore[arg-type]  # it makes them tuples
    return joined if joined.milestones else joined.schedules[0]


class _Fold(Schedule):
    """Several schedules put together by an operation, from the left to the right."""

    __slots__ = ()
    parts: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        kind = type(self)
        parts: list[Schedule] = []
        for part in schedules_of(kind.__name__, "parts", self.parts):
            parts.extend(part.parts if isinstance(part, kind) else [part])
        self._set("parts", tuple(parts))

    @staticmethod
    @abstractmethod
    def _combine(a: float, b: float) -> float: ...

    def _value(self, t: float) -> float:
        return reduce(self._combine, (part._value(t) for part in self.parts))

    @property
    def steps(self) -> float:
        lengths = [part.steps for part in self.parts if not isinstance(part, Constant)]
        return max(lengths, default=math.inf)

    @property
    def domain(self) -> Range:
        # Of two that end at the same step, the one that does not include it.
        return min(
            (part.domain for part in self.parts),
            key=lambda domain: (domain.high, domain.open != "high"),
        )

    def _infix(self, sign: str) -> str:
        if len(self.parts) == 1:
            return f"{type(self).__name__}({self.parts!r})"
        texts = []
        for i, part in enumerate(self.parts):
            # A number stands for itself, but two of them would be a number and not a schedule.
            number_first = i == 1 and isinstance(self.parts[0], Constant)
            if isinstance(part, Constant) and not number_first:
                texts.append(repr(part.value))
            else:
                texts.append(f"({part!r})" if isinstance(part, Sum) else repr(part))
        return f" {sign} ".join(texts)


def _times(a: float, b: float) -> float:
    return a * b if a and b else 0.0  # nothing times infinity is nothing


@dataclass(frozen=True, slots=True, repr=False)
class Product(_Fold):
    """Schedules multiplied: ``f * g``.

    ::

        parts[0](t) * parts[1](t) * ...

    A product among the parts is taken apart.

    Args:
        parts: at least one schedule; numbers are constants.

    >>> from thalweg.schedules import Step
    >>> 0.5 * Step(10)
    0.5 * Step(every=10, gamma=0.1, start=1.0)
    """

    parts: tuple[Schedule, ...]

    @staticmethod
    def _combine(a: float, b: float) -> float:
        return a * b

    @property
    def bounds(self) -> tuple[float, float]:
        return reduce(
            lambda a, b: span(*(_times(x, y) for x in a for y in b)),
            (part.bounds for part in self.parts),
        )

    def __repr__(self) -> str:
        return self._infix("*")


@dataclass(frozen=True, slots=True, repr=False)
class Sum(_Fold):
    """Schedules added: ``f + g``.

    ::

        parts[0](t) + parts[1](t) + ...

    A sum among the parts is taken apart.

    Args:
        parts: at least one schedule; numbers are constants.

    >>> from thalweg.schedules import Step
    >>> 0.5 + Step(10)
    0.5 + Step(every=10, gamma=0.1, start=1.0)
    """

    parts: tuple[Schedule, ...]

    @staticmethod
    def _combine(a: float, b: float) -> float:
        return a + b

    @property
    def bounds(self) -> tuple[float, float]:
        return reduce(lambda a, b: (a[0] + b[0], a[1] + b[1]), (part.bounds for part in self.parts))

    def __repr__(self) -> str:
        return self._infix("+")
