"""Gradients whose slowly varying part is amplified."""

from functools import wraps
from typing import Any

from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import State, Transform, Update, lerp, where


def slow_part_amplified(update: Update) -> Update:
    """The update that sees the gradient and ``h.slow_gain`` times its mean."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if not h.slow_gain:
            return update(p, g, s, h)
        first = s.slow_gradients < 1
        s.slow_gradient = where(first, g, lerp(s.slow_gradient, g, 1 - h.slow_decay))
        s.slow_gradients = s.slow_gradients + 1
        return update(p, g + h.slow_gain * s.slow_gradient, s, h)

    return rule


def grokfast(gain: float = 2.0, decay: float = 0.98) -> Transform:
    """Add a multiple of the gradient's moving mean to it: what varies slowly counts for more.

    ::

        m <- g                              at the first update
        m <- decay * m + (1 - decay) * g    from then on
        g <- g + gain * m

    Args:
        gain: the paper's lambda, >= 0; 0 leaves no trace in the kernel. Option ``slow_gain``.
        decay: the paper's alpha, >= 0 and < 1. Option ``slow_decay``.

    States:
        slow_gradient: m, shape and dtype of the parameter.
        slow_gradients: updates so far, 0-d.

    Source: Lee et al., "Grokfast: Accelerated Grokking by Amplifying Slow Gradients", 2024,
    the variant with an exponential moving average (Grokfast-EMA).
    """
    return Transform(
        slow_part_amplified,
        states={"slow_gradient": State(), "slow_gradients": State(scalar=True)},
        options={"slow_gain": gain, "slow_decay": decay},
        ranges={"slow_gain": NON_NEGATIVE, "slow_decay": FRACTION},
        name="grokfast",
        every_row=True,
    )
