"""Gradients that are clipped by what their norm has been, instead of a limit that one sets."""

from functools import wraps
from typing import Any

from thalweg.ranges import FRACTION, POSITIVE
from thalweg.rule import State, Transform, Update, exp, minimum, norm, where
from thalweg.transforms.clipping import TINY, offer_clipped


def quantile_clipping(update: Update) -> Update:
    """The update that sees a gradient no longer than a quantile of the norms so far."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if not h.clip_quantile:
            return update(p, g, s, h)
        total = norm(g, over="all")
        before = s.norm_quantile
        limit = where(before > 0, before, total)  # the first norm is taken as it is
        # Up by a share of clip_quantile, down by the rest: balanced where so many norms lie below.
        towards = h.clip_quantile - where(total <= limit, 1.0, 0.0)
        # No finite norm has no place among the others.
        s.norm_quantile = where(total < float("inf"), limit * exp(h.clip_rate * towards), before)
        factor = minimum(limit / (total + TINY), 1.0)
        offer_clipped(g, factor < 1)
        return update(p, g * factor, s, h)

    return rule


def clip_by_quantile(quantile: float = 0.9, rate: float = 0.05) -> Transform:
    """Clip gradients by a quantile of the norms that they have had, within the step.

    ::

        total = sqrt(sum of g * g over all gradients)
        q     = total                                               at the first step
        g <- g * min(q / (total + 1e-6), 1)
        q <- q * exp(rate * (quantile - (1 if total <= q else 0)))

    q settles where a share ``quantile`` of the norms lies below it, and follows them as they
    change: in 1 / rate steps by a factor of exp(quantile) upwards, exp(1 - quantile) downwards. No
    norms are kept but q. A gradient with NaN or inf becomes NaN, as with ``clip_by_norm``, and
    leaves q as it is; ``nonfinite=`` of the optimizer decides about the step.

    Args:
        quantile: the share of steps that are not clipped, >= 0 and < 1; 0 leaves no trace in the
            kernel. Option ``clip_quantile``.
        rate: how far a step moves log(q), > 0. Option ``clip_rate``.

    States:
        norm_quantile: q, 0-d; 0 before a parameter's first update. Each parameter has its own,
            equal for those that had all updates.

    Source: clipping by a quantile of the norms: Seetharaman et al., "AutoClip: Adaptive Gradient
    Clipping for Source Separation Networks", 2020, there of all norms so far; the quantile by
    stochastic approximation: Robbins and Monro, "A Stochastic Approximation Method", 1951, here of
    log(q), which keeps it above 0.
    """
    return Transform(
        quantile_clipping,
        states={"norm_quantile": State(scalar=True)},
        options={"clip_quantile": quantile, "clip_rate": rate},
        ranges={"clip_quantile": FRACTION, "clip_rate": POSITIVE},
        name="clip_by_quantile",
    )
