"""Losses of one class of many: cross entropy from logits and from log probabilities, focal loss."""

from typing import Any

import torch

from thalweg.losses.checks import check_floating, check_tensors, threshold
from thalweg.losses.class_targets import IGNORED, ClassTargets, checked_class, weight_by_name
from thalweg.losses.evaluation.rows import evaluate_rows
from thalweg.losses.module import WeightedLoss
from thalweg.losses.reduction import chosen_reduction
from thalweg.losses.weighted import share_of
from thalweg.ranges import NON_NEGATIVE, UNIT_INTERVAL, number
from thalweg.rule.functions import exp, expm1, held, largest, log, mean, pick, sum, where
from thalweg.rule.rows import Kind, RowFormula

Tensor = torch.Tensor


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
    return sum(share_of(y, p.log_sum - p.shifted), over="row")


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
        targets = ClassTargets.checked(owner, input, target, weight, ignore_index)
        reduction = chosen_reduction(owner, reduction, size_average, reduce)
        return targets.evaluated(owner, OF_CLASS, options, reduction)
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
    operands = {"x": input, "y": target} | weight_by_name(owner, input.shape[dim], weight)
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
    targets = ClassTargets.checked(owner, input, target, weight, ignore_index)
    reduction = chosen_reduction(owner, reduction, size_average, reduce)
    return targets.evaluated(owner, LIKELIHOOD, {}, reduction)


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
    targets = ClassTargets.checked(owner, input, target, weight, ignore_index)
    return targets.evaluated(owner, FOCAL, options, chosen_reduction(owner, reduction))


class NLLLoss(WeightedLoss, torch.nn.NLLLoss):
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


class CrossEntropyLoss(WeightedLoss, torch.nn.CrossEntropyLoss):
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
