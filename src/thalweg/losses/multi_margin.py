"""The hinge of one class of many: its score above every other's by a margin."""

from typing import Any

import torch

from thalweg.losses.checks import check_floating, check_tensors
from thalweg.losses.evaluation.operands import in_float32_under_autocast
from thalweg.losses.evaluation.rows import evaluate_rows
from thalweg.losses.module import WeightedLoss
from thalweg.losses.reduction import chosen_reduction
from thalweg.ranges import number
from thalweg.rule.functions import is_at, mean, pick, where
from thalweg.rule.rows import Kind, RowFormula

Tensor = torch.Tensor


def multi_margin(x: Any, y: Any, h: Any, weight: Any = None) -> Any:
    short = h.margin - pick(x, y) + x
    missing = where((short > 0) & ~is_at(x, y), short, 0.0)
    value = mean(missing * missing if h.p == 2 else missing, over="row")
    return value if weight is None else value * pick(weight, y)


MULTI_MARGIN = RowFormula(multi_margin, y=Kind.INDEX, weight=Kind.COLUMN)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The hinge of one class of many.

    ::

        1 / C * sum over the classes c other than target of
            max(0, margin - input[target] + input[c])^p * weight[target]

    Args:
        input: scores, [C] or [N, C]; [] is one class.
        target: classes (int64), [] or [N], from 0 to C - 1.
        p: 1 or 2.
        margin: by which the target's score should be the largest.
        weight: of each class, [C].
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none" (gives the target's size), "mean" or "sum".

    Raises:
        ValueError: an unknown reduction, another p, a margin that is not finite, a weight of other
            than one dimension.
        RuntimeError: a class that is not one of the input's, another size or dtype of target or
            weight, no classes.
        TypeError: an argument that is no tensor or number.
        NotImplementedError: an input that is not floating-point.

    Source: Crammer and Singer, "On the algorithmic implementation of multiclass kernel-based vector
    machines", 2001; the sum over all classes is Weston and Watkins', 1999.

    >>> multi_margin_loss(torch.tensor([[0.0, 0.5, 2.0]]), torch.tensor([2]))
    tensor(0.)
    >>> multi_margin_loss(torch.tensor([[0.0, 0.5, 2.0]]), torch.tensor([0]))
    tensor(1.5000)
    """
    owner = "multi_margin_loss"
    check_tensors(owner, input=input, target=target)
    if p not in (1, 2):
        raise ValueError(f"{owner}: p must be 1 or 2, got {p!r}")
    margin = number(owner, "margin", margin)
    reduction = chosen_reduction(owner, reduction, size_average, reduce)
    if weight is not None:
        check_tensors(owner, weight=weight)
        input, weight = in_float32_under_autocast([input, weight])
    weights = _weights(owner, input, weight)
    check_floating(owner, input=input)
    _check_sizes(owner, input, target)
    size = target.shape
    vectors = input if input.ndim == 2 else input.reshape(1, -1)  # a number is one class
    operands = {"x": vectors, "y": target.reshape(-1), **weights}
    options = {"p": p, "margin": margin}
    try:
        loss = evaluate_rows(owner, MULTI_MARGIN, operands, options, reduction, dim=1)
    except IndexError as error:  # of another type than cross entropy's
        raise RuntimeError(str(error)) from None
    return loss.reshape(size) if reduction == "none" else loss


def _weights(owner: str, input: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
    if weight is None:
        return {}
    if weight.ndim != 1:
        raise ValueError(
            f"{owner}: weight must have one dimension, of classes, got size {tuple(weight.shape)}"
        )
    if weight.shape != (input.shape[-1:] or (1,)) or weight.dtype is not input.dtype:
        raise RuntimeError(
            f"{owner}: weight must have one number of {input.dtype} for each class, got "
            f"{tuple(weight.shape)} of {weight.dtype} for input {tuple(input.shape)}"
        )
    return {"weight": weight}


def _check_sizes(owner: str, input: Tensor, target: Tensor) -> None:
    if input.ndim > 2 or 0 in input.shape[-1:]:
        raise RuntimeError(
            f"{owner}: input must be [C] or [N, C] with at least one class, got "
            f"{tuple(input.shape)}"
        )
    rows = input.shape[0] if input.ndim == 2 else 1
    if target.ndim > 1 or target.numel() != rows or (input.ndim == 2 and rows != 1 != target.ndim):
        raise RuntimeError(
            f"{owner}: target must have one class for each row of input {tuple(input.shape)}, got "
            f"size {tuple(target.shape)}"
        )
    if target.dtype is not torch.int64:
        raise RuntimeError(
            f"{owner}: target must hold classes as int64, got {target.dtype}; write target.long()"
        )


class MultiMarginLoss(WeightedLoss, torch.nn.MultiMarginLoss):
    """The hinge of one class of many; see :func:`multi_margin_loss`.

    Args:
        p: 1 or 2; checked at once.
        margin: by which the target's score should be the largest.
        weight: of each class, [C], a buffer of one dimension.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> MultiMarginLoss()(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor(0.7500)
    """

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        if p not in (1, 2):
            raise ValueError(f"MultiMarginLoss: p must be 1 or 2, got {p!r}")
        if weight is not None and weight.ndim != 1:
            raise ValueError(
                "MultiMarginLoss: weight must have one dimension, of classes, got size "
                f"{tuple(weight.shape)}"
            )
        self.p = p
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multi_margin_loss(
            input, target, self.p, self.margin, self.weight, reduction=self.reduction
        )
