"""Formulas with an optional weight."""

from collections.abc import Callable
from functools import wraps
from typing import Any


def weighted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of formulas: the value times the operand ``weight``, where that is given."""

    @wraps(function)
    def formula(x: Any, y: Any, h: Any, weight: Any = None, **others: Any) -> Any:
        value = function(x, y, h, **others)
        return value if weight is None else value * weight

    return formula
