"""Gradients that are taken ahead of the weights, along the moving mean of their steps."""

from functools import wraps
from typing import Any

from thalweg.ranges import FRACTION, NON_NEGATIVE, POSITIVE, OrNone
from thalweg.rule import State, Transform, Update, lerp


def looking_ahead(update: Update) -> Update:
    """The update of weights that lie behind p, by a share of the moving mean of steps."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if not h.ahead:
            return update(p, g, s, h)
        weights = p - s.ahead_by * s.mean_step
        new = update(weights, g, s, h)
        s.mean_step = lerp(s.mean_step, new - weights, 1 - h.ahead_decay)
        schedule = 1.0 if h.ahead_peak_lr is None else h.lr / h.ahead_peak_lr
        s.ahead_by = h.ahead * schedule
        return new + s.ahead_by * s.mean_step

    return rule


def ema_nesterov(
    ahead: float = 1.0, decay: float = 0.99, peak_lr: float | None = None
) -> Transform:
    """Nesterov's look ahead, along a long moving mean of the steps.

    ::

        w = p - c * e                            the weights
        w' = the rule's update of w, with the gradient at p
        e <- decay * e + (1 - decay) * (w' - w)
        c <- ahead * lr / peak_lr                without peak_lr: ahead
        p <- w' + c * e                          where the next gradient is taken

    The parameters are the points ahead; the weights are ``p - state["ahead_by"] *
    state["mean_step"]``. With a schedule that ends at 0 the two meet there.

    Args:
        ahead: how many mean steps to look ahead, >= 0; 0 leaves no trace in the kernel.
        decay: of the moving mean, >= 0 and < 1. Option ``ahead_decay``.
        peak_lr: the largest lr of the schedule, > 0; None: c is constant. Option
            ``ahead_peak_lr``.

    States:
        mean_step: e, shape and dtype of the parameter.
        ahead_by: c, 0-d.

    Source: "EMA-Nesterov", 2026 (arXiv 2605.25395).
    """
    return Transform(
        looking_ahead,
        states={"mean_step": State(), "ahead_by": State(scalar=True)},
        options={"ahead": ahead, "ahead_decay": decay, "ahead_peak_lr": peak_lr},
        ranges={
            "ahead": NON_NEGATIVE,
            "ahead_decay": FRACTION,
            "ahead_peak_lr": OrNone(POSITIVE),
        },
        name="ema_nesterov",
        every_row="ahead",
    )
