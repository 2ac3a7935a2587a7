"""Weight decay as the gradient of a penalty on the weights."""

from functools import wraps
from typing import Any

from thalweg.ranges import NON_NEGATIVE
from thalweg.rule import Transform, Update


def penalized(g: Any, p: Any, h: Any) -> Any:
    """The gradient g with that of the penalty, ``h.weight_decay`` · p."""
    return g + h.weight_decay * p if h.weight_decay else g


def l2_decaying(update: Update) -> Update:
    """The update that sees the penalty's gradient in g."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return update(p, penalized(g, p, h), s, h)

    return rule


def l2_decay(weight_decay: float = 0.0) -> Transform:
    """L2 regularization: the gradient of (weight_decay / 2) · ||p||^2 is added to g.

    ::

        g <- g + weight_decay * p

    Args:
        weight_decay: the strength, >= 0; 0 leaves no trace in the kernel.

    Source: Krogh and Hertz, "A Simple Weight Decay Can Improve Generalization", 1991.
    """
    return Transform(
        l2_decaying,
        options={"weight_decay": weight_decay},
        ranges={"weight_decay": NON_NEGATIVE},
        name="l2_decay",
        every_row="weight_decay",
    )
