"""Weights that follow the optimizer's own from behind, and now and then take them back."""

from functools import wraps
from typing import Any

from thalweg.ranges import AT_LEAST_ONE, UNIT_INTERVAL, integer
from thalweg.rule import State, Transform, Update, maximum, where


def looking_ahead(update: Update) -> Update:
    """The update that returns to the slow weights every ``h.lookahead_every`` updates."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        new = update(p, g, s, h)
        ahead = s.lookahead_steps
        slow = where(ahead < 0, p, s.slow_weights)
        ahead = maximum(ahead, 0.0) + 1
        # A condition in the kernel: as a switch, it would mean two plans every k updates.
        due = ahead >= h.lookahead_every
        slow = where(due, slow + h.lookahead_share * (new - slow), slow)
        s.slow_weights, s.lookahead_steps = slow, where(due, 0.0, ahead)
        return where(due, slow, new)

    return rule


def lookahead(every: int = 5, share: float = 0.5) -> Transform:
    """Let slow weights follow the optimizer's, and begin from them anew every k updates.

    ::

        slow <- p                        before the first update
        every k updates:
            slow <- slow + share * (p - slow)
            p    <- slow

    Args:
        every: k, the updates between, >= 1. Option ``lookahead_every``.
        share: how far the slow weights go, in [0, 1]. Option ``lookahead_share``.

    States:
        slow_weights: shape and dtype of the parameter.
        lookahead_steps: updates since the slow weights last moved, 0-d; -1 before the first.

    Raises:
        TypeError: ``every`` is no integer.

    Source: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019, Algorithm 1.
    """
    return Transform(
        looking_ahead,
        states={"slow_weights": State(), "lookahead_steps": State(-1.0, scalar=True)},
        options={"lookahead_every": integer("lookahead", "every", every), "lookahead_share": share},
        ranges={"lookahead_every": AT_LEAST_ONE, "lookahead_share": UNIT_INTERVAL},
        name="lookahead",
        every_row=True,
    )
