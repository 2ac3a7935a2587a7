"""Gradients that are clipped in the step, each element or all by their norm."""

import math
from collections.abc import Mapping
from functools import wraps
from typing import Any

from torch.nn.parameter import is_lazy

from thalweg.ranges import NON_NEGATIVE, one_of
from thalweg.rule import (
    Transform,
    Update,
    clip,
    maximum,
    minimum,
    norm,
    offer,
    offered,
    where,
)

SCOPES = ("all", "group", "tensor", "row")
# What torch.nn.utils.clip_grad_norm_ adds to the norm before it divides by it.
TINY = 1e-6


def norm_clipping(update: Update) -> Update:
    """The update that sees a gradient of norm ``h.max_norm`` at most."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if h.max_norm == math.inf:
            return update(p, g, s, h)
        over = "unit" if h.max_norm_over == "row" else h.max_norm_over
        factor = minimum(h.max_norm / (norm(g, over) + TINY), 1.0)
        offer_clipped(g, factor < 1)
        return update(p, g * factor, s, h)

    return rule


def offer_clipped(g: Any, changed: Any) -> None:
    """Let elements be counted that a clip has changed, this one or one around it."""
    offer("clipped", maximum(offered("clipped", g), where(changed, 1.0, 0.0)))


def _check_scope(owner: str, options: Mapping[str, Any]) -> None:
    one_of(owner, "max_norm_over", options.get("max_norm_over"), SCOPES)
    if options["max_norm_over"] != "row" or options.get("max_norm") == math.inf:
        return
    for k, p in enumerate(options.get("params", ())):
        if is_lazy(p):
            raise ValueError(
                f'{owner}: max_norm_over="row" needs the shapes of the parameters, and parameter '
                f"{k} of the group has none yet; run the model once before"
            )
        if p.ndim < 2:
            raise ValueError(
                f'{owner}: max_norm_over="row" is for parameters of two dimensions or more, and '
                f"parameter {k} of the group has shape {tuple(p.shape)}; put vectors into a group "
                'of their own with max_norm_over="tensor"'
            )


def clip_by_norm(max_norm: float = 1.0, over: str = "all") -> Transform:
    """Clip gradients by their Euclidean norm, within the step.

    ::

        total = sqrt(sum of g * g over all gradients, the group's, the tensor's, or the row's)
        g <- g * min(max_norm / (total + 1e-6), 1)

    The same as ``torch.nn.utils.clip_grad_norm_`` before the step, but ``p.grad`` stays as it is,
    the norm is summed up in float64, and the scaled gradient is never stored. The gradients are
    read once for the norm, and once more by the update.

    With a NaN among the gradients all of them become NaN, with an infinite one that one does and
    the others 0, as torch has it.

    Args:
        max_norm: the largest norm, >= 0. A group with ``inf`` is not clipped, and takes no part in
            the norm of the others.
        over: "all": the norm of all gradients of the optimizer, in whichever group; "group": of
            those of each parameter group; "tensor": of each gradient by itself; "row": of what
            belongs to one index of the first dimension (a row of a matrix, a filter of a
            convolution). Option ``max_norm_over``.

    Raises:
        ValueError: ``over`` is none of them, or "row", and a parameter is a vector or has no shape
            yet.

    Source: Pascanu, Mikolov and Bengio, "On the Difficulty of Training Recurrent Neural Networks",
    2013, Algorithm 1.
    """
    one_of("clip_by_norm", "over", over, SCOPES)
    return Transform(
        norm_clipping,
        options={"max_norm": max_norm, "max_norm_over": over},
        ranges={"max_norm": NON_NEGATIVE},
        name="clip_by_norm",
        check=_check_scope,
    )


def value_clipping(update: Update) -> Update:
    """The update that sees elements of the gradient of size ``h.max_value`` at most."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if h.max_value == math.inf:
            return update(p, g, s, h)
        offer_clipped(g, abs(g) > h.max_value)
        return update(p, clip(g, -h.max_value, h.max_value), s, h)

    return rule


def clip_by_value(max_value: float = 1.0) -> Transform:
    """Clip each element of the gradient, within the step: ``g <- min(max(g, -c), c)``.

    The same as ``torch.nn.utils.clip_grad_value_`` before the step, but ``p.grad`` stays as it is.
    NaN stays NaN.

    Args:
        max_value: c, the largest size of an element, >= 0; ``inf`` leaves no trace in the kernel.

    Source: Mikolov, "Statistical Language Models Based on Neural Networks", 2012.
    """
    return Transform(
        value_clipping,
        options={"max_value": max_value},
        ranges={"max_value": NON_NEGATIVE},
        name="clip_by_value",
    )
