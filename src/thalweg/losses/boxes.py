"""Losses of bounding boxes: intersection over union, and what is added where boxes are apart."""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch

from thalweg.losses.checks import check_real, check_same_size, readable
from thalweg.losses.evaluation.elements import evaluate
from thalweg.losses.module import Loss
from thalweg.losses.reduction import chosen_reduction
from thalweg.ranges import NON_NEGATIVE, number
from thalweg.rule.formula import Formula
from thalweg.rule.functions import abs, atan, held, maximum, minimum, where

Tensor = torch.Tensor

# The corners of the input's box and of the target's, as the formulas' operands.
INPUT, TARGET = ("x1", "y1", "x2", "y2"), ("u1", "v1", "u2", "v2")


def of_boxes(function: Callable[..., Any]) -> Formula:
    """The formula of two boxes p and q, each (x1, y1, x2, y2), from one of eight operands."""

    @wraps(function)
    def formula(h: Any, **corners: Any) -> Any:
        return function([corners[n] for n in INPUT], [corners[n] for n in TARGET], h)

    return Formula(formula)


def sides(box: Sequence[Any]) -> tuple[Any, Any]:
    x1, y1, x2, y2 = box
    return x2 - x1, y2 - y1


def area(box: Sequence[Any]) -> Any:
    width, height = sides(box)
    return width * height


def common(p: Sequence[Any], q: Sequence[Any]) -> list[Any]:
    """The corners of the intersection; crossed where there is none."""
    return [*map(maximum, p[:2], q[:2]), *map(minimum, p[2:], q[2:])]


def hull(p: Sequence[Any], q: Sequence[Any]) -> list[Any]:
    """The smallest box around both."""
    return [*map(minimum, p[:2], q[:2]), *map(maximum, p[2:], q[2:])]


def intersection_and_union(p: Sequence[Any], q: Sequence[Any]) -> tuple[Any, Any]:
    width, height = sides(common(p, q))
    intersection = where((width > 0) & (height > 0), width * height, 0.0)
    return intersection, area(p) + area(q) - intersection


def overlap(p: Sequence[Any], q: Sequence[Any], h: Any) -> Any:
    """The intersection over the union."""
    intersection, union = intersection_and_union(p, q)
    return intersection / (union + h.eps)


def distance(p: Sequence[Any], q: Sequence[Any], h: Any) -> Any:
    """The squared distance of the centres over the squared diagonal of the hull."""
    # Differences first: of neighbours far from the origin they are exact, and sums are not.
    across = ((p[0] - q[0]) + (p[2] - q[2])) / 2
    down = ((p[1] - q[1]) + (p[3] - q[3])) / 2
    width, height = sides(hull(p, q))
    return (across * across + down * down) / (width * width + height * height + h.eps)


def shape(p: Sequence[Any], q: Sequence[Any]) -> Any:
    """4 / pi^2 times the squared difference of the angles atan(width / height).

    The difference of two angles is the angle whose tangent is cross / dot, and needs one atan, of
    at most 1. A box that is a point has no angle: the difference is 0.
    """
    (width, height), (others_width, others_height) = sides(p), sides(q)
    cross = others_width * height - width * others_height
    dot = others_width * width + others_height * height
    steep = abs(cross) > dot
    longer = where(steep, cross, dot)
    tangent = where(steep, dot, cross) / where(longer == 0, 1.0, longer)
    angle = atan(tangent)
    beyond = where(cross > 0, math.pi / 2 - angle, -math.pi / 2 - angle)
    difference = where(steep, beyond, angle)
    return 4 / math.pi**2 * (difference * difference)


@of_boxes
def iou(p: Sequence[Any], q: Sequence[Any], h: Any) -> Any:
    return 1 - overlap(p, q, h)


@of_boxes
def giou(p: Sequence[Any], q: Sequence[Any], h: Any) -> Any:
    _, union = intersection_and_union(p, q)
    around = area(hull(p, q))
    return 1 - (overlap(p, q, h) - (around - union) / (around + h.eps))


@of_boxes
def diou(p: Sequence[Any], q: Sequence[Any], h: Any) -> Any:
    return 1 - overlap(p, q, h) + distance(p, q, h)


@of_boxes
def ciou(p: Sequence[Any], q: Sequence[Any], h: Any) -> Any:
    missed, v = 1 - overlap(p, q, h), shape(p, q)
    alpha = held(v / (missed + v + h.eps))
    return missed + distance(p, q, h) + alpha * v


def _loss(
    owner: str, formula: Formula, input: Tensor, target: Tensor, reduction: str, eps: float
) -> Tensor:
    check_real(owner, input=input, target=target)
    eps = number(owner, "eps", eps, NON_NEGATIVE)
    check_same_size(owner, input, target)
    _check_boxes(owner, input=input, target=target)
    # Of negated views, torch's forward mode takes no views.
    sides = (*input.resolve_neg().unbind(-1), *target.resolve_neg().unbind(-1))
    corners = zip((*INPUT, *TARGET), sides, strict=True)
    return evaluate(formula, dict(corners), {"eps": eps}, reduction)


def _check_boxes(owner: str, **tensors: Tensor) -> None:
    for name, value in tensors.items():
        if not value.ndim or value.shape[-1] != 4:
            raise ValueError(
                f"{owner}: {name} must hold boxes (x1, y1, x2, y2) in its last dimension, got the "
                f"size {tuple(value.shape)}"
            )
        if not readable(value):
            continue
        crossed = value[..., 2:] < value[..., :2]
        if crossed.any():
            index = tuple(crossed.any(-1).nonzero()[0].tolist())
            raise ValueError(
                f"{owner}: {name} must have x1 <= x2 and y1 <= y2, got {value[index].tolist()} at "
                f"index {index}; boxes of a centre and sides, or of one corner and sides, must be "
                "converted to two corners"
            )


def iou_loss(input: Tensor, target: Tensor, reduction: str = "mean", eps: float = 1e-7) -> Tensor:
    """One minus the intersection over the union of two boxes.

    ::

        1 - intersection / (union + eps)

    Boxes that are apart have the loss 1 and no gradient; the other losses of boxes have one there.

    Args:
        input: boxes (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, of the size ``[*, 4]``.
        target: what they should be, of the same size.
        reduction: "none" (a value for each box), "mean" (over the boxes) or "sum".
        eps: keeps the quotient finite, >= 0. It is an area: choose it far below that of a box.

    Raises:
        ValueError: an unknown reduction, another size, eps out of range, or a box whose corners are
            crossed (not looked for within ``torch.compile`` and ``torch.func``).
        TypeError: an argument that is no tensor, or an eps that is no number.
        NotImplementedError: a complex tensor.

    Source: Yu et al., "UnitBox: An Advanced Object Detection Network", 2016, takes -log(IoU); this
    is the form of Rezatofighi et al., 2019, algorithm 1.

    >>> iou_loss(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
    tensor(0.6667)
    """
    reduction = chosen_reduction("iou_loss", reduction)
    return _loss("iou_loss", iou, input, target, reduction, eps)


def giou_loss(input: Tensor, target: Tensor, reduction: str = "mean", eps: float = 1e-7) -> Tensor:
    """One minus the generalized intersection over union of two boxes.

    ::

        1 - intersection / (union + eps) + (hull - union) / (hull + eps)

    The hull is the area of the smallest box around both. Between 0 and 2.

    Args:
        input: boxes (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, of the size ``[*, 4]``.
        target: what they should be, of the same size.
        reduction: "none" (a value for each box), "mean" (over the boxes) or "sum".
        eps: keeps the quotients finite, >= 0. It is an area: choose it far below that of a box.

    Raises:
        ValueError: as :func:`iou_loss`.
        TypeError: an argument that is no tensor, or an eps that is no number.
        NotImplementedError: a complex tensor.

    Source: Rezatofighi et al., "Generalized Intersection over Union: A Metric and A Loss for
    Bounding Box Regression", 2019, algorithm 1.

    >>> giou_loss(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[3.0, 0.0, 4.0, 1.0]]))
    tensor(1.5000)
    """
    reduction = chosen_reduction("giou_loss", reduction)
    return _loss("giou_loss", giou, input, target, reduction, eps)


def diou_loss(input: Tensor, target: Tensor, reduction: str = "mean", eps: float = 1e-7) -> Tensor:
    """One minus the intersection over union, and how far the centres are apart.

    ::

        1 - intersection / (union + eps) + distance^2 / (diagonal^2 + eps)

    The distance is that of the centres, the diagonal that of the smallest box around both.

    Args:
        input: boxes (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, of the size ``[*, 4]``.
        target: what they should be, of the same size.
        reduction: "none" (a value for each box), "mean" (over the boxes) or "sum".
        eps: keeps the quotients finite, >= 0. It is an area: choose it far below that of a box.

    Raises:
        ValueError: as :func:`iou_loss`.
        TypeError: an argument that is no tensor, or an eps that is no number.
        NotImplementedError: a complex tensor.

    Source: Zheng et al., "Distance-IoU Loss: Faster and Better Learning for Bounding Box
    Regression", 2020, equation 7.

    >>> diou_loss(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[3.0, 0.0, 4.0, 1.0]]))
    tensor(1.5294)
    """
    reduction = chosen_reduction("diou_loss", reduction)
    return _loss("diou_loss", diou, input, target, reduction, eps)


def ciou_loss(input: Tensor, target: Tensor, reduction: str = "mean", eps: float = 1e-7) -> Tensor:
    """The loss of :func:`diou_loss`, and how much the boxes differ in shape.

    ::

        diou_loss + alpha * v
        v = 4 / pi^2 * (atan(target's width / height) - atan(input's width / height))^2
        alpha = v / (1 - intersection / (union + eps) + v + eps)      (a constant in the gradient)

    A box that is a point has no shape: v is 0 there.

    Args:
        input: boxes (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, of the size ``[*, 4]``.
        target: what they should be, of the same size.
        reduction: "none" (a value for each box), "mean" (over the boxes) or "sum".
        eps: keeps the quotients finite, >= 0. It is an area: choose it far below that of a box.

    Raises:
        ValueError: as :func:`iou_loss`.
        TypeError: an argument that is no tensor, or an eps that is no number.
        NotImplementedError: a complex tensor.

    Source: Zheng et al., "Distance-IoU Loss: Faster and Better Learning for Bounding Box
    Regression", 2020, equations 8 to 11. Their programs leave out a factor 1 / (width^2 + height^2)
    of the gradient of v; here it is as the formula has it.

    >>> ciou_loss(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 2.0]]))
    tensor(0.7629)
    """
    reduction = chosen_reduction("ciou_loss", reduction)
    return _loss("ciou_loss", ciou, input, target, reduction, eps)


class _BoxLoss(Loss):
    def __init__(self, reduction: str = "mean", eps: float = 1e-7) -> None:
        super().__init__(reduction=reduction)
        self.eps = eps


class IoULoss(_BoxLoss):
    """One minus the intersection over union; see :func:`iou_loss`.

    Args:
        reduction: "none", "mean" or "sum".
        eps: keeps the quotient finite, >= 0; checked when the module is called.

    >>> IoULoss()(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
    tensor(0.6667)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return iou_loss(input, target, self.reduction, self.eps)


class GIoULoss(_BoxLoss):
    """One minus the generalized intersection over union; see :func:`giou_loss`.

    Args:
        reduction: "none", "mean" or "sum".
        eps: keeps the quotients finite, >= 0; checked when the module is called.

    >>> GIoULoss()(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[3.0, 0.0, 4.0, 1.0]]))
    tensor(1.5000)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return giou_loss(input, target, self.reduction, self.eps)


class DIoULoss(_BoxLoss):
    """Intersection over union and the centres' distance; see :func:`diou_loss`.

    Args:
        reduction: "none", "mean" or "sum".
        eps: keeps the quotients finite, >= 0; checked when the module is called.

    >>> DIoULoss()(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[3.0, 0.0, 4.0, 1.0]]))
    tensor(1.5294)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return diou_loss(input, target, self.reduction, self.eps)


class CIoULoss(_BoxLoss):
    """Intersection over union, the centres' distance and the shape; see :func:`ciou_loss`.

    Args:
        reduction: "none", "mean" or "sum".
        eps: keeps the quotients finite, >= 0; checked when the module is called.

    >>> CIoULoss()(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 2.0]]))
    tensor(0.7629)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return ciou_loss(input, target, self.reduction, self.eps)
