"""Losses of yes or no: cross entropy from probabilities and from logits, and what is made of it."""

import math
from typing import Any

import torch

from thalweg.losses.checks import check_real, check_same_size, common_size, has_nan, threshold
from thalweg.losses.evaluation.elements import evaluate
from thalweg.losses.evaluation.operands import is_under_autocast
from thalweg.losses.module import Loss, WeightedLoss
from thalweg.losses.reduction import chosen_reduction
from thalweg.losses.weighted import share_of, weighted
from thalweg.ranges import NON_NEGATIVE, UNIT_INTERVAL, number
from thalweg.rule.formula import Formula
from thalweg.rule.functions import exp, held, log, log1p, maximum, where

Tensor = torch.Tensor

LOWEST_LOG = -100.0
LOWEST_VARIANCE = 1e-12
NO_SMOOTHING = {"label_smoothing": 0.0}


@weighted
def cross_entropy_of_probability(x: Any, y: Any, h: Any) -> Any:
    """NaN where x or y is no probability.

    The derivative by x is (x - y) / max(x (1 - x), 1e-12). That of the value as written would be
    0 where a logarithm is clamped, and nothing would move an x of 0 or 1 that is wrong.
    """
    p = held(x)
    value = (y - 1) * maximum(log1p(-p), LOWEST_LOG) - y * maximum(log(p), LOWEST_LOG)
    # 0 times the slope half way from p to x: of this the second derivative is right as well.
    between = (x + p) / 2
    slope = (between - y) / maximum(between * (1 - between), LOWEST_VARIANCE)
    # An x outside of [0, 1] makes NaN by its logarithms.
    return where((y >= 0) & (y <= 1), value, math.nan) + (x - p) * slope


class _Logit:
    """What the losses need of a logit x, from one exponential, without overflow.

    Attributes:
        softplus: log(1 + exp(x)) and log(1 + exp(-x)): minus log(1 - p) and minus log(p).
        sigmoid: p = 1 / (1 + exp(-x)) and 1 - p.
    """

    def __init__(self, x: Any) -> None:
        positive = x > 0
        small = exp(where(positive, -x, x))
        tail, larger = log1p(small), 1 / (1 + small)
        smaller = small * larger
        self.softplus = where(positive, x, 0.0) + tail, where(positive, 0.0, -x) + tail
        self.sigmoid = where(positive, larger, smaller), where(positive, smaller, larger)


def smoothed(y: Any, h: Any) -> Any:
    """The target with the share h.label_smoothing of it drawn towards 1/2."""
    if h.label_smoothing > 0:
        return (1 - h.label_smoothing) * y + h.label_smoothing / 2
    return y


@weighted
def cross_entropy_of_logit(x: Any, y: Any, h: Any, pos_weight: Any = None) -> Any:
    negative, positive = _Logit(x).softplus
    y = smoothed(y, h)
    value = share_of(y, positive)
    if pos_weight is not None:
        value = pos_weight * value
    return share_of(1 - y, negative) + value


def focal(x: Any, y: Any, h: Any) -> Any:
    y = smoothed(y, h)
    logit = _Logit(x)
    (negative, positive), (p, q) = logit.softplus, logit.sigmoid
    value = share_of(1 - y, negative) + share_of(y, positive)
    missed = (1 - y) * p + y * q  # 1 - p_t, without cancellation
    if h.gamma == 2:
        value = value * (missed * missed)
    elif h.gamma != 0:  # at 0 the derivative of the power may be infinite
        base = where(missed > 0, missed, 1.0)
        value = value * where(missed > 0, base**h.gamma, 0.0)
    if h.alpha >= 0:
        value = value * (h.alpha * y + (1 - h.alpha) * (1 - y))
    return value


PROBABILITY = Formula(cross_entropy_of_probability)
LOGIT = Formula(cross_entropy_of_logit)
FOCAL = Formula(focal)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross entropy of probabilities.

    ::

        -(target * log(input) + (1 - target) * log(1 - input)) * weight     (logs at least -100)

    The derivative by the input is (input - target) / max(input * (1 - input), 1e-12) * weight. From
    logits :func:`binary_cross_entropy_with_logits` is more precise and faster.

    Args:
        input: probabilities, in [0, 1], of any shape.
        target: 0, 1 or a probability, in [0, 1], of the same shape.
        weight: the factor of each element; it broadcasts to the input's shape.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" (over the elements) or "sum".

    Raises:
        ValueError: an unknown reduction, or a target of another size.
        RuntimeError: input or target outside of [0, 1] or NaN (not looked for within
            ``torch.compile`` and ``torch.func``), a weight that does not broadcast, or autocast
            on a device other than the CPU, as in torch.
        TypeError: an argument that is no tensor.
        NotImplementedError: a complex tensor.

    >>> binary_cross_entropy(torch.tensor([0.5, 0.0]), torch.tensor([1.0, 1.0]), reduction="none")
    tensor([  0.6931, 100.0000])
    """
    owner = "binary_cross_entropy"
    check_real(owner, input=input, target=target)
    reduction = chosen_reduction(owner, reduction, size_average, reduce)
    check_same_size(owner, input, target)
    if not input.is_cpu and is_under_autocast(device := input.device.type):
        raise RuntimeError(
            f"{owner}: probabilities in 16 bits are too coarse under autocast on {device}; leave "
            "out the sigmoid and call binary_cross_entropy_with_logits, or disable autocast here"
        )
    weights = _given(owner, weight=weight)
    if common_size(owner, input=input, **weights) != input.shape:
        raise RuntimeError(
            f"{owner}: weight must broadcast to the input's size {tuple(input.shape)}, got "
            f"{tuple(weights['weight'].shape)}"
        )
    loss = evaluate(PROBABILITY, {"x": input, "y": target, **weights}, {}, reduction)
    if has_nan(loss):
        _check_probabilities(owner, input=input, target=target)
    return loss


def _check_probabilities(owner: str, **tensors: Tensor) -> None:
    for name, value in tensors.items():
        outside = value[~((value >= 0) & (value <= 1))]
        if outside.numel():
            raise RuntimeError(
                f"{owner}: all elements of {name} must lie between 0 and 1, got {outside[0].item()}"
            )


class BCELoss(WeightedLoss, torch.nn.BCELoss):
    """Binary cross entropy of probabilities; see :func:`binary_cross_entropy`.

    Args:
        weight: the factor of each element, a buffer; it broadcasts.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> BCELoss()(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 1.0]))
    tensor(0.3466)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Binary cross entropy of logits.

    ::

        p = 1 / (1 + exp(-input))
        -(pos_weight * target * log(p) + (1 - target) * log(1 - p)) * weight

    Computed as target * log(1 + exp(-input)) and so on: exact for large logits too.

    Args:
        input: logits, of any shape.
        target: 0, 1 or a probability, of the same shape.
        weight: the factor of each element; it broadcasts.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" (over the elements) or "sum".
        pos_weight: the factor of the positive part, for each class say; it broadcasts.
        label_smoothing: s, in [0, 1]: the target is (1 - s) times itself plus s / 2. Not in torch.

    Raises:
        ValueError: an unknown reduction, or a target of another size.
        RuntimeError: a weight that does not broadcast, or label_smoothing out of range.
        TypeError: an argument that is no tensor.
        NotImplementedError: a complex tensor.

    >>> binary_cross_entropy_with_logits(
    ...     torch.tensor([0.0, -1000.0]), torch.tensor([1.0, 1.0]), reduction="none"
    ... )
    tensor([6.9315e-01, 1.0000e+03])
    """
    owner = "binary_cross_entropy_with_logits"
    check_real(owner, input=input, target=target)
    reduction = chosen_reduction(owner, reduction, size_average, reduce)
    check_same_size(owner, input, target)
    weights = _given(owner, weight=weight, pos_weight=pos_weight)
    common_size(owner, input=input, target=target, **weights)
    options = _smoothing(owner, label_smoothing)
    return evaluate(LOGIT, {"x": input, "y": target, **weights}, options, reduction)


def _smoothing(owner: str, label_smoothing: float) -> dict[str, float]:
    return {"label_smoothing": threshold(owner, "label_smoothing", label_smoothing, UNIT_INTERVAL)}


def _given(owner: str, **weights: Tensor | None) -> dict[str, Tensor]:
    """Those of the weights that are given, checked to be tensors."""
    found = {name: weight for name, weight in weights.items() if weight is not None}
    check_real(owner, **found)
    return found


class BCEWithLogitsLoss(Loss, torch.nn.BCEWithLogitsLoss):
    """Binary cross entropy of logits; see :func:`binary_cross_entropy_with_logits`.

    Args:
        weight: the factor of each element, a buffer; it broadcasts.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".
        pos_weight: the factor of the positive part, a buffer; it broadcasts.
        label_smoothing: in [0, 1]; checked when the module is called. Not in torch.

    >>> BCEWithLogitsLoss(pos_weight=torch.tensor(2.0))(torch.zeros(3), torch.ones(3))
    tensor(1.3863)
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(
            input,
            target,
            self.weight,
            reduction=self.reduction,
            pos_weight=self.pos_weight,
            label_smoothing=self.label_smoothing,
        )


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross entropy of logits, averaged over the classes of each sample.

    ::

        p = 1 / (1 + exp(-input))
        mean over the last dimension of
            -(target * log(p) + (1 - target) * log(1 - p)) * weight

    Args:
        input: logits, [*, C].
        target: 0 or 1, [*, C].
        weight: the factor of each class, [C] or what broadcasts.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: of the samples' losses: "none" (gives [*]), "mean" or "sum".

    Raises:
        ValueError: an unknown reduction.
        IndexError: an input without dimensions.
        RuntimeError: sizes that do not broadcast.
        TypeError: an argument that is no tensor.
        NotImplementedError: a complex tensor.

    >>> multilabel_soft_margin_loss(torch.zeros(2, 3), torch.ones(2, 3), reduction="none")
    tensor([0.6931, 0.6931])
    """
    owner = "multilabel_soft_margin_loss"
    check_real(owner, input=input, target=target)
    reduction = chosen_reduction(owner, reduction, size_average, reduce)
    if not input.ndim:
        raise IndexError(f"{owner}: input must have a dimension of classes, got a 0-d tensor")
    weights = _given(owner, weight=weight)
    shape = common_size(owner, input=input, target=target, **weights)
    operands = {"x": input, "y": target, **weights}
    classes, dim = input.shape[-1], input.ndim - 1
    if reduction == "none":
        return evaluate(LOGIT, operands, NO_SMOOTHING, "none", composed=True).sum(dim) / classes
    samples = math.prod((*shape[:dim], *shape[dim + 1 :])) if reduction == "mean" else 1
    return evaluate(LOGIT, operands, NO_SMOOTHING, "sum", classes * samples, composed=True)


class MultiLabelSoftMarginLoss(WeightedLoss, torch.nn.MultiLabelSoftMarginLoss):
    """Binary cross entropy averaged over classes; see :func:`multilabel_soft_margin_loss`.

    Args:
        weight: the factor of each class, a buffer.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> MultiLabelSoftMarginLoss()(torch.zeros(2, 3), torch.ones(2, 3))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multilabel_soft_margin_loss(
            input, target, weight=self.weight, reduction=self.reduction
        )


def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2,
    reduction: str = "none",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Binary cross entropy of logits in which what is already right counts little.

    ::

        p = 1 / (1 + exp(-input))
        p_t = target * p + (1 - target) * (1 - p)
        alpha_t = target * alpha + (1 - target) * (1 - alpha)
        alpha_t * (1 - p_t)^gamma * cross entropy of (p, target)

    Computed from 1 - p_t itself: exact for large logits too.

    Args:
        input: logits, of any shape.
        target: 0 or 1 (or between), of the same shape.
        alpha: the weight of the positive class, in [0, 1]; -1 for no weights.
        gamma: how little, >= 0; with 0 this is the cross entropy.
        reduction: "none", "mean" or "sum".
        label_smoothing: s, in [0, 1]: the target is (1 - s) times itself plus s / 2.

    Raises:
        ValueError: an unknown reduction, a target of another size, alpha or gamma out of range.
        RuntimeError: label_smoothing out of range.
        TypeError: an argument that is no tensor, or no number.
        NotImplementedError: a complex tensor.

    Source: Lin et al., "Focal Loss for Dense Object Detection", 2017, equations 4 and 5.

    >>> sigmoid_focal_loss(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 1.0]))
    tensor([4.3322e-02, 7.5202e-08])
    """
    owner = "sigmoid_focal_loss"
    check_real(owner, input=input, target=target)
    reduction = chosen_reduction(owner, reduction)
    check_same_size(owner, input, target)
    gamma = number(owner, "gamma", gamma, NON_NEGATIVE)
    alpha = number(owner, "alpha", alpha)
    if not (0 <= alpha <= 1 or alpha == -1):
        raise ValueError(f"{owner}: alpha must be in [0, 1], or -1 for no weights, got {alpha}")
    options = {"alpha": alpha, "gamma": gamma} | _smoothing(owner, label_smoothing)
    return evaluate(FOCAL, {"x": input, "y": target}, options, reduction)


class BinaryFocalLoss(Loss):
    """Cross entropy that leaves out what is already right; see :func:`sigmoid_focal_loss`.

    Args:
        alpha: the weight of the positive class, in [0, 1]; -1 for no weights.
        gamma: how little the easy elements count, >= 0.
        reduction: "none", "mean" or "sum".
        label_smoothing: in [0, 1].

    The numbers are checked when the module is called.

    >>> BinaryFocalLoss()(torch.zeros(3), torch.ones(3))
    tensor(0.0433)
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction=reduction)
        self.alpha = alpha
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return sigmoid_focal_loss(
            input, target, self.alpha, self.gamma, self.reduction, self.label_smoothing
        )
