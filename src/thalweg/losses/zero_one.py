"""The share of predictions that are wrong: a metric, whose backward raises an error."""

from typing import Any

import torch

from thalweg.engine.torch_internals.modes import computes_tangents
from thalweg.losses.checks import check_real, readable
from thalweg.losses.evaluation.operands import HALVES
from thalweg.losses.evaluation.row_operands import without
from thalweg.losses.module import Loss
from thalweg.losses.reduction import chosen_reduction

Tensor = torch.Tensor

OWNER = "zero_one_loss"


def zero_one_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """1 for each prediction that is wrong, 0 for each that is right.

    ::

        1 where argmax(input over classes) != target         (class indices)
        1 where target * input <= 0                          (signs)

    Of several classes with the largest score the first is the prediction. With signs, a score of 0
    is wrong whatever the target: then the loss is nowhere above the hinge. A score of NaN is wrong.

    The loss is constant almost everywhere and has no gradient. The result requires one where the
    input does, so that training with it raises an error and does not silently learn nothing.

    Args:
        input: scores of classes, [C] or [N, C, ...]; or scores of signs, of any shape.
        target: class indices from 0 to C - 1, of the input's size without its classes; or signs, -1
            and 1, of the input's size.
        reduction: "none", "mean" (the share of errors) or "sum" (their number).

    Returns:
        A number of the input's dtype, of the default dtype for integers.

    Raises:
        ValueError: an unknown reduction, a target of another size, no classes, or signs that are
            not -1 or 1 (neither these nor class indices are looked at within ``torch.compile`` and
            ``torch.func``).
        IndexError: a class index that is not one of the input's classes.
        RuntimeError: class indices that are no integers; and in backward, always.
        TypeError: an argument that is no tensor.
        NotImplementedError: a complex tensor.

    Source: Bartlett, Jordan and McAuliffe, "Convexity, Classification, and Risk Bounds", 2006,
    section 1, for signs.

    >>> zero_one_loss(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    tensor(0.5000)
    >>> zero_one_loss(torch.tensor([0.3, -2.0, 0.0]), torch.tensor([1, 1, -1]), "none")
    tensor([0., 1., 1.])
    """
    check_real(OWNER, input=input, target=target)
    reduction = chosen_reduction(OWNER, reduction)
    wrong = _signs_wrong(input, target) if input.shape == target.shape else _wrong(input, target)
    dtype = input.dtype if input.is_floating_point() else torch.get_default_dtype()
    if reduction == "none":
        loss = wrong.to(dtype)
    else:
        loss = wrong.sum().to(torch.float32 if dtype in HALVES else dtype)
        if reduction == "mean":
            loss = loss / wrong.numel()
        loss = loss.to(dtype)
    differentiated = torch.is_grad_enabled() and (input.requires_grad or target.requires_grad)
    compiled = torch.compiler.is_compiling()
    if not (differentiated or compiled) and not computes_tangents():
        return loss  # ``functionalize`` takes no autograd function
    result: Tensor = _WithoutGradient.apply(loss, input, target)  # type: ignore[no-untyped-call]
    return result


def _signs_wrong(input: Tensor, target: Tensor) -> Tensor:
    positive = target > 0
    if readable(target):
        odd = target[(target != 1) & (target != -1)]
        if odd.numel():
            raise ValueError(
                f"{OWNER}: target of the input's size must hold the signs -1 and 1, got "
                f"{odd[0].item()}; for classes 0 and 1 write 2 * target - 1"
            )
    return ~torch.where(positive, input > 0, input < 0)


def _wrong(input: Tensor, target: Tensor) -> Tensor:
    dim = 0 if input.ndim == 1 else 1
    expected = without(input.shape, dim)
    if not input.ndim or target.shape != expected:
        raise ValueError(
            f"{OWNER}: target must hold a class for each row of scores, of size "
            f"{expected}, or signs, of the input's size {tuple(input.shape)}, got "
            f"{tuple(target.shape)}"
        )
    classes = input.shape[dim]
    if not classes:
        raise ValueError(f"{OWNER}: input must have at least one class, got {tuple(input.shape)}")
    if target.is_floating_point() or target.dtype is torch.bool:
        raise RuntimeError(
            f"{OWNER}: target must hold class indices as integers, got {target.dtype}; write "
            "target.long()"
        )
    if readable(target):
        outside = target[(target < 0) | (target >= classes)]
        if outside.numel():
            raise IndexError(
                f"{OWNER}: target must hold class indices from 0 to {classes - 1}, got "
                f"{outside[0].item()}; leave out rows without a class"
            )
    largest, first = input.detach().max(dim)
    return (first != target) | (largest != largest)  # NaN is the largest where it is


class _WithoutGradient(torch.autograd.Function):
    """The loss as it is, dependent on what it was computed from."""

    generate_vmap_rule = True

    @staticmethod
    def forward(loss: Tensor, *sources: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        raise RuntimeError(
            f"{OWNER} has no gradient: it is constant almost everywhere; train with cross_entropy "
            "or hinge_loss, and report this beside it"
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _WithoutGradient.backward(ctx, tangents[0])


class ZeroOneLoss(Loss):
    """The share of predictions that are wrong; see :func:`zero_one_loss`.

    Args:
        reduction: "none", "mean" or "sum".

    >>> ZeroOneLoss()(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    tensor(0.5000)
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return zero_one_loss(input, target, self.reduction)
