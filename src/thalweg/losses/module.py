"""The base classes of the losses that are modules."""

import torch

from thalweg.losses.reduction import legacy_reduction


class Loss(torch.nn.Module):
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
        super().__init__()
        if size_average is not None or reduce is not None:
            reduction = legacy_reduction(type(self).__name__, size_average, reduce, stacklevel=3)
        self.reduction = reduction


class WeightedLoss(Loss):
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
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
