"""Ascent instead of descent."""

from functools import wraps
from typing import Any

from thalweg.rule import Transform, Update


def maximizing(update: Update) -> Update:
    """The update that sees -g where ``h.maximize`` is set."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return update(p, -g if h.maximize else g, s, h)

    return rule


def maximized(maximize: bool = False) -> Transform:
    """Ascend instead of descend where ``maximize`` is set: ``g <- -g``.

    The optimizers of ``thalweg.optim`` have it already, under the option of that name.

    Args:
        maximize: True to ascend.

    >>> maximized(True)
    maximized(maximize=True)
    """
    return Transform(maximizing, options={"maximize": maximize}, name="maximized")
