"""Updates and weight decay that act only where they agree with the gradient or the update."""

from functools import wraps
from typing import Any

from thalweg.ranges import NON_NEGATIVE, flag
from thalweg.rule import Transform, Update, maximum, mean, where
from thalweg.rule.update import followed, update_of

# The least share of elements by which what is left is scaled up; the authors' own value.
LEAST_SHARE = 1e-3


def cautious_updating(update: Update) -> Update:
    """The update without the elements that would move along the gradient."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if not h.cautious:
            return update(p, g, s, h)
        p = followed(p)
        u = update_of(update(p, g, s, h), p)
        descends = where(u * g < 0, 1.0, 0.0)
        return p + u * descends / maximum(mean(descends), LEAST_SHARE)

    return rule


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
        cautious_updating,
        options={"cautious": flag("cautious", "cautious", cautious)},
        name="cautious",
        innermost=True,
    )


def cautiously_decaying(update: Update) -> Update:
    """The update, and weight decay where it moves p the same way."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if not h.cautious_decay:
            return update(p, g, s, h)
        p = followed(p)
        u = update_of(update(p, g, s, h), p)
        return p + (u - where(u * p <= 0, h.lr * h.cautious_decay * p, 0.0))

    return rule


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
        cautiously_decaying,
        options={"cautious_decay": weight_decay},
        ranges={"cautious_decay": NON_NEGATIVE},
        name="cautious_decay",
        every_row="cautious_decay",
        innermost=True,
    )
