"""Gradients that are 0 after the update: the ``zero_grad_after`` of an optimizer."""

from functools import wraps
from typing import Any

from thalweg.rule import Transform, Update, clear


def clearing(update: Update) -> Update:
    """The update after which the gradient is 0."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        new = update(p, g, s, h)
        clear(g)
        return new

    return rule


CLEARED = Transform(clearing, name="zero_grad_after")
