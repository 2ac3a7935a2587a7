"""Gradients that are clipped by the norm of the weights that they belong to."""

from functools import wraps
from typing import Any

from thalweg.ranges import NON_NEGATIVE, POSITIVE
from thalweg.rule import Transform, Update, maximum, norm, where
from thalweg.transforms.clipping import offer_clipped

# What the authors' code takes for the norm of a smaller gradient, so that it divides by no 0.
LEAST_NORM = 1e-6


def clipping_by_weights(update: Update) -> Update:
    """The update that sees gradients no longer than a share of their weights, unit by unit."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if not h.clip_ratio:
            return update(p, g, s, h)
        limit = maximum(norm(p, "unit"), h.clip_eps) * h.clip_ratio
        length = norm(g, "unit")
        longer = ~(length < limit)
        offer_clipped(g, longer)
        factor = where(longer, limit / maximum(length, LEAST_NORM), 1.0)
        return update(p, g * factor, s, h)

    return rule


def adaptive_clipping(ratio: float = 0.01, eps: float = 1e-3) -> Transform:
    """Clip the gradient of each unit to a share of the norm of its weights (AGC).

    ::

        for each unit i, the weights p[i] of one output:
            limit = ratio * max(||p[i]||, eps)
            g[i] <- g[i] * limit / max(||g[i]||, 1e-6)    where ||g[i]|| >= limit

    A unit is a row of a matrix, a filter of a convolution. A vector is one unit; the authors leave
    out the last layer: give its group ``clip_ratio=0``.

    Args:
        ratio: the share, >= 0; 0 leaves no trace in the kernel. Option ``clip_ratio``.
        eps: the least norm of weights, so that those of 0 can move, > 0. Option ``clip_eps``.

    Source: Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization",
    2021, equation 3, with the bounds of the authors' code.
    """
    return Transform(
        clipping_by_weights,
        options={"clip_ratio": ratio, "clip_eps": eps},
        ranges={"clip_ratio": NON_NEGATIVE, "clip_eps": POSITIVE},
        name="adaptive_clipping",
    )
