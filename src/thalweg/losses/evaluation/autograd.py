"""The autograd functions of all losses."""

import math
from collections.abc import Callable
from typing import Any

import torch

from thalweg.losses.evaluation.evaluator import Evaluator, Gradients, Needed, Tensors
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
        ctx.evaluator = evaluator
        ctx.save_for_backward(*values)
        (total,), ctx.gradients = evaluator(values)
        return _number_like(values[0], total * evaluator.scale, evaluator.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, *_differentiable_gradients(ctx, upstream)
        gradients, ctx.gradients = ctx.gradients, None
        factor = upstream.item()
        if factor != 1.0 and ctx.evaluator.dtype is torch.float16:
            # A gradient scaler's factor lifts gradients into float16's range: multiply before
            # rounding.
            return None, *_gradients(ctx, SUM, **{FACTOR: ctx.evaluator.scale * factor})
        if gradients is None:  # returned before, and the caller may have changed them since
            gradients = _gradients(ctx, SUM)
        if factor != 1.0:
            gradients = [None if g is None else g.mul_(factor) for g in gradients]
        return None, *gradients


class _Values(torch.autograd.Function):
    """A loss's values."""

    @staticmethod
    def forward(ctx: Any, evaluator: Evaluator, *values: torch.Tensor) -> torch.Tensor:
        ctx.evaluator = evaluator
        ctx.save_for_backward(*values)
        result = evaluator.new_values(values)
        evaluator(values, result)
        return result

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, *_differentiable_gradients(ctx, upstream)
        return None, *_gradients(ctx, BACKWARD, upstream)


def _gradients(ctx: Any, kind: str, *upstream: torch.Tensor, **options: Any) -> Gradients:
    """The gradients, computed by a pass over the saved operands."""
    evaluator = ctx.evaluator.with_kind(kind, ctx.needs_input_grad[1:], **options)
    # A hook on saved tensors may have changed their layout.
    evaluator, values = evaluator.arranged([*ctx.saved_tensors])
    gradients: Gradients
    _, gradients = evaluator(values, *[evaluator.arranged_upstream(u, values) for u in upstream])
    return gradients


def _differentiable_gradients(ctx: Any, upstream: torch.Tensor) -> Gradients:
    """The gradients, computed by tensor operations that autograd can differentiate again."""
    needed = ctx.needs_input_grad[1:]
    # Views: one operand may be another one, or computed from it, and each has its own gradient.
    values = [v.view_as(v) for v in ctx.saved_tensors]
    result = ctx.evaluator.by_tensor_operations(values)
    if not result.requires_grad:  # it does not depend on any operand that needs a gradient
        return [None] * len(values)
    wanted = [v for v, need in zip(values, needed, strict=True) if need]
    found = iter(
        torch.autograd.grad(result, wanted, upstream, create_graph=True, allow_unused=True)
    )
    return [next(found) if need else None for need in needed]


def _without_search_for_transforms(function: Any) -> Callable[..., torch.Tensor]:
    """``function.apply`` for operands that no ``torch.func`` transform is tracking.

    ``Function.apply`` looks for such transforms, which takes longer than the rest of the call.
    :func:`have_kernel` has already excluded them.
    """
    apply: Callable[..., torch.Tensor] = super(torch.autograd.Function, function).apply
    return apply


_recorded_sum = _without_search_for_transforms(_Sum)
_recorded_values = _without_search_for_transforms(_Values)
