"""The base classes of the losses that are modules.

A loss that torch has, too, also derives from torch's class of that name, for whoever asks what it
is. Nothing of that class computes: constructors and ``forward`` are those of this package.
"""

from typing import Any

import torch

from thalweg.losses.reduction import legacy_reduction


class Loss(torch.nn.modules.loss._Loss):
    """A loss as a module: it holds the reduction.

    Args:
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum"; checked when the module is called.
    """

    reduction: str

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        torch.nn.Module.__init__(self)
        if size_average is not None or reduce is not None:
            reduction = legacy_reduction(type(self).__name__, size_average, reduce, stacklevel=3)
        self.reduction = reduction

    def __prepare_scriptable__(self) -> Any:
        """What ``torch.jit.script`` asks for; it cannot read formulas."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot be scripted: formulas are Python; leave the loss out of "
            "the script, or use torch.compile or torch.jit.trace"
        )


class WeightedLoss(Loss, torch.nn.modules.loss._WeightedLoss):
    """A loss with a weight, which is a buffer.

    Args:
        weight: the factor of each element; it broadcasts.
        size_average: see :class:`Loss`.
        reduce: likewise.
        reduction: likewise.
    """

    weight: torch.Tensor | None

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        Loss.__init__(self, size_average, reduce, reduction)
        self.register_buffer("weight", weight)
