"""What becomes of a step whose gradients are not all finite: the ``nonfinite`` of an optimizer."""

import math
from functools import wraps
from typing import Any

from thalweg.rule import Transform, Update, sum, veto, where

# "raise" is told from "skip" by the optimizer, when the step has been left out.
CHOICES = ("propagate", "skip", "zero", "raise")


def _is_finite(g: Any) -> Any:
    return abs(g) < math.inf  # False for NaN


def vetoing(update: Update) -> Update:
    """The update that leaves the whole step out where an element of a gradient is not finite."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        veto(sum(where(_is_finite(g), 0.0, 1.0), over="all"))
        return update(p, g, s, h)

    return rule


def zeroing(update: Update) -> Update:
    """The update that sees 0 where an element of the gradient is not finite."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return update(p, where(_is_finite(g), g, 0.0), s, h)

    return rule


_SKIPPED = Transform(vetoing, name="nonfinite")
_ZEROED = Transform(zeroing, name="nonfinite")


def nonfinite_gradients(choice: str) -> tuple[Transform, ...]:
    """The transforms of one of :data:`CHOICES`: none for "propagate"."""
    return {"propagate": (), "zero": (_ZEROED,)}.get(choice, (_SKIPPED,))
