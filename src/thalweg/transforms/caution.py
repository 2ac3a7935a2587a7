"""Updates and weight decay that act only where they agree with the gradient or the update."""

from typing import Any

from thalweg.ranges import NON_NEGATIVE, flag
from thalweg.rule import Transform, maximum, mean, where
from thalweg.transforms.around_update import AroundUpdate

# The least share of elements by which what is left is scaled up; the authors' own value.
LEAST_SHARE = 1e-3


def without_ascent(p: Any, u: Any, g: Any, s: Any, h: Any) -> Any:
    """p, and the elements of u that do not move along the gradient, scaled up."""
    descends = where(u * g < 0, 1.0, 0.0)
    return p + u * descends / maximum(mean(descends), LEAST_SHARE)


def cautious(cautious: bool = True) -> Transform:
    """Leave out the elements of the update that do not descend, and scale up the rest.

    ::

        u    = what the rule adds to p
        mask = 1 where u * g < 0, else 0
        p <- p + u * mask / max(mean(mask), 1e-3)

    with the mean over the tensor. Stands directly around the rule, inside of the optimizer's weight
    decay and ``maximize``: the decay is no part of u, and is not masked. Where all elements
    descend, the rule is as it was.

    Args:
        cautious: False leaves no trace in the kernel.

    Source: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code", 2024,
    Algorithm 1, with the bound of the authors' code.
    """
    return Transform(
        AroundUpdate("cautious", without_ascent),
        options={"cautious": flag("cautious", "cautious", cautious)},
        name="cautious",
        innermost=True,
    )


def decayed_along(p: Any, u: Any, g: Any, s: Any, h: Any) -> Any:
    """p + u, with weight decay where it moves p the same way as u."""
    return p + (u - where(u * p <= 0, h.lr * h.cautious_decay * p, 0.0))


def cautious_decay(weight_decay: float = 0.1) -> Transform:
    """Decoupled weight decay of the elements that the update moves towards zero, too.

    ::

        u = what the rule adds to p
        p <- p + u - lr * weight_decay * p * [u * p <= 0]

    It takes the place of the optimizer's own weight decay, which is to be 0; stands directly around
    the rule.

    Args:
        weight_decay: the strength, >= 0; 0 leaves no trace in the kernel. Option
            ``cautious_decay``. The optimizer needs an option ``lr``.

    Source: Chen et al., "Cautious Weight Decay", 2025, Algorithm 1.
    """
    return Transform(
        AroundUpdate("cautious_decay", decayed_along),
        options={"cautious_decay": weight_decay},
        ranges={"cautious_decay": NON_NEGATIVE},
        name="cautious_decay",
        every_row="cautious_decay",
        innermost=True,
    )
