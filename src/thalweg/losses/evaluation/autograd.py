"""The autograd functions of all losses."""

import math
from collections.abc import Callable
from typing import Any

import torch

from thalweg.engine.modes import with_gradients
from thalweg.engine.passes.memory import has_memory
from thalweg.losses.evaluation.evaluator import Evaluator, Gradients, Needed, Tensors
from thalweg.losses.evaluation.operands import are_plain, kernels_may_run
from thalweg.rule.formula import BACKWARD, EACH, FACTOR, SUM


def evaluated(evaluator: Evaluator, values: Tensors, needed: Needed) -> torch.Tensor:
    """The values or their sum, recorded by autograd where an operand needs a gradient."""
    if evaluator.kind == EACH:
        if True in needed:
            return _recorded_values(evaluator, *values)
        result = evaluator.new_values(values)
        evaluator(values, result)
        return result
    if True in needed:
        return _recorded_sum(evaluator, *values)
    (total,), _ = evaluator(values)
    return _number_like(values[0], total * evaluator.scale, evaluator.dtype)


def _number_like(tensor: torch.Tensor, value: float, dtype: torch.dtype) -> torch.Tensor:
    """A 0-d tensor of a dtype on a tensor's device; infinite beyond the dtype's range."""
    try:
        return tensor.new_full((), value, dtype=dtype)
    except RuntimeError:
        return tensor.new_full((), math.copysign(math.inf, value), dtype=dtype)


class _Sum(torch.autograd.Function):
    """The sum of a loss's values, times the evaluator's scale.

    The gradients are those of the forward pass, so changing an operand in between does not matter
    to the first backward.
    """

    @staticmethod
    def forward(ctx: Any, evaluator: Evaluator, *values: torch.Tensor) -> torch.Tensor:
        _save(ctx, evaluator, values)
        (total,), ctx.gradients = evaluator(values)
        return _number_like(values[0], total * evaluator.scale, evaluator.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled() or not are_plain([upstream]):
            return None, *_by_tensor_operations(ctx, upstream)
        # In one step: another thread may run backward of the same loss.
        gradients: Gradients | None = vars(ctx).pop("gradients", None)
        factor = upstream.item()
        if factor != 1.0 and ctx.evaluator.dtype is torch.float16:
            # A gradient scaler's factor lifts gradients into float16's range: multiply before
            # rounding.
            return None, *_gradients(ctx, SUM, upstream, **{FACTOR: ctx.evaluator.scale * factor})
        if gradients is None:  # returned before, and the caller may have changed them since
            gradients = _gradients(ctx, SUM, torch.ones_like(upstream))
        if factor != 1.0:
            gradients = [None if g is None else g.mul_(factor) for g in gradients]
        return None, *gradients


class _Values(torch.autograd.Function):
    """A loss's values."""

    @staticmethod
    def forward(ctx: Any, evaluator: Evaluator, *values: torch.Tensor) -> torch.Tensor:
        _save(ctx, evaluator, values)
        result = evaluator.new_values(values)
        ctx.size, ctx.dtype = result.shape, result.dtype
        evaluator(values, result)
        return result

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if upstream.shape != ctx.size:  # autograd has checked it, if it has called
            raise RuntimeError(
                f"backward of a loss: the gradient must have the loss's size {tuple(ctx.size)}, "
                f"got {tuple(upstream.shape)}"
            )
        if torch.is_grad_enabled() or not are_plain([upstream]):
            return None, *_by_tensor_operations(ctx, upstream)
        return None, *_gradients(ctx, BACKWARD, upstream.to(ctx.dtype))


def _save(ctx: Any, evaluator: Evaluator, values: Tensors) -> None:
    ctx.evaluator = evaluator
    ctx.save_for_backward(*values)
    ctx.kinds = [(v.shape, v.dtype) for v in values]


def _saved(ctx: Any) -> list[torch.Tensor]:
    """The saved operands, as the evaluator knows them; a hook may have brought back others."""
    values = [*ctx.saved_tensors]
    for k, (shape, dtype) in enumerate(ctx.kinds):
        v = values[k]
        if v.dtype is dtype and v.shape == shape:
            continue
        converts = ctx.evaluator.converts and v.is_floating_point() == dtype.is_floating_point
        if v.shape != shape or not converts:
            raise RuntimeError(
                f"backward of a loss: the operand saved as {dtype} of size {tuple(shape)} came "
                f"back as {v.dtype} of size {tuple(v.shape)}; hooks on saved tensors must bring "
                "back what they were given"
            )
        values[k] = v.to(dtype)
    return values


def _gradients(ctx: Any, kind: str, upstream: torch.Tensor, **options: Any) -> Gradients:
    """The gradients, computed by a pass over the saved operands."""
    values = _saved(ctx)
    if not kernels_may_run() or not all(map(has_memory, values)):
        return _by_tensor_operations(ctx, upstream)
    evaluator = ctx.evaluator.with_kind(kind, ctx.needs_input_grad[1:], **options)
    evaluator, values = evaluator.arranged(values)
    given = [evaluator.arranged_upstream(upstream, values)] if kind == BACKWARD else []
    gradients: Gradients
    _, gradients = evaluator(values, *given)
    return gradients


def _by_tensor_operations(ctx: Any, upstream: torch.Tensor) -> Gradients:
    """The gradients, computed by tensor operations that autograd can differentiate again."""
    needed = ctx.needs_input_grad[1:]
    again = torch.is_grad_enabled()
    values, result = _evaluated_again(ctx)
    if not result.requires_grad:  # it does not depend on any operand that needs a gradient
        return [None] * len(values)
    wanted = [v for v, need in zip(values, needed, strict=True) if need]
    found: Gradients = [
        *torch.autograd.grad(result, wanted, upstream, create_graph=again, allow_unused=True)
    ]
    if again:
        found = [_differentiable(g, v) for g, v in zip(found, wanted, strict=True)]
    gradients = iter(found)
    return [next(gradients) if need else None for need in needed]


def _differentiable(gradient: torch.Tensor | None, operand: torch.Tensor) -> torch.Tensor | None:
    """A gradient that autograd differentiates, to zeros where it does not depend on the operand.

    The gradient of a loss that is linear in the operand is a constant, which has no derivative.
    """
    if gradient is None or gradient.requires_grad:
        return gradient
    return torch.where(torch.ones_like(operand, dtype=torch.bool), gradient, operand)


@with_gradients(True)
def _evaluated_again(ctx: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    # Views: one operand may be another one, or computed from it, and each has its own gradient.
    values = [v.view_as(v) for v in _saved(ctx)]
    return values, ctx.evaluator.by_tensor_operations(values)


def _without_search_for_transforms(function: Any) -> Callable[..., torch.Tensor]:
    """``function.apply`` for operands that no ``torch.func`` transform is tracking.

    ``Function.apply`` looks for such transforms, which takes longer than the rest of the call.
    :func:`are_plain` has already excluded them.
    """
    apply: Callable[..., torch.Tensor] = super(torch.autograd.Function, function).apply
    return apply


_recorded_sum = _without_search_for_transforms(_Sum)
_recorded_values = _without_search_for_transforms(_Values)
