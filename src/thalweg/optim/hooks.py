"""A step with what others have attached to it: hooks, and its name in the profiler."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from thalweg.engine.torch_internals.modes import profiled


def is_observed(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step has hooks or is profiled."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
        or profiled()
    )


def observed_step(
    optimizer: torch.optim.Optimizer, step: Callable[[Any], Any], closure: Any
) -> Any:
    """Make a step with its hooks, under its name in the profiler.

    Args:
        optimizer: whose hooks.
        step: what makes the step, given a closure or None.
        closure: of the user, which a hook may replace.

    Raises:
        RuntimeError: a hook returns neither None nor new arguments.
    """
    args: tuple[Any, ...] = (optimizer,) if closure is None else (optimizer, closure)
    kwargs: dict[str, Any] = {}
    name = f"Optimizer.step#{type(optimizer).__name__}.step"
    with torch.autograd.profiler.record_function(name):
        for before in (
            *_global_optimizer_pre_hooks.values(),
            *optimizer._optimizer_step_pre_hooks.values(),
        ):
            changed = before(optimizer, args, kwargs)
            if changed is None:
                continue
            if not (isinstance(changed, tuple) and len(changed) == 2):
                raise RuntimeError(
                    f"{before} must return None or a tuple of (new_args, new_kwargs), got "
                    f"{changed!r}"
                )
            args, kwargs = changed
        result = step(args[1] if len(args) > 1 else kwargs.get("closure"))
        for after in (
            *optimizer._optimizer_step_post_hooks.values(),
            *_global_optimizer_post_hooks.values(),
        ):
            after(optimizer, args, kwargs)
    return result
