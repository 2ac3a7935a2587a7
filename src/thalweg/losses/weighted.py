"""Factors in formulas: an optional weight, and shares of what may be infinite."""

from collections.abc import Callable
from functools import wraps
from math import inf
from typing import Any

from thalweg.rule.functions import where


def weighted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of formulas: the value times the operand ``weight``, where that is given."""

    @wraps(function)
    def formula(x: Any, y: Any, h: Any, weight: Any = None, **others: Any) -> Any:
        value = function(x, y, h, **others)
        return value if weight is None else value * weight

    return formula


def share_of(share: Any, cost: Any) -> Any:
    """``share * cost``, where no share of an infinite cost is 0: the limit, as that of p log p."""
    return share * where((share == 0) & (cost == inf), 0.0, cost)
