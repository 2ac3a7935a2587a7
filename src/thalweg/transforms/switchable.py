"""Weight decay of either kind."""

from functools import wraps
from typing import Any

from thalweg.ranges import NON_NEGATIVE
from thalweg.rule import Transform, Update
from thalweg.transforms.decoupled import shrunk
from thalweg.transforms.l2 import penalized


def switchably_decaying(update: Update) -> Update:
    """Decoupled weight decay where ``h.decoupled_weight_decay`` is set, L2 elsewhere."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        # One call for both kinds: a sum over all tensors is known by the place that asks for it.
        if h.decoupled_weight_decay:
            p = shrunk(p, h)
        else:
            g = penalized(g, p, h)
        return update(p, g, s, h)

    return rule


def switchable_decay(weight_decay: float = 0.0, decoupled_weight_decay: bool = False) -> Transform:
    """Weight decay of a kind that an option chooses, as Adam, NAdam and RAdam have it.

    Args:
        weight_decay: the strength, >= 0; 0 leaves no trace in the kernel.
        decoupled_weight_decay: True for that of :func:`decoupled_decay`, False for that of
            :func:`l2_decay`.
    """
    return Transform(
        switchably_decaying,
        options={
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        },
        ranges={"weight_decay": NON_NEGATIVE},
        name="switchable_decay",
        every_row="weight_decay",
    )
