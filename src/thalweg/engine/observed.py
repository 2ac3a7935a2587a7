"""Recording which formulas and handwritten kernels a call runs; ``explain`` shows them.

At other times nothing is recorded.

>>> from thalweg import losses
>>> calls = calls_of(lambda: losses.mse_loss(torch.ones(3), torch.zeros(3)))
>>> [(call.formula.name, call.reduction) for call in calls]
[('squared_error', 'mean')]
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from thalweg.forks import in_child


class FormulaCall(NamedTuple):
    """One evaluation of a formula.

    Attributes:
        formula: a formula of elements or of rows.
        operands: the operands by name, as the caller gave them.
        options: what the formula read from ``h``.
        reduction: "none", "mean" or "sum".
        dim: the dimension of a row's elements; None for a formula of elements.
    """

    formula: Any
    operands: Mapping[str, torch.Tensor]
    options: Mapping[str, Any]
    reduction: str
    dim: int | None = None


class HandwrittenCall(NamedTuple):
    """One run of a kernel that was written by hand, from this file."""

    file: str


Call = FormulaCall | HandwrittenCall

# Who evaluates or runs something calls it: `if observed.observer is not None: ...`.
observer: Callable[[Call], None] | None = None
_one_at_a_time = threading.RLock()


@in_child
def _renew_lock() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


def calls_of(function: Callable[[], object]) -> list[Call]:
    """What this thread evaluates and runs within a function."""
    global observer
    calls: list[Call] = []
    this_thread = threading.get_ident()

    def record(call: Call) -> None:
        if threading.get_ident() == this_thread:
            calls.append(call)

    with _one_at_a_time:
        before = observer
        try:
            observer = record
            function()
        finally:
            observer = before  # at once: nothing that a signal handler raises comes before
    return calls
