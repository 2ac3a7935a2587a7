"""What is put back if taking a part over fails: code that is not ours may have changed anything."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from thalweg.engine.modes import with_gradients

Undo = Callable[[], None]
Dicts = list[tuple[dict[Any, Any], dict[Any, Any]]]  # one that is held, and what was in it

# Whose optimizers put new tensors in place of states that somebody else refers to.
_REPLACING = ("torch.optim", "thalweg.optim")


def optimizer_memory(optimizer: torch.optim.Optimizer) -> Undo:
    """Remember an optimizer with those that it wraps; call the result to put all of it back."""
    held = _with_wrapped(optimizer)
    attributes = [dict(vars(each)) for each in held]
    groups: Dicts = [(group, dict(group)) for each in held for group in each.param_groups]
    lists = [(each.param_groups, list(each.param_groups)) for each in held]
    states: Dicts = [(each.state, dict(each.state)) for each in held]
    entries: Dicts = [
        (e, dict(e)) for each in held for e in each.state.values() if isinstance(e, dict)
    ]
    # To hold the tensors is enough for these, and takes no memory.
    written = [
        (value, value.detach().clone())
        for each in held
        if not all(cls.__module__.startswith(_REPLACING) for cls in type(each).__mro__[:-1])
        for entry in each.state.values()
        if isinstance(entry, dict)
        for value in entry.values()
        if isinstance(value, Tensor)
    ]

    @with_gradients(False)
    def undo() -> None:
        for each, before in zip(held, attributes, strict=True):
            vars(each).clear()
            vars(each).update(before)
            vars(each).pop("_engine_", None)  # which the next step makes
        for now, was in (*groups, *states, *entries):
            now.clear()
            now.update(was)
        for those, were in lists:
            those[:] = were
        for tensor, values in written:
            tensor.copy_(values)

    return undo


def _with_wrapped(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """An optimizer and all that it holds, however deep."""
    found: list[torch.optim.Optimizer] = []
    left = [optimizer]
    while left:
        each = left.pop()
        if not any(each is other for other in found):
            found.append(each)
            left += [v for v in vars(each).values() if isinstance(v, torch.optim.Optimizer)]
    return found


def object_memory(part: Any) -> Undo:
    """Remember an object by its attributes and its state dict."""
    before = deepcopy(part.state_dict())
    attributes = dict(getattr(part, "__dict__", {}))

    def undo() -> None:
        # torch's schedulers take any entry for an attribute, also one that no state dict has.
        if hasattr(part, "__dict__"):
            vars(part).clear()
            vars(part).update(attributes)
        part.load_state_dict(before)

    return undo
