"""Weight decay that acts on the weights themselves."""

from functools import wraps
from typing import Any

from thalweg.ranges import NON_NEGATIVE
from thalweg.rule import Transform, Update


def shrunk(p: Any, h: Any) -> Any:
    """p · (1 - ``h.lr`` · ``h.weight_decay``)."""
    return p * (1 - h.lr * h.weight_decay) if h.weight_decay else p


def decoupled_decaying(update: Update) -> Update:
    """The update of a p that was shrunk before."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return update(shrunk(p, h), g, s, h)

    return rule


def decoupled_decay(weight_decay: float = 1e-2) -> Transform:
    """Decoupled weight decay: p shrinks before the update, which does not see it in g.

    ::

        p <- p * (1 - lr * weight_decay)

    Args:
        weight_decay: the share of p, times lr, that is taken off at each step, >= 0; 0 leaves no
            trace in the kernel. The optimizer needs an option ``lr``.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, Algorithm 2, with
    the schedule multiplier in lr.
    """
    return Transform(
        decoupled_decaying,
        options={"weight_decay": weight_decay},
        ranges={"weight_decay": NON_NEGATIVE},
        name="decoupled_decay",
        every_row="weight_decay",
    )
