"""What a part of a checkpoint is: its data, and how that is checked and taken over.

Taking over has two kinds. What was checked to the end cannot fail (:class:`Pending` without
``undo``). Code that is not ours may still raise: it goes first, and what it changed is put back.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.checkpoint.header import DATA, GENERATOR, MODULE, OBJECT, OPTIMIZER
from thalweg.checkpoint.module import prepare_module
from thalweg.checkpoint.undoing import object_memory, optimizer_memory
from thalweg.engine.copying import deep_copy
from thalweg.optim import Optimizer, state_dict
from thalweg.optim.state_dict import Pending
from thalweg.optim.state_dict.form import own_names
from thalweg.optim.state_dict.owner import checks_states

Rename = state_dict.Rename


def kind_of(part: Any) -> str:
    """What a part is; see :data:`thalweg.checkpoint.header.KINDS`."""
    if isinstance(part, nn.Module):
        return MODULE
    if isinstance(part, torch.optim.Optimizer):
        return OPTIMIZER
    if isinstance(part, torch.Generator):
        return GENERATOR
    own = (getattr(part, name, None) for name in ("state_dict", "load_state_dict"))
    return OBJECT if all(map(callable, own)) and not isinstance(part, type) else DATA


def data_of(part: Any, parts: Mapping[str, Any]) -> Any:
    """The data of a part; its tensors are the part's own, not copies.

    Args:
        part: the part.
        parts: all of them: the modules among them give the parameters their names.
    """
    kind = kind_of(part)
    if kind == OPTIMIZER:
        return state_dict.packed(part, names_of(part, parts))
    if kind == GENERATOR:
        return part.get_state()
    return part if kind == DATA else part.state_dict()


def names_of(optimizer: torch.optim.Optimizer, parts: Mapping[str, Any]) -> list[str] | None:
    """The names of an optimizer's parameters in the first module that holds all of them."""
    found = (
        state_dict.names_in(part, optimizer)
        for part in parts.values()
        if isinstance(part, nn.Module)
    )
    return next((names for names in found if names is not None), None)


def prepare(
    part: Any, data: Any, parts: Mapping[str, Any], strict: bool, rename: Rename | None
) -> Pending:
    """Check what a file holds for a part, and make it ready. Nothing changes yet.

    Args:
        part: an object whose data can be taken over.
        data: from the file; tensors may be views of it.
        parts: all of them.
        strict: raise where something does not fit.
        rename: from names in the file to names here.

    Raises:
        TypeError, ValueError: it does not fit an optimizer, or a generator.
        RuntimeError: it does not fit a module, as torch has it.
    """
    kind = kind_of(part)
    if kind == MODULE:
        return prepare_module(part, data, strict, _for(data, rename))
    if kind == OPTIMIZER:
        return _prepare_optimizer(part, data, names_of(part, parts), strict, rename)
    return (_prepare_generator if kind == GENERATOR else _prepare_object)(part, data)


def _prepare_optimizer(
    optimizer: torch.optim.Optimizer,
    data: Any,
    names: list[str] | None,
    strict: bool,
    rename: Rename | None,
) -> Pending:
    # A class may have a method of its own that takes over more than states and groups.
    own_method: Any = type(optimizer).load_state_dict
    whole = own_method is not Optimizer.load_state_dict
    if whole or not hasattr(optimizer, "rule"):
        data = deep_copy(data)  # it may keep what it is given
    by_name = names is not None or own_names(optimizer) is not None
    pending = state_dict.prepare(
        optimizer, data, strict=strict, names=names, rename=_for(data, rename) if by_name else None,
        whole=whole,
    )  # fmt: skip
    if whole or not checks_states(optimizer):
        pending.undo = optimizer_memory(optimizer)
    return pending


def known_names(data: Any) -> set[str]:
    """The parameters' names in a state dict of an optimizer or a module."""
    if not isinstance(data, Mapping):
        return set()
    groups = data.get("param_groups")
    if not isinstance(groups, list):
        return {name for name in data if isinstance(name, str)}
    lists = (g.get("param_names", g.get("params")) for g in groups if isinstance(g, Mapping))
    return {
        name for each in lists if isinstance(each, list) for name in each if isinstance(name, str)
    }


def _for(data: Any, rename: Rename | None) -> Rename | None:
    """What of ``rename`` concerns a part: several parts share it."""
    known = known_names(data)
    if not isinstance(rename, Mapping):
        return rename if known else None
    return {old: new for old, new in rename.items() if old in known} or None


def _prepare_generator(generator: torch.Generator, data: Any) -> Pending:
    if not isinstance(data, Tensor):
        raise TypeError(f"a generator's state must be a tensor, got {type(data).__name__}")
    state = data.clone()
    try:
        torch.Generator(generator.device).set_state(state)  # on one that nobody uses
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"it is no state of a generator on {generator.device}: {error}") from error
    return Pending(lambda: _set(generator, state))


def _set(generator: torch.Generator, state: Tensor) -> None:
    generator.set_state(state)


def _prepare_object(part: Any, data: Any) -> Pending:
    """Schedulers and whatever else has ``state_dict`` and ``load_state_dict``."""
    own = deep_copy(data)
    return Pending(lambda: part.load_state_dict(own), object_memory(part))
