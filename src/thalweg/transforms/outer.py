"""An outer step with momentum along what several inner updates did together."""

from functools import wraps
from typing import Any

from thalweg.ranges import AT_LEAST_ONE, FRACTION, NON_NEGATIVE, integer
from thalweg.rule import State, Transform, Update, maximum, where


def with_outer_step(update: Update) -> Update:
    """The update that goes on from the outer weights every ``h.outer_every`` updates."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        new = update(p, g, s, h)
        inner = s.outer_steps
        outer = where(inner < 0, p, s.outer_weights)
        inner = maximum(inner, 0.0) + 1
        # A condition in the kernel: as a switch, it would mean two plans every k updates.
        due = inner >= h.outer_every
        moved = outer - new
        momentum = h.outer_momentum * s.outer_buffer + moved
        ahead = outer - h.outer_lr * (moved + h.outer_momentum * momentum)
        s.outer_buffer = where(due, momentum, s.outer_buffer)
        s.outer_weights = where(due, ahead, outer)
        s.outer_steps = where(due, 0.0, inner)
        return where(due, ahead, new)

    return rule


def outer_nesterov(every: int = 30, lr: float = 0.7, momentum: float = 0.5) -> Transform:
    """Take the sum of k updates for a gradient, and follow it with Nesterov's momentum.

    ::

        outer <- p                              before the first update
        every k updates:
            d     <- outer - p
            b     <- momentum * b + d
            outer <- outer - lr * (d + momentum * b)
            p     <- outer

    With ``lr=1`` and ``momentum=0`` the inner optimizer is left as it is.

    Args:
        every: k, the inner updates between, >= 1. Option ``outer_every``.
        lr: the outer learning rate, >= 0. Option ``outer_lr``.
        momentum: of the outer steps, >= 0 and < 1. Option ``outer_momentum``.

    States:
        outer_weights, outer_buffer: outer and b, shape and dtype of the parameter.
        outer_steps: updates since the last outer step, 0-d; -1 before the first.

    Raises:
        TypeError: ``every`` is no integer.

    Source: Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models",
    2023, Algorithm 1, with one worker.
    """
    return Transform(
        with_outer_step,
        states={
            "outer_weights": State(),
            "outer_buffer": State(),
            "outer_steps": State(-1.0, scalar=True),
        },
        options={
            "outer_every": integer("outer_nesterov", "every", every),
            "outer_lr": lr,
            "outer_momentum": momentum,
        },
        ranges={
            "outer_every": AT_LEAST_ONE,
            "outer_lr": NON_NEGATIVE,
            "outer_momentum": FRACTION,
        },
        name="outer_nesterov",
        every_row=True,
    )
