"""The losses of rows under test: how to call ours and the reference, and with what."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tests.losses.examples import Case, Make, Tensor, logit, pair, positive, probability, real, sign

Shape = Sequence[int]


def class_dim(shape: Shape) -> int:
    return min(1, len(shape) - 1)


def classes(shape: Shape) -> Tensor:
    """A class for each row."""
    dim = class_dim(shape)
    return torch.randint(0, max(1, shape[dim]), (*shape[:dim], *shape[dim + 1 :]))


def some_ignored(shape: Shape) -> Tensor:
    y = classes(shape)
    return torch.where(torch.rand(y.shape) < 0.3, -100, y)


def distribution(shape: Shape) -> Tensor:
    return torch.softmax(logit(shape), class_dim(shape))


def log_distribution(shape: Shape) -> Tensor:
    return torch.log_softmax(logit(shape), class_dim(shape))


def of_classes(shape: Shape) -> Tensor:
    return positive([shape[class_dim(shape)]])


def alike(shape: Shape) -> Tensor:
    """1 or -1 for each row of a matrix, or for the vector."""
    return sign(shape[:-1]).long()


# ------------------------------------------------------------------------------ references


def focal_reference(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Lin et al., equation 4, with the class's own probability in place of that of two."""
    dim = class_dim(input.shape)
    taken = target != ignore_index
    index = torch.where(taken, target, 0)
    log_p = input.log_softmax(dim).gather(dim, index.unsqueeze(dim)).squeeze(dim)
    alpha = torch.ones_like(log_p) if weight is None else weight[index]
    each = -alpha * (1 - log_p.exp()) ** gamma * log_p
    each = torch.where(taken, each, 0)
    if reduction == "none":
        return each
    return each.sum() / (alpha[taken].sum() if reduction == "mean" else 1)


def dice_reference(
    input: Tensor,
    target: Tensor,
    smooth: float = 1.0,
    start_dim: int = 1,
    reduction: str = "mean",
) -> Tensor:
    """One minus twice the intersection over the sum of the sizes, sample by sample."""
    dims = tuple(range(start_dim % input.ndim, input.ndim))
    sizes = input.sum(dims) + target.sum(dims)
    each = 1 - (2 * (input * target).sum(dims) + smooth) / (sizes + smooth)
    return {"none": lambda: each, "mean": each.mean, "sum": each.sum}[reduction]()


REFERENCES = {"focal_loss": focal_reference, "dice_loss": dice_reference}


@dataclass(frozen=True)
class RowCase(Case):
    """One loss with some options.

    Attributes:
        spatial: it has rows in dimension 1 of inputs with more dimensions than two.
        vector: it takes one row alone.
        halves: torch has it for 16 bits.
        by_elements: operands that have a number for each element.
    """

    spatial: bool = False
    vector: bool = True
    halves: bool = True

    def torchs(self, operands: Mapping[str, Any], **more: Any) -> Tensor:
        if self.name == "nll_loss":  # whose backward refuses other strides
            operands = {name: t.contiguous() for name, t in operands.items()}
        if reference := REFERENCES.get(self.name):
            result: Tensor = reference(**operands, **{**self.options, **more})
            return result
        return super().torchs(operands, **more)

    def shapes(self) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = [(1, 5), (5, 1), (0, 5), (64, 33), (3, 4099)]
        if self.vector:
            found.append((7,))
        if self.spatial:
            found += [(2, 5, 3), (2, 4, 3, 5), (1, 3, 131, 2), (0, 3, 2), (3, 130, 257), (2, 3, 0)]
        p, gamma = self.options.get("p", 2), self.options.get("gamma", 2)
        if math.isinf(p) or p < 0:  # torch refuses these norms of nothing
            found = [shape for shape in found if shape[-1]]
        if 0 < gamma < 1:  # of one class: the reference has the slope of a root at 0
            found.remove((5, 1))
        return found


def row_case(
    name: str,
    operands: Mapping[str, Make],
    options: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> RowCase:
    fixed = tuple(n for n in operands if n == "weight" or operands[n] in NOT_DIFFERENTIABLE)
    return RowCase(
        name, operands, options or {}, broadcasts=False, undifferentiated=fixed, **attributes
    )


NOT_DIFFERENTIABLE: tuple[Make, ...] = (classes, some_ignored, alike)
TRIPLE: dict[str, Make] = {"anchor": real, "positive": real, "negative": real}
PAIR: dict[str, Make] = {"input1": real, "input2": real, "target": alike}
SPATIAL = {"spatial": True}
SMOOTHING = {"label_smoothing": 0.2}
ANY_ROWS = {"spatial": True}  # the last dimension is a row: more of them are more rows

CROSS_ENTROPIES = [
    row_case("cross_entropy", pair(logit, classes), **SPATIAL),
    row_case("cross_entropy", pair(logit, some_ignored, weight=of_classes), **SPATIAL),
    row_case("cross_entropy", pair(logit, classes), {"ignore_index": 0}, **SPATIAL),
    row_case("cross_entropy", pair(logit, some_ignored), SMOOTHING, **SPATIAL),
    row_case("cross_entropy", pair(logit, classes, weight=of_classes), SMOOTHING, **SPATIAL),
    row_case("cross_entropy", pair(logit, distribution), **SPATIAL),
    row_case("cross_entropy", pair(logit, distribution, weight=of_classes), **SPATIAL),
    row_case("cross_entropy", pair(logit, distribution, weight=of_classes), SMOOTHING, **SPATIAL),
    row_case("nll_loss", pair(log_distribution, some_ignored), **SPATIAL),
    row_case("nll_loss", pair(log_distribution, classes, weight=of_classes), **SPATIAL),
    row_case("nll_loss", pair(log_distribution, classes), {"ignore_index": 2}, **SPATIAL),
]
FOCALS = [
    row_case("focal_loss", pair(logit, some_ignored), **SPATIAL),
    row_case("focal_loss", pair(logit, classes, weight=of_classes), {"gamma": 0.5}, **SPATIAL),
    row_case("focal_loss", pair(logit, classes), {"gamma": 0}, **SPATIAL),
]
HINGES = [
    row_case("multi_margin_loss", pair(real, classes), halves=False),
    row_case("multi_margin_loss", pair(real, classes), {"p": 2, "margin": 0.3}, halves=False),
    row_case("multi_margin_loss", pair(real, classes, weight=of_classes), {"p": 2}, halves=False),
]
EMBEDDINGS = [
    row_case("cosine_embedding_loss", PAIR),
    row_case("cosine_embedding_loss", PAIR, {"margin": 0.3}),
    row_case("cosine_embedding_loss", PAIR, {"margin": -0.5}),
    *(
        row_case("triplet_margin_loss", TRIPLE, {"p": p, "margin": 1.5}, **ANY_ROWS)
        for p in (2, 1, 0.5, 3, math.inf, -math.inf)
    ),
    # In 16 bits torch's overflows.
    row_case("triplet_margin_loss", TRIPLE, {"p": -2.0, "margin": 1.5}, halves=False, **ANY_ROWS),
    row_case("triplet_margin_loss", TRIPLE, {"swap": True}, **ANY_ROWS),
    row_case("triplet_margin_loss", TRIPLE, {"swap": True, "p": 1, "eps": 1e-3}, **ANY_ROWS),
    row_case("triplet_margin_with_distance_loss", TRIPLE, {"margin": 2.0}, **ANY_ROWS),
    row_case("triplet_margin_with_distance_loss", TRIPLE, {"swap": True}, **ANY_ROWS),
]
OVERLAPS = [
    row_case("dice_loss", pair(probability, probability), vector=False, **ANY_ROWS),
    row_case("dice_loss", pair(probability, probability), {"smooth": 0.0}, vector=False),
    row_case(
        "dice_loss", pair(probability, probability), {"start_dim": -1, "smooth": 0.5}, **ANY_ROWS
    ),
]
ROW_CASES: list[RowCase] = [*CROSS_ENTROPIES, *FOCALS, *HINGES, *EMBEDDINGS, *OVERLAPS]
NAMES = sorted({case.name for case in ROW_CASES})
FIRST = {case.name: case for case in reversed(ROW_CASES)}  # each with the options named first


def each_case(*cases: RowCase) -> pytest.MarkDecorator:
    """A test for each of these, or of all; but for the first of each loss they are slow.

    Kernels are compiled for each setting of a formula's switches.
    """
    return pytest.mark.parametrize(
        "case", [quick_or_slow(case) for case in cases or ROW_CASES], ids=str
    )


def quick_or_slow(case: RowCase, *more: Any) -> Any:
    quick = case in FIRST.values() and case.name != "triplet_margin_with_distance_loss"
    return pytest.param(case, *more, marks=() if quick else pytest.mark.slow)


def floating(case: RowCase, operands: Mapping[str, Tensor]) -> list[str]:
    """The operands that autograd differentiates by."""
    return [name for name in operands if name not in case.undifferentiated]


def in_dtype(operands: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in operands.items()}


# ------------------------------------------------------------------------------ layouts

Layout = Callable[[Tensor], Tensor]


def transposed(t: Tensor) -> Tensor:
    return t.transpose(0, -1).contiguous().transpose(0, -1) if t.ndim else t


def sliced(t: Tensor) -> Tensor:
    return torch.stack([t, t + 1 if t.is_floating_point() else t], -1)[..., 0]


def rows_last(t: Tensor) -> Tensor:
    """The classes as neighbours, whatever is behind them in the size."""
    return t.movedim(1, -1).contiguous().movedim(-1, 1) if t.ndim > 1 else t


def classes_first(t: Tensor) -> Tensor:
    return t.movedim(1, 0).contiguous().movedim(0, 1) if t.ndim > 1 else t


def expanded(t: Tensor) -> Tensor:
    return t[:1].expand_as(t) if t.ndim else t


LAYOUTS: list[Layout] = [transposed, sliced, rows_last, classes_first, expanded]
