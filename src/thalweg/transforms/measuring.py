"""Sums beside the update: what an optimizer's ``measure`` asks for."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from thalweg.rule import Transform, Update, followed, measure, offered, stored, update_of, where

# What is summed up over each tensor for a measure; all of them are sums of one pass.
SUMS = {
    "gradient_norm": ("gradient_squares",),
    "weight_norm": ("weight_squares",),
    "update_norm": ("update_squares",),
    "update_ratio": ("update_squares", "weight_squares"),
    "clipped_share": ("clipped",),
    "lost_share": ("lost",),
}


@dataclass(frozen=True)
class Measuring:
    """A transform's function that leaves the update as it is, and sums up what is asked for.

    Attributes:
        sums: the names of values in :data:`SUMS`.
    """

    sums: tuple[str, ...]

    def __call__(self, update: Update) -> Update:
        @wraps(update)
        def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
            p = followed(p)
            new = update(p, g, s, h)
            for name in self.sums:
                measure(name, _VALUES[name](new, p, g))
            return new

        return rule


def _squared(x: Any) -> Any:
    return x * x


_VALUES = {
    "gradient_squares": lambda new, p, g: _squared(g),
    "weight_squares": lambda new, p, g: _squared(p),
    "update_squares": lambda new, p, g: _squared(update_of(new, p)),
    "clipped": lambda new, p, g: offered("clipped", p),
    "lost": lambda new, p, g: _is_lost(new, p),
}


def _is_lost(new: Any, p: Any) -> Any:
    return where((update_of(new, p) != 0) & (stored(new) == p), 1.0, 0.0)


def measuring(names: Iterable[str]) -> tuple[Transform, ...]:
    """The transform that sums up what these measures need; none for no names."""
    sums = tuple(dict.fromkeys(each for name in names for each in SUMS[name]))
    return (Transform(Measuring(sums), name="measure"),) if sums else ()
