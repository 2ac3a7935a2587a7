"""Losses of one class of many: cross entropy from logits and from log probabilities, focal loss."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from thalweg.losses.evaluate_rows import evaluate_rows, without
from thalweg.losses.reduction import (
    WeightedLoss,
    check_floating,
    check_real,
    check_tensors,
    chosen_reduction,
    in_float32_under_autocast,
    readable,
    threshold,
)
from thalweg.ranges import NON_NEGATIVE, UNIT_INTERVAL, integer, number
from thalweg.rule.functions import exp, expm1, held, largest, log, mean, pick, sum, where
from thalweg.rule.rows import Kind, RowFormula

Tensor = torch.Tensor

IGNORED = -100  # torch's default


class _LogSoftmax:
    """The logarithms of a row's probabilities, as ``shifted - log_sum``: precise for large x.

    Attributes:
        top: the largest x; held, since what is returned does not change with it.
        shifted: x - top.
        log_sum: log(sum(exp(shifted))).
    """

    def __init__(self, x: Any) -> None:
        self.top = held(largest(x))
        self.shifted = x - self.top
        self.log_sum = log(sum(exp(self.shifted), over="row"))


def cross_entropy_of_class(x: Any, y: Any, h: Any, weight: Any = None) -> Any:
    p = _LogSoftmax(x)
    value = p.log_sum - (pick(x, y) - p.top)
    if weight is not None:
        value = value * pick(weight, y)
    if h.label_smoothing > 0:
        if weight is None:
            smooth = p.log_sum - mean(p.shifted, over="row")
        else:
            smooth = mean(weight * (p.log_sum - p.shifted), over="row")
        value = (1 - h.label_smoothing) * value + h.label_smoothing * smooth
    return value


def cross_entropy_of_probabilities(x: Any, y: Any, h: Any, weight: Any = None) -> Any:
    p = _LogSoftmax(x)
    if h.label_smoothing > 0:
        y = (1 - h.label_smoothing) * y + h.label_smoothing / h.classes
    if weight is not None:
        y = y * weight
    return sum(y * (p.log_sum - p.shifted), over="row")


def negative_log_likelihood(x: Any, y: Any, h: Any, weight: Any = None) -> Any:
    value = -pick(x, y)
    return value if weight is None else value * pick(weight, y)


def focal(x: Any, y: Any, h: Any, weight: Any = None) -> Any:
    p = _LogSoftmax(x)
    entropy = p.log_sum - (pick(x, y) - p.top)
    value = cross_entropy_of_class(x, y, h, weight)
    missed = -expm1(-entropy)  # 1 - p_y, without cancellation
    if h.gamma == 0:  # the derivative of the power may be infinite
        return value
    base = where(missed > 0, missed, 1.0)
    return value * where(missed > 0, base**h.gamma, 0.0)


OF_CLASS = RowFormula(cross_entropy_of_class, y=Kind.INDEX, weight=Kind.COLUMN)
OF_PROBABILITIES = RowFormula(cross_entropy_of_probabilities, weight=Kind.COLUMN)
LIKELIHOOD = RowFormula(negative_log_likelihood, y=Kind.INDEX, weight=Kind.COLUMN)
FOCAL = RowFormula(focal, y=Kind.INDEX, weight=Kind.COLUMN)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = IGNORED,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of logits with a class, or with probabilities.

    ::

        p = exp(input) / sum over the classes of exp(input)
        -log(p[target]) * weight[target]                                 (target: a class)
        -sum over the classes c of target[c] * log(p[c]) * weight[c]     (target: probabilities)

    With label smoothing s the target is (1 - s) times itself plus s / C for each of the C classes.

    Args:
        input: logits, [C], [N, C] or [N, C, *].
        target: classes (int64 or uint8), the input's size without C, from 0 to C - 1; or
            probabilities, of the input's size.
        weight: of each class, [C].
        size_average: deprecated, in favour of reduction.
        ignore_index: targets with this class count nothing; not for probabilities.
        reduce: deprecated, in favour of reduction.
        reduction: "none" (the input's size without C), "sum", or "mean": over the sum of the
            targets' weights, or over the number of rows with probabilities.
        label_smoothing: s, in [0, 1].

    Raises:
        IndexError: a class that is not one of the input's.
        ValueError: an unknown reduction, or another number of targets than of inputs.
        RuntimeError: another target size, dtype or weight size, label_smoothing out of range,
            ignore_index >= 0 with probabilities.
        TypeError: an argument that is no tensor or number.
        NotImplementedError: an input that is not floating-point.

    Source of label smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer
    Vision", 2016, section 7.

    >>> x = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    >>> cross_entropy(x, torch.tensor([0, 1]), reduction="none")
    tensor([0.1269, 0.6931])
    """
    owner = "cross_entropy"
    check_floating(owner, input=input)
    check_tensors(owner, target=target)
    smoothing = threshold(owner, "label_smoothing", label_smoothing, UNIT_INTERVAL)
    options: dict[str, Any] = {"label_smoothing": smoothing}
    if target.shape != input.shape:
        if not input.ndim:  # nll_loss, as torch has it, raises a ValueError
            raise IndexError(f"{owner}: input must have a dimension of classes, got a 0-d tensor")
        classes = _Classes.of(owner, input, target, weight, ignore_index)
        reduction = chosen_reduction(owner, reduction, size_average, reduce)
        return classes.evaluated(owner, OF_CLASS, options, reduction)
    if not target.is_floating_point():
        raise RuntimeError(
            f"{owner}: target must hold class probabilities, floating-point, where it has the "
            f"input's size {tuple(input.shape)}, got {target.dtype}; classes have one dimension "
            "less"
        )
    if checked_class(owner, ignore_index) >= 0:
        raise RuntimeError(
            f"{owner}: ignore_index must be negative where target holds probabilities, got "
            f"{ignore_index}; set those rows of target to 0"
        )
    reduction = chosen_reduction(owner, reduction, size_average, reduce)
    dim = min(1, input.ndim - 1)
    operands = {"x": input, "y": target} | _weights(owner, input.shape[dim], weight)
    options["classes"] = float(input.shape[dim])
    # Without classes there are no rows, whatever the size says: their mean is NaN.
    divisor = None if input.shape[dim] or reduction != "mean" else 0
    return evaluate_rows(owner, OF_PROBABILITIES, operands, options, reduction, dim, divisor)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = IGNORED,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-likelihood of a class, from log probabilities.

    ::

        -input[target] * weight[target]

    After ``log_softmax`` this is :func:`cross_entropy`, which does both in one pass.

    Args:
        input: log probabilities, [C], [N, C] or [N, C, *].
        target: classes (int64 or uint8), the input's size without C, from 0 to C - 1.
        weight: of each class, [C].
        size_average: deprecated, in favour of reduction.
        ignore_index: targets with this class count nothing.
        reduce: deprecated, in favour of reduction.
        reduction: "none" (the input's size without C), "sum", or "mean": over the sum of the
            targets' weights.

    Raises:
        IndexError: a class that is not one of the input's.
        ValueError: an unknown reduction, or another number of targets than of inputs.
        RuntimeError: another target size, dtype or weight size.
        TypeError: an argument that is no tensor or number.
        NotImplementedError: an input that is not floating-point.

    >>> nll_loss(torch.tensor([[-0.5, -1.0]]), torch.tensor([1]))
    tensor(1.)
    """
    owner = "nll_loss"
    check_floating(owner, input=input)
    check_tensors(owner, target=target)
    classes = _Classes.of(owner, input, target, weight, ignore_index)
    reduction = chosen_reduction(owner, reduction, size_average, reduce)
    return classes.evaluated(owner, LIKELIHOOD, {}, reduction)


def focal_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    ignore_index: int = IGNORED,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of logits in which what is already right counts little.

    ::

        (1 - p[target])^gamma * cross_entropy(input, target),    p = softmax(input)

    With gamma = 0 this is :func:`cross_entropy`; of two classes, and of several labels, it is
    :func:`sigmoid_focal_loss`.

    Args:
        input: logits, [C], [N, C] or [N, C, *].
        target: classes (int64 or uint8), the input's size without C, from 0 to C - 1.
        weight: of each class, [C]; the paper's alpha.
        gamma: how little, >= 0.
        ignore_index: targets with this class count nothing.
        reduction: "none" (the input's size without C), "sum", or "mean": over the sum of the
            targets' weights.
        label_smoothing: as for :func:`cross_entropy`, in [0, 1].

    Raises:
        IndexError: a class that is not one of the input's.
        ValueError: an unknown reduction, another number of targets than of inputs, gamma < 0.
        RuntimeError: another target size, dtype or weight size, label_smoothing out of range.
        TypeError: an argument that is no tensor or number.
        NotImplementedError: an input that is not floating-point.

    Source: Lin et al., "Focal Loss for Dense Object Detection", 2017, equation 4, of more classes.

    >>> focal_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]), reduction="none")
    tensor([0.0018, 0.1733])
    """
    owner = "focal_loss"
    check_floating(owner, input=input)
    check_tensors(owner, target=target)
    smoothing = threshold(owner, "label_smoothing", label_smoothing, UNIT_INTERVAL)
    options = {"gamma": number(owner, "gamma", gamma, NON_NEGATIVE), "label_smoothing": smoothing}
    classes = _Classes.of(owner, input, target, weight, ignore_index)
    return classes.evaluated(owner, FOCAL, options, chosen_reduction(owner, reduction))


class _Classes(NamedTuple):
    """The checked operands of a loss whose target is a class.

    Attributes:
        input: [C] or [N, C, *].
        target: int64, the input's size without C.
        weights: the weight by its name, if there is one.
        dim: of the classes.
        ignored: the class that counts nothing.
    """

    input: Tensor
    target: Tensor
    weights: Mapping[str, Tensor]
    dim: int
    ignored: int

    @staticmethod
    def of(
        owner: str, input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
    ) -> "_Classes":
        target, dim = class_targets(owner, input, target)
        if weight is None:
            return _Classes(input, target, {}, dim, checked_class(owner, ignore_index))
        check_tensors(owner, weight=weight)
        input, weight = in_float32_under_autocast([input, weight])
        weights = class_weights(owner, input.dtype, input.shape[dim], weight)
        return _Classes(input, target, weights, dim, checked_class(owner, ignore_index))

    def evaluated(
        self, owner: str, formula: RowFormula, options: Mapping[str, Any], reduction: str
    ) -> Tensor:
        operands = {"x": self.input, "y": self.target, **self.weights}
        divisor = None
        if reduction == "mean" and self.weights:
            classes = self.input.shape[self.dim]
            divisor = total_weight(self.target, self.weights, classes, self.ignored)
        loss = evaluate_rows(
            owner, formula, operands, options, reduction, self.dim, divisor, self.ignored
        )
        # The sum of 16-bit weights is wider than they are.
        return loss.to(self.input.dtype) if self.weights else loss


def total_weight(
    target: Tensor, weights: Mapping[str, Tensor], classes: int, ignored: int
) -> Tensor | float:
    """The sum of the targets' weights, or their number; those ignored count nothing.

    In float32 at least: 16 bits do not hold the sum of many.
    """
    if not weights and target.is_cpu and readable(target):
        return int(np.count_nonzero(target.numpy() != ignored))  # much the shortest call
    taken = target != ignored
    if not weights or not classes:
        return torch.count_nonzero(taken)
    # What is out of range is found by the pass.
    weight = weights["weight"][target.clamp(0, classes - 1)]
    total = torch.where(taken, weight, 0.0).sum(dtype=torch.float64)
    return total.to(torch.promote_types(weight.dtype, torch.float32))


def checked_class(owner: str, ignore_index: Any) -> int:
    """The class that counts nothing, as an int; TypeError or ValueError if it is no int64."""
    found = integer(owner, "ignore_index", ignore_index)
    if not -(2**63) <= found < 2**63:
        raise ValueError(f"{owner}: ignore_index must fit into 64 bits, got {found}")
    return found


def class_targets(owner: str, input: Tensor, target: Tensor) -> tuple[Tensor, int]:
    """The target as int64 of the input's size without its classes, and their dimension.

    Raises:
        ValueError: an input without dimensions, another number of targets than of inputs.
        RuntimeError: another target size, or a dtype that is not int64 or uint8.
    """
    if not input.ndim:
        raise ValueError(f"{owner}: input must have a dimension of classes, got a 0-d tensor")
    dim = min(1, input.ndim - 1)
    size = without(input.shape, dim)
    if input.ndim == 1 and target.shape == (1,):
        target = target.reshape(())
    if target.shape != size:
        expected = f"the input's size without its classes, {size}"
        message = f"{owner}: target must have {expected}, got {tuple(target.shape)}"
        # Another number of targets is a ValueError, another size of each a RuntimeError.
        batch = target.ndim == 1 if input.ndim == 1 else target.shape[:1] != input.shape[:1]
        raise ValueError(message) if batch else RuntimeError(message)
    if target.dtype not in (torch.int64, torch.uint8):
        raise RuntimeError(
            f"{owner}: target must hold classes as int64 or uint8, got {target.dtype}; "
            "write target.long()"
        )
    return target if target.dtype is torch.int64 else target.long(), dim


def class_weights(
    owner: str, dtype: torch.dtype, classes: int, weight: Tensor | None
) -> dict[str, Tensor]:
    """The weight by its name, if there is one, checked to be of the classes and this dtype.

    Raises:
        RuntimeError: it is not.
    """
    found = _weights(owner, classes, weight)
    if weight is not None and weight.dtype is not dtype:
        raise RuntimeError(
            f"{owner}: weight must have the input's dtype {dtype}, got {weight.dtype}; "
            "write weight.to(input.dtype)"
        )
    return found


def _weights(owner: str, classes: int, weight: Tensor | None) -> dict[str, Tensor]:
    if weight is None:
        return {}
    check_real(owner, weight=weight)
    if weight.shape != (classes,):
        raise RuntimeError(
            f"{owner}: weight must have one number for each of the {classes} classes, got size "
            f"{tuple(weight.shape)}"
        )
    return {"weight": weight}


class NLLLoss(WeightedLoss):
    """The negative log-likelihood of a class; see :func:`nll_loss`.

    Args:
        weight: of each class, [C], a buffer.
        size_average: deprecated, in favour of reduction.
        ignore_index: targets with this class count nothing.
        reduce: deprecated, in favour of reduction.
        reduction: "none", "mean" or "sum".

    >>> NLLLoss()(torch.tensor([[-0.5, -1.0]]), torch.tensor([0]))
    tensor(0.5000)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = IGNORED,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return nll_loss(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class CrossEntropyLoss(WeightedLoss):
    """Cross entropy of logits; see :func:`cross_entropy`.

    Args:
        weight: of each class, [C], a buffer.
        size_average: deprecated, in favour of reduction.
        ignore_index: targets with this class count nothing.
        reduce: deprecated, in favour of reduction.
        reduction: "none", "mean" or "sum".
        label_smoothing: in [0, 1]; checked when the module is called.

    >>> CrossEntropyLoss()(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor(1.3863)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = IGNORED,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class FocalLoss(WeightedLoss):
    """Cross entropy that leaves out what is already right; see :func:`focal_loss`.

    Args:
        weight: of each class, [C], a buffer.
        gamma: how little the easy targets count, >= 0; checked when the module is called.
        ignore_index: targets with this class count nothing.
        reduction: "none", "mean" or "sum".
        label_smoothing: in [0, 1]; checked when the module is called.

    >>> FocalLoss()(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor(0.7798)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        gamma: float = 2.0,
        ignore_index: int = IGNORED,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, reduction=reduction)
        self.gamma = gamma
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return focal_loss(
            input,
            target,
            self.weight,
            self.gamma,
            self.ignore_index,
            self.reduction,
            self.label_smoothing,
        )
