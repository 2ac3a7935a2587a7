"""Losses of a sign: hinges and their smooth relative. Targets are -1 and 1."""

from collections.abc import Mapping
from typing import Any

import torch

from thalweg.losses.checks import check_real, common_size
from thalweg.losses.evaluation.elements import evaluate
from thalweg.losses.module import Loss
from thalweg.losses.reduction import chosen_reduction
from thalweg.ranges import number
from thalweg.rule.formula import Formula
from thalweg.rule.functions import maximum, softplus, where

Tensor = torch.Tensor


def soft_margin(x: Any, y: Any, h: Any) -> Any:
    return softplus(-y * x)


def hinge(x: Any, y: Any, h: Any) -> Any:
    return maximum(1 - y * x, 0.0)


def hinge_embedding(x: Any, y: Any, h: Any) -> Any:
    near = where(y != -1, x, 0.0)
    far = where(y != 1, maximum(h.margin - x, 0.0), 0.0)
    return near + far


def margin_ranking(x1: Any, x2: Any, y: Any, h: Any) -> Any:
    return maximum(h.margin - y * (x1 - x2), 0.0)


SOFT_MARGIN = Formula(soft_margin)
HINGE = Formula(hinge)
HINGE_EMBEDDING = Formula(hinge_embedding)
MARGIN_RANKING = Formula(margin_ranking)

NO_OPTIONS: Mapping[str, Any] = {}


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The logistic loss of a sign.

    ::

        log(1 + exp(-target * input))

    Overflows for no input.

    Args:
        input: scores, of any shape.
        target: -1 or 1, of the same shape, or what broadcasts.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: an unknown reduction.
        RuntimeError: sizes that do not broadcast.
        TypeError: an argument that is no tensor.
        NotImplementedError: a complex tensor.

    >>> soft_margin_loss(torch.tensor([0.0, -100.0]), torch.tensor([1.0, 1.0]), reduction="none")
    tensor([  0.6931, 100.0000])
    """
    check_real("soft_margin_loss", input=input, target=target)
    common_size("soft_margin_loss", input=input, target=target)
    reduction = chosen_reduction("soft_margin_loss", reduction, size_average, reduce)
    return evaluate(SOFT_MARGIN, {"x": input, "y": target}, NO_OPTIONS, reduction)


class SoftMarginLoss(Loss, torch.nn.SoftMarginLoss):
    """The logistic loss of a sign; see :func:`soft_margin_loss`.

    Args:
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> SoftMarginLoss()(torch.zeros(3), torch.ones(3))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return soft_margin_loss(input, target, reduction=self.reduction)


def hinge_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The hinge of a support vector machine.

    ::

        max(0, 1 - target * input)

    The derivative at the hinge is that of its slope.

    Args:
        input: scores, of any shape.
        target: -1 or 1, of the same shape, or what broadcasts.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: an unknown reduction.
        RuntimeError: sizes that do not broadcast.
        TypeError: an argument that is no tensor.
        NotImplementedError: a complex tensor.

    Source: Cortes and Vapnik, "Support-Vector Networks", 1995.

    >>> hinge_loss(torch.tensor([0.5, -2.0]), torch.tensor([1.0, -1.0]), "none")
    tensor([0.5000, 0.0000])
    """
    check_real("hinge_loss", input=input, target=target)
    common_size("hinge_loss", input=input, target=target)
    reduction = chosen_reduction("hinge_loss", reduction)
    return evaluate(HINGE, {"x": input, "y": target}, NO_OPTIONS, reduction)


class HingeLoss(Loss):
    """The hinge of a support vector machine; see :func:`hinge_loss`.

    Args:
        reduction: "none", "mean" or "sum".

    >>> HingeLoss()(torch.zeros(3), torch.ones(3))
    tensor(1.)
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return hinge_loss(input, target, reduction=self.reduction)


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Distances made small for pairs that belong together, and at least the margin for others.

    ::

        input                       where target = 1
        max(0, margin - input)      where target = -1

    Args:
        input: distances, of any shape.
        target: -1 or 1, of the same shape, or what broadcasts. Any other value counts both ways.
        margin: the distance that is far enough.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: an unknown reduction, or a margin that is not finite.
        RuntimeError: sizes that do not broadcast.
        TypeError: an argument that is no tensor, or a margin that is no number.
        NotImplementedError: a complex tensor.

    Source: Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping",
    2006, without the squares.

    >>> hinge_embedding_loss(torch.tensor([0.25, 0.25]), torch.tensor([1, -1]), reduction="none")
    tensor([0.2500, 0.7500])
    """
    check_real("hinge_embedding_loss", input=input, target=target)
    common_size("hinge_embedding_loss", input=input, target=target)
    reduction = chosen_reduction("hinge_embedding_loss", reduction, size_average, reduce)
    options = {"margin": number("hinge_embedding_loss", "margin", margin)}
    return evaluate(HINGE_EMBEDDING, {"x": input, "y": target}, options, reduction)


class HingeEmbeddingLoss(Loss, torch.nn.HingeEmbeddingLoss):
    """Distances near or far; see :func:`hinge_embedding_loss`.

    Args:
        margin: the distance that is far enough.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> HingeEmbeddingLoss()(torch.tensor([0.25, 0.25]), torch.tensor([1, -1]))
    tensor(0.5000)
    """

    def __init__(
        self,
        margin: float = 1.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Scores of which one should be the larger, by a margin.

    ::

        max(0, margin - target * (input1 - input2))

    Args:
        input1: scores, of any shape, with as many dimensions as the target.
        input2: likewise.
        target: 1 where input1 should be the larger, -1 where input2 should.
        margin: by how much.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: an unknown reduction, or a margin that is not finite.
        RuntimeError: another number of dimensions, or sizes that do not broadcast.
        TypeError: an argument that is no tensor, or a margin that is no number.
        NotImplementedError: a complex tensor.

    Source: Herbrich, Graepel and Obermayer, "Large Margin Rank Boundaries for Ordinal Regression",
    2000.

    >>> margin_ranking_loss(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([1.0]))
    tensor(2.)
    """
    owner = "margin_ranking_loss"
    check_real(owner, input1=input1, input2=input2, target=target)
    reduction = chosen_reduction(owner, reduction, size_average, reduce)
    margin = number(owner, "margin", margin)
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            f"{owner}: input1, input2 and target must have as many dimensions as each other, got "
            f"sizes {tuple(input1.shape)}, {tuple(input2.shape)} and {tuple(target.shape)}"
        )
    common_size(owner, input1=input1, input2=input2, target=target)
    operands = {"x1": input1, "x2": input2, "y": target}
    return evaluate(MARGIN_RANKING, operands, {"margin": margin}, reduction)


class MarginRankingLoss(Loss, torch.nn.MarginRankingLoss):
    """Scores in their order; see :func:`margin_ranking_loss`.

    Args:
        margin: by how much one should be the larger.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> MarginRankingLoss()(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([1.0]))
    tensor(2.)
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
        return margin_ranking_loss(
            input1, input2, target, margin=self.margin, reduction=self.reduction
        )
