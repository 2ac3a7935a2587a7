"""The hinge between each class of a set and each class outside it."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from thalweg.engine.backends.cpu.threads import WORTH_A_THREAD
from thalweg.engine.passes import handwritten
from thalweg.engine.passes.memory import has_memory
from thalweg.losses.checks import check_floating, check_tensors, readable
from thalweg.losses.evaluation.autograd import evaluated
from thalweg.losses.evaluation.evaluator import Gradients, Needed, Tensors
from thalweg.losses.evaluation.operands import HALVES, have_kernel, in_float32_under_autocast
from thalweg.losses.module import Loss
from thalweg.losses.reduction import chosen_reduction
from thalweg.rule.formula import BACKWARD, EACH, FACTOR, SUM

Tensor = torch.Tensor

OWNER = "multilabel_margin_loss"
KERNEL = "_multilabel_margin.py"
ENDS_A_ROW = -1
PARTS = 4  # tickets for each thread: some rows have more targets, and take longer, than others


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
    if not (have_kernel([x]) and has_memory(target)):
        _check_classes(target, classes)
        loss = _by_tensor_operations(x, target, each, scale)
    else:
        needed = (torch.is_grad_enabled() and x.requires_grad, False)
        evaluator = _PairEvaluator(EACH if each else SUM, x.dtype, scale, needed, [])
        loss = evaluated(evaluator, [x, target], needed)
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


class _PairEvaluator(NamedTuple):
    """The loss with its settings; an :class:`Evaluator` whose operands are input and target.

    Attributes:
        kind: what the kernel does with the values.
        dtype: of the input.
        scale: what values and derivatives are multiplied by.
        needed: whether the input needs a gradient, and False for the target.
        kept: holds the derivatives of each row's value, once ``EACH`` has computed them along with
            the values: half the work of a pass for ``BACKWARD``.
    """

    kind: str
    dtype: torch.dtype
    scale: float
    needed: Needed
    kept: list[Tensor]

    @property
    def converts(self) -> bool:
        return False

    def __call__(
        self, values: Tensors, *values_or_upstream: Tensor
    ) -> tuple[list[float], Gradients]:
        x, y = values
        if self.kind == BACKWARD and (kept := self._taken()) is not None:
            return [], [kept.mul_(values_or_upstream[0][:, None]), None]
        slopes = torch.empty(x.shape, dtype=x.dtype, device="cpu") if True in self.needed else None
        totals = _run_kernel(x, y, self.scale, slopes)
        if self.kind == SUM:
            return [float(totals.sum())], [slopes, None]
        if self.kind == EACH:
            values_or_upstream[0].copy_(torch.from_numpy(totals * self.scale))
            self.kept[:] = [] if slopes is None else [slopes]
            return [], [None, None]
        assert slopes is not None, "backward runs where the input needs a gradient"
        return [], [slopes.mul_(values_or_upstream[0][:, None]), None]

    def _taken(self) -> Tensor | None:
        """What is kept, given away: backward may run again, and on several threads."""
        try:
            return self.kept.pop()
        except IndexError:
            return None

    def with_kind(self, kind: str, needed: Needed, **options: Any) -> "_PairEvaluator":
        return self._replace(kind=kind, needed=needed, scale=options.get(FACTOR, self.scale))

    def arranged(self, values: list[Tensor]) -> "tuple[_PairEvaluator, list[Tensor]]":
        return self, values

    def new_values(self, values: Tensors) -> Tensor:
        return values[0].new_empty(len(values[0]))

    def arranged_upstream(self, upstream: Tensor, values: Tensors) -> Tensor:
        return upstream

    def by_tensor_operations(self, values: Tensors) -> Tensor:
        x, y = values
        return _by_tensor_operations(x, y, self.kind == EACH, self.scale)


def _run_kernel(
    input: Tensor, target: Tensor, scale: float, slopes: Tensor | None
) -> npt.NDArray[np.float64]:
    """The unscaled value of each row; stores the scaled derivatives in ``slopes``."""
    x, y = input.detach().contiguous(), target.contiguous()
    rows, classes = x.shape
    threads = max(1, min(torch.get_num_threads(), 2 * rows * classes // WORTH_A_THREAD, rows))
    parts = PARTS * threads if threads > 1 else 1
    scratch = torch.empty(parts, classes, dtype=x.dtype, device="cpu")
    # One total for each row, then the factor of the derivatives, then 1.0 if a target is wrong.
    totals = np.zeros(rows + 2)
    totals[rows] = scale
    addresses = [t.data_ptr() for t in (x, y, scratch)]
    by = 0 if slopes is None else slopes.data_ptr()
    wide = x.dtype is torch.float64
    arguments = [parts, rows, classes, wide, *addresses, by, totals.ctypes.data]
    handwritten.run(KERNEL, arguments, threads)
    if totals[rows + 1]:
        _check_classes(y, classes)
    return totals[:rows]


def _by_tensor_operations(input: Tensor, target: Tensor, each: bool, scale: float) -> Tensor:
    """The values or their sum, with all pairs in memory at once."""
    input = input.resolve_neg()  # of a negated view, torch's forward mode takes no views
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


class MultiLabelMarginLoss(Loss, torch.nn.MultiLabelMarginLoss):
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
