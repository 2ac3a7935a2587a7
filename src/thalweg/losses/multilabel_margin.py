"""The hinge between each class of a set and each class beside it."""

from typing import Any

import numpy as np
import torch

from thalweg.engine.backends.cpu.threads import WORTH_A_THREAD
from thalweg.engine.passes import handwritten
from thalweg.losses.evaluate import HALVES, have_kernel, number_like, recorded
from thalweg.losses.reduction import (
    Loss,
    check_floating,
    check_tensors,
    chosen_reduction,
    in_float32_under_autocast,
    readable,
)

Tensor = torch.Tensor

OWNER = "multilabel_margin_loss"
KERNEL = "_multilabel_margin.py"
ENDS_A_ROW = -1
PARTS = 4  # of the rows for each thread: some rows have more targets than others


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The hinge of several classes of many: each above every other one by 1.

    ::

        1 / C * sum over the targets t, and the classes c that are no target, of
            max(0, 1 - input[t] + input[c])

    At the hinge, and where a score that is NaN is compared, a pair contributes nothing.

    Args:
        input: scores, [C] or [N, C].
        target: classes (int64) from 0 to C - 1, of the input's size: those of each row before its
            first -1. A class that is there twice counts twice.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none" (a value for each row), "mean" (over the rows) or "sum".

    Raises:
        ValueError: an unknown reduction.
        RuntimeError: an input of other than one or two dimensions or without classes, a target of
            another size or dtype, or a class below -1 or above C - 1 anywhere in it (not looked for
            within ``torch.compile`` and ``torch.func``).
        TypeError: an argument that is no tensor.
        NotImplementedError: an input that is not floating-point.

    Source: Zhang and Zhou, "Multilabel Neural Networks with Applications to Functional Genomics and
    Text Categorization", 2006, section 3, has the exponential of such pairs.

    >>> x = torch.tensor([[0.1, 0.2, 0.4, 0.8]])
    >>> multilabel_margin_loss(x, torch.tensor([[3, 0, -1, 1]]))
    tensor(0.8500)
    """
    check_tensors(OWNER, input=input, target=target)
    reduction = chosen_reduction(OWNER, reduction, size_average, reduce)
    check_floating(OWNER, input=input)
    _check_sizes(input, target)
    (x,) = in_float32_under_autocast([input])
    dtype, classes = x.dtype, x.shape[-1] if x.ndim else 1
    x = x.float() if dtype in HALVES else x
    if input.ndim < 2:
        x, target = x.reshape(1, classes), target.reshape(1, classes)
    each = reduction == "none"
    count = len(x) if reduction == "mean" else 1
    scale = 1 / (classes * count) if count else float("nan")
    if not (have_kernel([x]) and target.is_cpu):
        _check_classes(target, classes)
        loss = _eagerly(x, target, each, scale)
    elif torch.is_grad_enabled() and x.requires_grad:
        loss = _pairs(x, target, each, scale)
    else:
        loss = _run(x, target, each, scale)
    if each and input.ndim < 2:
        loss = loss.reshape(())
    return loss.to(dtype) if dtype in HALVES else loss


def _check_sizes(input: Tensor, target: Tensor) -> None:
    if input.ndim > 2 or (input.ndim and not input.shape[-1]):
        raise RuntimeError(
            f"{OWNER}: input must be [C] or [N, C] with at least one class, got "
            f"{tuple(input.shape)}"
        )
    same = target.shape == input.shape
    if not same and not (input.ndim < 2 and target.ndim < 2 and input.numel() == target.numel()):
        raise RuntimeError(
            f"{OWNER}: target must have the input's size {tuple(input.shape)}, got "
            f"{tuple(target.shape)}; fill its rows up with -1"
        )
    if target.dtype is not torch.int64:
        raise RuntimeError(
            f"{OWNER}: target must hold classes as int64, got {target.dtype}; write target.long()"
        )


def _check_classes(target: Tensor, classes: int) -> None:
    if not readable(target):
        return
    outside = (target < ENDS_A_ROW) | (target >= classes)
    if outside.any():
        row, place = outside.nonzero()[0].tolist()
        raise RuntimeError(
            f"{OWNER}: target must hold classes from 0 to {classes - 1}, and -1 after the last, "
            f"got {target[row, place].item()} at place {place} of row {row}"
        )


def _run(
    input: Tensor, target: Tensor, each: bool, scale: float, slopes: Tensor | None = None
) -> Tensor:
    """The value of each row or of all, and the derivatives, by the kernel."""
    x, y = input.detach().contiguous(), target.contiguous()
    rows, classes = x.shape
    threads = max(1, min(torch.get_num_threads(), 2 * rows * classes // WORTH_A_THREAD, rows))
    parts = PARTS * threads if threads > 1 else 1
    scratch = torch.empty(parts, classes, dtype=x.dtype)
    # Of each row, and behind them the factor of the derivatives and how many rows are wrong.
    totals = np.zeros(rows + 2)
    totals[rows] = scale
    addresses = [t.data_ptr() for t in (x, y, scratch)]
    by = 0 if slopes is None else slopes.data_ptr()
    wide = x.dtype is torch.float64
    arguments = [parts, rows, classes, wide, *addresses, by, totals.ctypes.data]
    handwritten.run(KERNEL, arguments, threads)
    if totals[rows + 1]:
        _check_classes(y, classes)
    if each:
        return torch.from_numpy(totals[:rows] * scale).to(x.dtype)
    return number_like(x, totals[:rows].sum() * scale)


class _Pairs(torch.autograd.Function):
    """The loss by the kernel, with the derivatives for an upstream of 1 kept."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, each: bool, scale: float) -> Tensor:
        ctx.each, ctx.scale = each, scale
        ctx.save_for_backward(input, target)
        ctx.slopes = torch.empty(input.shape, dtype=input.dtype)
        return _run(input, target, each, scale, ctx.slopes)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        input, target = ctx.saved_tensors
        if torch.is_grad_enabled():
            value = _eagerly(input, target, ctx.each, ctx.scale)
            (slopes,) = torch.autograd.grad(value, input, upstream, create_graph=True)
            return slopes, None, None, None
        slopes, ctx.slopes = ctx.slopes, None
        if slopes is None:  # handed out before, and perhaps changed since
            slopes = torch.empty(input.shape, dtype=input.dtype)
            _run(input, target, ctx.each, ctx.scale, slopes)
        if ctx.each:
            slopes *= upstream[:, None]
        elif (factor := upstream.item()) != 1.0:
            slopes *= factor
        return slopes, None, None, None


_pairs = recorded(_Pairs)


def _eagerly(input: Tensor, target: Tensor, each: bool, scale: float) -> Tensor:
    """The same by tensor operations, in memory for all pairs at once."""
    taken = (target == ENDS_A_ROW).cumsum(-1) == 0
    if readable(target) and target.numel():  # the longest row's
        longest = int(taken.sum(-1).max())
        target, taken = target[:, :longest], taken[:, :longest]
    index = torch.where(taken, target, 0)
    is_target = torch.zeros_like(input, dtype=torch.int64).scatter_add(-1, index, taken.long()) > 0
    short = (1 - input.gather(-1, index))[:, :, None] + input[:, None, :]
    counts = taken[:, :, None] & ~is_target[:, None, :] & (short > 0)
    values = torch.where(counts, short, 0.0)
    return (values.sum((1, 2)) if each else values.sum()) * scale


class MultiLabelMarginLoss(Loss):
    """The hinge of several classes of many; see :func:`multilabel_margin_loss`.

    Args:
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> x = torch.tensor([[0.1, 0.2, 0.4, 0.8]])
    >>> MultiLabelMarginLoss()(x, torch.tensor([[3, 0, -1, 1]]))
    tensor(0.8500)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multilabel_margin_loss(input, target, reduction=self.reduction)
