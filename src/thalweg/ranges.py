"""Intervals of numbers, and the check that an argument lies in its own."""

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Range:
    """An interval of numbers; ``open`` says which ends do not belong to it.

    >>> print(Range(0, 1, open="high"))
    >= 0 and < 1
    """

    low: float = 0.0
    high: float = math.inf
    open: str = "high"  # "low", "high", "both" or "neither"

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open in ("low", "both") else value >= self.low
        # An infinite upper end is no bound.
        below = value < self.high if self.open in ("high", "both") else value <= self.high
        return above and (below or self.high == math.inf == value)

    def __str__(self) -> str:
        low = f"{'>' if self.open in ('low', 'both') else '>='} {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and {'<' if self.open in ('high', 'both') else '<='} {self.high:g}"

    def moved(self, by: float) -> "Range":
        """With another upper end, so much further."""
        return replace(self, high=self.high + by)


@dataclass(frozen=True)
class OrNone:
    """A number of an interval, or None."""

    allowed: Range


# What each option may be: a number, a number or None, or a tuple with a number of each interval.
Ranges = Mapping[str, Range | OrNone | tuple[Range, ...]]

NON_NEGATIVE = Range()
POSITIVE = Range(open="both")
AT_LEAST_ONE = Range(1)
FRACTION = Range(0, 1)  # without 1: a decay rate
UNIT_INTERVAL = Range(0, 1, open="neither")
ANY = Range(-math.inf, math.inf, open="neither")


def number(
    owner: str,
    name: str,
    value: Any,
    allowed: Range = ANY,
    remedy: str = "",
    *,
    flags: bool = True,
    infinite: bool = False,
) -> float:
    """The value as an int or a float, checked to be in its range.

    Args:
        owner: who takes the argument, for messages.
        name: the argument's name.
        value: its value.
        allowed: its range.
        remedy: added to the message of a value out of range.
        flags: whether True and False count as numbers.
        infinite: whether inf and -inf are allowed where the range contains them.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is NaN, infinite without ``infinite``, or out of its range.
    """
    plain: float = value if type(value) in (int, float) else _plain(owner, name, value, flags)
    if plain in allowed and (infinite or math.isfinite(plain)):
        return plain
    if infinite:
        constraint = str(allowed)
    else:
        constraint = "finite" if allowed == ANY else f"a finite number {allowed}"
    raise ValueError(f"{owner}: {name} must be {constraint}, got {plain}{remedy}")


def _plain(owner: str, name: str, value: Any, flags: bool) -> float:
    if not isinstance(value, (str, bytes)) and (flags or not isinstance(value, bool)):
        try:
            return int(operator.index(value))
        except TypeError:
            pass
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several elements
            pass
    raise TypeError(f"{owner}: {name} must be a number, got {type(value).__name__} {value!r:.200}")


def integer(owner: str, name: str, value: Any, flags: bool = True) -> int:
    """The value as an int; TypeError if it is no integer, or True or False without ``flags``."""
    if flags or not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(
        f"{owner}: {name} must be an integer, got {type(value).__name__} {value!r:.200}"
    )


def numbers(owner: str, name: str, values: Any, allowed: Range = ANY) -> tuple[float, ...]:
    """The values as a tuple of ints and floats; the errors of :func:`number` for each of them."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(
            f"{owner}: {name} must be a list or a tuple of numbers, "
            f"got {type(values).__name__} {values!r}"
        )
    return tuple(number(owner, f"{name}[{i}]", value, allowed) for i, value in enumerate(values))


def milestones(owner: str, values: Any) -> tuple[float, ...]:
    """Steps in order as a tuple: each >= 0 and none before the one in front of it."""
    found = numbers(owner, "milestones", values, NON_NEGATIVE)
    for i in range(1, len(found)):
        if found[i] < found[i - 1]:
            raise ValueError(
                f"{owner}: milestones must not decrease, got {found[i]} after {found[i - 1]} in "
                f"{list(found)}; sort them"
            )
    return found


def one_of(owner: str, name: str, value: Any, known: Iterable[str]) -> None:
    """Raise ValueError for a value that is none of the known words."""
    if value not in (words := list(known)):
        raise ValueError(
            f"{owner}: {name} must be one of {', '.join(map(repr, words))}, got {value!r:.200}"
        )


def flag(owner: str, name: str, value: Any) -> bool:
    """The value as a bool; TypeError if it is neither True nor False."""
    if isinstance(value, str) or value not in (True, False):
        raise TypeError(f"{owner}: {name} must be True or False, got {value!r:.200}")
    return bool(value)
