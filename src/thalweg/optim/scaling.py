"""Scaled gradients, as ``GradScaler`` hands them to optimizers with ``fused=True``."""

from collections.abc import Sequence
from typing import Any

import torch


def unscale(owner: str, groups: Sequence[dict[str, Any]], scale: Any, found_inf: Any) -> bool:
    """Divide the gradients by their scale, in place as torch's fused kernels do.

    Args:
        owner: the optimizer's name.
        groups: its groups.
        scale: what the loss was multiplied by, a tensor of one element; None for 1.
        found_inf: a tensor of one element, not 0 where a gradient is not finite; None for 0.

    Returns:
        Whether the step is to be made; if not, nothing was changed.

    Raises:
        AssertionError: a group is without ``fused=True``, which torch asks for.
    """
    if not all(group.get("fused") for group in groups):
        raise AssertionError(
            f"{owner}: Expected grad_scale and found_inf to be None: they are for fused=True. Pass "
            "it, or call GradScaler.unscale_ before the step"
        )
    if found_inf is not None and float(found_inf) != 0:
        return False
    if scale is not None:
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        for g in {id(g): g for g in gradients}.values():
            g.detach().div_(torch.as_tensor(scale, device=g.device))
    return True
