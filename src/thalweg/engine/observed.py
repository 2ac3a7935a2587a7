"""Telling ``explain`` what a call of a loss evaluates. At other times nobody listens.

>>> from thalweg import losses
>>> with listening() as heard:
...     _ = losses.mse_loss(torch.ones(3), torch.zeros(3))
>>> [(call.formula.name, call.reduction) for call in heard]
[('squared_error', 'mean')]
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch


class Evaluated(NamedTuple):
    """A formula that was evaluated.

    Attributes:
        formula: a formula of elements or of rows.
        operands: by name, as they were given.
        options: what it read from ``h``.
        reduction: what became of its values: "none", "mean" or "sum".
        dim: of the elements of a row; None where there are no rows.
    """

    formula: Any
    operands: Mapping[str, torch.Tensor]
    options: Mapping[str, Any]
    reduction: str
    dim: int | None = None


class ByHand(NamedTuple):
    """A kernel that was run and is no formula's: the file that it is in."""

    file: str


Call = Evaluated | ByHand

# Whoever evaluates or runs something asks first: `if observed.listener is not None`.
listener: Callable[[Call], None] | None = None
_one_at_a_time = threading.RLock()


@contextmanager
def listening() -> Iterator[list[Call]]:
    """What this thread evaluates in the block."""
    global listener
    found: list[Call] = []
    own = threading.get_ident()

    def note(call: Call) -> None:
        if threading.get_ident() == own:
            found.append(call)

    with _one_at_a_time:
        before, listener = listener, note
        try:
            yield found
        finally:
            listener = before
