"""Which gradients a step that is to leave them at 0 may write to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from thalweg.engine.overlaps import Ranges
from thalweg.engine.readable import span


class Clearable:
    """Checks gradients before they are written to; the same ones are not checked again."""

    def __init__(self) -> None:
        self._seen: list[tuple[int, int]] = []

    def gradients(self, owner: str, groups: Sequence[dict[str, Any]]) -> list[torch.Tensor]:
        """The gradients of all parameters, each once.

        Raises:
            RuntimeError: two gradients share memory, elements of one do, or autograd is to see the
                step.
        """
        if any(group.get("differentiable") for group in groups):
            raise RuntimeError(
                f"{owner}: zero_grad_after cannot be had with differentiable=True, which needs the "
                "gradients as they are; call zero_grad() instead"
            )
        params = {id(p): p for group in groups for p in group["params"]}
        found = [p.grad for p in params.values() if p.grad is not None]
        dense = [g for g in found if g.layout is torch.strided and g.numel()]
        places = [(id(g), g.data_ptr()) for g in dense]
        if places != self._seen:
            self._check(owner, dense)
            self._seen = places
        return found

    def _check(self, owner: str, dense: Sequence[torch.Tensor]) -> None:
        starts = np.asarray([g.data_ptr() for g in dense], dtype=np.int64)
        sizes = np.asarray([span(g) * g.element_size() for g in dense], dtype=np.int64)
        numbers = np.arange(len(dense))
        if Ranges.of([Ranges(starts, starts + sizes, numbers, np.ones_like(starts))]).overlapping():
            raise RuntimeError(_shared(owner, "two gradients share memory"))
        for g in dense:
            if any(n > 1 and s == 0 for n, s in zip(g.shape, g.stride(), strict=True)):
                raise RuntimeError(_shared(owner, "elements of an expanded gradient do"))


def _shared(owner: str, what: str) -> str:
    return (
        f"{owner}: zero_grad_after writes to gradients, and {what}, which leaves no right order; "
        "call zero_grad() instead"
    )
