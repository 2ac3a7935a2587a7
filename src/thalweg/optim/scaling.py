"""Scaled gradients, as ``GradScaler`` hands them to optimizers with ``fused=True``."""

from functools import wraps
from typing import Any, NamedTuple

from thalweg.rule import State, Transform, Update
from thalweg.rule.program import number

SCALE = "grad_scale"


def unscaling(update: Update) -> Update:
    """The update that sees the gradient divided by the scale."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return update(p, g / s.grad_scale, s, h)

    return rule


UNSCALED = Transform(
    unscaling, states={SCALE: State(1.0, scalar=True, given=True)}, name="unscaled"
)


class Scaled(NamedTuple):
    """What a scaler has found out about this step's gradients.

    Attributes:
        scale: what the loss was multiplied by.
        finite: whether all gradients are; if not, the step is left out.
    """

    scale: float
    finite: bool


def handed_over(optimizer: Any) -> Scaled | None:
    """What a scaler has set as the optimizer's ``grad_scale`` and ``found_inf``; None: nothing.

    Raises:
        AssertionError: a group is without ``fused=True``, which torch asks for.
    """
    own = optimizer.__dict__
    scale, found_inf = own.get("grad_scale"), own.get("found_inf")
    if (scale is None and found_inf is None) or "fused" not in optimizer.defaults:
        return None
    if not all(group.get("fused") for group in optimizer.param_groups):
        raise AssertionError(
            f"{type(optimizer).__name__}: Expected grad_scale and found_inf to be None: they are "
            "for fused=True. Pass it, or call GradScaler.unscale_ before the step"
        )
    return Scaled(
        1.0 if scale is None else number(scale), found_inf is None or number(found_inf) == 0
    )
