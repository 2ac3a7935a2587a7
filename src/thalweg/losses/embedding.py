"""Losses of distances between vectors: cosine embedding, and triplets."""

import math
from collections.abc import Callable
from typing import Any

import torch

from thalweg.losses.checks import check_real, common_size
from thalweg.losses.evaluation.elements import evaluate
from thalweg.losses.evaluation.operands import expanded
from thalweg.losses.evaluation.rows import evaluate_rows
from thalweg.losses.module import Loss
from thalweg.losses.reduction import chosen_reduction
from thalweg.ranges import POSITIVE, number
from thalweg.rule.formula import Formula
from thalweg.rule.functions import abs, held, largest, maximum, minimum, sqrt, sum, where
from thalweg.rule.rows import Kind, RowFormula

Tensor = torch.Tensor
Distance = Callable[[Tensor, Tensor], Tensor]

LEAST_SQUARE = 1e-12  # added to the square of a norm, which may be 0
DISTANCE_EPS = 1e-6  # torch's default


def cosine_embedding(x1: Any, x2: Any, y: Any, h: Any) -> Any:
    square1 = sum(x1 * x1, over="row") + LEAST_SQUARE
    square2 = sum(x2 * x2, over="row") + LEAST_SQUARE
    cosine = sum(x1 * x2, over="row") / sqrt(square1 * square2)
    apart = maximum(cosine - h.margin, 0.0)
    return where(y == 1, 1 - cosine, where(y == -1, apart, 0.0))


def pairwise_distance(a: Any, b: Any, h: Any) -> Any:
    """The p-norm of a - b + eps over the row; its derivative at 0 is 0, as torch has it."""
    difference = a - b + h.eps
    if h.p == math.inf:
        return largest(abs(difference))
    if h.p == -math.inf:
        return -largest(-abs(difference))
    if h.p < 0:  # a difference of 0 makes a distance of 0
        least = -largest(-abs(difference))
        unit = _unit(least)
        size = where(difference != 0, abs(difference) / unit, 1.0)
        return where(least > 0, unit * sum(size**h.p, over="row") ** (1 / h.p), least)
    if h.p == 0:
        return sum(where(difference != 0, 1.0, 0.0), over="row")
    if h.p == 1:
        return sum(abs(difference), over="row")
    if h.p == 2:
        total = sum(difference * difference, over="row")
        return where(total > 0, sqrt(where(total > 0, total, 1.0)), total)
    unit = _unit(largest(abs(difference)))
    size = where(difference != 0, abs(difference) / unit, 1.0)
    total = sum(where(difference != 0, size**h.p, 0.0), over="row")
    return where(total > 0, unit * where(total > 0, total, 1.0) ** (1 / h.p), total)


def _unit(size: Any) -> Any:
    """What differences are measured in, so that no power of them leaves the range of numbers."""
    return held(where((size > 0) & (size < math.inf), size, 1.0))


def triplet_margin(anchor: Any, positive: Any, negative: Any, h: Any) -> Any:
    near = pairwise_distance(anchor, positive, h)
    far = pairwise_distance(anchor, negative, h)
    if h.swap:
        far = minimum(far, pairwise_distance(positive, negative, h))
    return maximum(h.margin + near - far, 0.0)


def margin_of_distances(near: Any, far: Any, h: Any) -> Any:
    return maximum(h.margin + near - far, 0.0)


COSINE = RowFormula(cosine_embedding, y=Kind.ROW)
TRIPLET = RowFormula(triplet_margin)
OF_DISTANCES = Formula(margin_of_distances)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Pulls vectors of one kind towards one direction, and those of two kinds apart.

    ::

        c = input1 · input2 / sqrt((|input1|^2 + 1e-12) (|input2|^2 + 1e-12))
        1 - c                  where target is 1
        max(0, c - margin)     where target is -1
        0                      elsewhere

    Args:
        input1: vectors, [D] or [N, D].
        input2: likewise; their sizes broadcast.
        target: 1 or -1, [] or [N].
        margin: the cosine that vectors apart may have, from -1 to 1; 0 to 0.5 is usual.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none" (gives the target's size), "mean" or "sum".

    Raises:
        ValueError: an unknown reduction, a margin that is not finite.
        RuntimeError: sizes that do not fit.
        TypeError: an argument that is no tensor or number.
        NotImplementedError: a complex tensor.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> y = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    >>> cosine_embedding_loss(x, y, torch.tensor([1, -1]), reduction="none")
    tensor([1.0000, 0.7071])
    """
    owner = "cosine_embedding_loss"
    check_real(owner, input1=input1, input2=input2, target=target)
    margin = number(owner, "margin", margin)
    reduction = chosen_reduction(owner, reduction, size_average, reduce)
    dims = target.ndim
    if dims > 1 or not input1.ndim == input2.ndim == dims + 1:
        raise RuntimeError(
            f"{owner}: target must be [] with inputs [D], or [N] with inputs [N, D], got target "
            f"{tuple(target.shape)} with inputs {tuple(input1.shape)} and {tuple(input2.shape)}"
        )
    size = common_size(owner, input1=input1, input2=input2, target=target.unsqueeze(-1))
    dtype = torch.promote_types(input1.dtype, input2.dtype)
    if dtype.is_floating_point:  # the target chooses, and has no part in the result's dtype
        target = target.to(dtype)
    operands = {
        "x1": expanded(input1, size),
        "x2": expanded(input2, size),
        "y": expanded(target, size[:-1]),
    }
    return evaluate_rows(owner, COSINE, operands, {"margin": margin}, reduction, dims)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = DISTANCE_EPS,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """An anchor should be nearer to its like than to its unlike, by a margin.

    ::

        d(a, b) = (sum over the last dimension of |a - b + eps|^p)^(1 / p)
        max(0, margin + d(anchor, positive) - d(anchor, negative))

    With ``swap``, d(positive, negative) takes the place of the second distance where it is smaller.

    Args:
        anchor: vectors, [*, D].
        positive: of the anchor's kind, [*, D]; sizes broadcast.
        negative: of another kind, likewise.
        margin: > 0.
        p: of the norm; inf and -inf for the largest and the smallest difference.
        eps: added to the differences, against a derivative at 0.
        swap: as above.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none" (gives [*]), "mean" or "sum".

    Raises:
        ValueError: an unknown reduction, a margin <= 0, a p that is NaN.
        RuntimeError: numbers of dimensions that differ, sizes that do not broadcast, vectors of
            size 0 with p < 0 or infinite.
        TypeError: an argument that is no tensor or number.
        NotImplementedError: a complex tensor.

    Source: Balntas et al., "Learning local feature descriptors with triplets and shallow
    convolutional neural networks", 2016, section 3.

    >>> a, p, n = torch.zeros(1, 4), torch.ones(1, 4), 2 * torch.ones(1, 4)
    >>> triplet_margin_loss(a, p, n, margin=3.0)
    tensor(1.0000)
    """
    reduction = chosen_reduction("triplet_margin_loss", reduction, size_average, reduce)
    return _triplet(anchor, positive, negative, margin, p, eps, swap, reduction)


def _triplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float,
    p: float,
    eps: float,
    swap: bool,
    reduction: str,
    composed: bool = False,
) -> Tensor:
    owner = "triplet_margin_loss"
    check_real(owner, anchor=anchor, positive=positive, negative=negative)
    options = {
        "margin": _margin(owner, margin),
        "p": _exponent(owner, p),
        "eps": number(owner, "eps", eps),
        "swap": bool(swap),
    }
    _check_dimensions(owner, anchor, positive, negative)
    size = common_size(owner, anchor=anchor, positive=positive, negative=negative)
    if 0 in size[-1:] and (options["p"] < 0 or options["p"] == math.inf):
        raise RuntimeError(
            f"{owner}: vectors must have a number where p is {p}, got size {tuple(size)}; a norm "
            "with 0 <= p < inf is 0 there"
        )
    operands = {"anchor": anchor, "positive": positive, "negative": negative}
    # A number is a vector of one.
    operands = {name: expanded(v, size or (1,)) for name, v in operands.items()}
    dim = max(0, len(size) - 1)
    return evaluate_rows(owner, TRIPLET, operands, options, reduction, dim, composed=composed)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Distance | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """:func:`triplet_margin_loss` with a distance of your own.

    ::

        max(0, margin + d(anchor, positive) - d(anchor, negative))

    Args:
        anchor: what the distance takes.
        positive: likewise, of the anchor's kind.
        negative: likewise, of another kind.
        distance_function: d, of two tensors, which gives a tensor; the Euclidean distance of the
            last dimension by default.
        margin: > 0.
        swap: d(positive, negative) in place of the second distance where it is smaller.
        reduction: "none" (gives the distances' size), "mean" or "sum".

    Raises:
        ValueError: an unknown reduction, a margin <= 0.
        RuntimeError: numbers of dimensions that differ, sizes that do not broadcast.
        TypeError: an argument that is no tensor or number, a distance that is no function or gives
            no tensor.
        NotImplementedError: a complex tensor without a distance_function.

    >>> a, p, n = torch.zeros(1, 4), torch.ones(1, 4), 2 * torch.ones(1, 4)
    >>> city = lambda a, b: (a - b).abs().sum(-1)
    >>> triplet_margin_with_distance_loss(a, p, n, distance_function=city, margin=5.0)
    tensor(1.)
    """
    owner = "triplet_margin_with_distance_loss"
    margin = _margin(owner, margin)
    reduction = chosen_reduction(owner, reduction)
    if distance_function is None:
        return _triplet(
            anchor, positive, negative, margin, 2, DISTANCE_EPS, swap, reduction, composed=True
        )
    if not callable(distance_function):
        raise TypeError(
            f"{owner}: distance_function must be a function of two tensors, got "
            f"{distance_function!r}"
        )
    _check_dimensions(owner, anchor, positive, negative)
    near, far = distance_function(anchor, positive), distance_function(anchor, negative)
    check_real(owner, **{"what distance_function returns": near})
    if swap:
        far = torch.minimum(far, distance_function(positive, negative))
    operands = {"near": near, "far": far}
    return evaluate(OF_DISTANCES, operands, {"margin": margin}, reduction, composed=True)


def _margin(owner: str, margin: float) -> float:
    return number(owner, "margin", margin, POSITIVE)


def _exponent(owner: str, p: float) -> float:
    """The exponent of a norm; it may be infinite."""
    if isinstance(p, (int, float)) and math.isinf(p):
        return p
    return number(owner, "p", p)


def _check_dimensions(owner: str, anchor: Tensor, positive: Tensor, negative: Tensor) -> None:
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            f"{owner}: anchor, positive and negative must have the same number of dimensions, got "
            f"{anchor.ndim}, {positive.ndim} and {negative.ndim}"
        )


class CosineEmbeddingLoss(Loss, torch.nn.CosineEmbeddingLoss):
    """Vectors of one kind together, of two kinds apart; see :func:`cosine_embedding_loss`.

    Args:
        margin: the cosine that vectors apart may have; checked when the module is called.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> CosineEmbeddingLoss()(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([1, -1]))
    tensor(0.5000)
    """

    def __init__(
        self,
        margin: float = 0.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return cosine_embedding_loss(
            input1, input2, target, margin=self.margin, reduction=self.reduction
        )


class TripletMarginLoss(Loss, torch.nn.TripletMarginLoss):
    """An anchor nearer to its like than to its unlike; see :func:`triplet_margin_loss`.

    Args:
        margin: > 0; checked at once.
        p: of the norm.
        eps: added to the differences.
        swap: the distance of positive and negative may take the place of the second.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> TripletMarginLoss()(torch.zeros(1, 4), torch.zeros(1, 4), torch.ones(1, 4))
    tensor(0.)
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = DISTANCE_EPS,
        swap: bool = False,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = _margin("TripletMarginLoss", margin)
        self.p = p
        self.eps = eps
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return triplet_margin_loss(
            anchor,
            positive,
            negative,
            margin=self.margin,
            p=self.p,
            eps=self.eps,
            swap=self.swap,
            reduction=self.reduction,
        )


class TripletMarginWithDistanceLoss(Loss, torch.nn.TripletMarginWithDistanceLoss):
    """Triplets with a distance of your own; see :func:`triplet_margin_with_distance_loss`.

    Args:
        distance_function: of two tensors; the Euclidean distance by default.
        margin: > 0; checked at once.
        swap: the distance of positive and negative may take the place of the second.
        reduction: "none", "mean" or "sum".

    >>> TripletMarginWithDistanceLoss()(torch.zeros(1, 4), torch.zeros(1, 4), torch.ones(1, 4))
    tensor(0.)
    """

    def __init__(
        self,
        *,
        distance_function: Distance | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.distance_function = distance_function
        self.margin = _margin("TripletMarginWithDistanceLoss", margin)
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )
