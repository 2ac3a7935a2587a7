"""Whether the values of a state dict fit an optimizer that is given by a rule; nothing changes."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from thalweg.engine.copying import deep_copy
from thalweg.engine.layout import PLAIN_TENSORS
from thalweg.engine.readable import unreadable
from thalweg.names import slip_for
from thalweg.optim.state_dict.form import Saved
from thalweg.optim.state_dict.matching import Match, Place
from thalweg.optim.state_dict.owner import Owner
from thalweg.optim.state_dict.report import Misshaped
from thalweg.rule import State


@dataclass(frozen=True)
class Wanted:
    """A state tensor that a parameter shall have: these values in this dtype, in its layout."""

    values: torch.Tensor
    dtype: torch.dtype


Entry = dict[str, Any]  # states by name: each a Wanted, or what it shall be


@dataclass
class Misfits:
    """What does not fit, gathered so that one message can name all of it.

    Attributes:
        shapes: parameters and states of another shape.
        dropped: states that are of no use without what is missing, and what happens instead.
        idle: states that only other optimizers use.
        wrong: what can never be loaded.
    """

    shapes: list[Misshaped] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def checked_states(
    optimizer: Owner,
    saved: Saved,
    matched: Match,
    groups: Sequence[Mapping[str, Any]],
    misfits: Misfits,
) -> dict[torch.Tensor, Entry]:
    """The states of each parameter that has some in the state dict and fits."""
    entries: dict[torch.Tensor, Entry] = {}
    for place in with_state(saved, matched):
        group = groups[place.group]
        entry = checked_entry(optimizer, place, group, saved.state[place.key], misfits)
        if entry is not None:
            entries[place.param] = entry
    if misfits.idle and not misfits.wrong:
        warnings.warn(
            f"{type(optimizer).__name__}: the state dict has {', '.join(map(repr, misfits.idle))}, "
            "as other optimizers have; here nothing uses it, and it is kept",
            UserWarning,
            stacklevel=4,
        )
    return entries


def with_state(saved: Saved, matched: Match) -> Iterator[Place]:
    """The parameters of the right shape that have an entry, in the order of these."""
    misshaped = {each.name for each in matched.misshaped}
    places = {place.key: place for place in matched.places}
    for key in saved.state:
        if key in places and places[key].label not in misshaped:
            yield places[key]


def check_torchs_states(
    optimizer: torch.optim.Optimizer, saved: Saved, matched: Match, misfits: Misfits
) -> None:
    """Note the states that cannot be read or have another shape: torch takes any.

    Shapes only where it is known that states have their parameter's shape: of the classes that have
    a counterpart here which is given by a rule.
    """
    from thalweg import optim  # which stands above this

    for place in with_state(saved, matched):
        misfits.wrong += unreadable_in(
            saved.state[place.key], place.param, f"{place.label}: the state"
        )
    name = type(optimizer).__name__
    has_rule = hasattr(getattr(optim, name, None), "rule")
    if getattr(torch.optim, name, None) is not type(optimizer) or not has_rule:
        return
    for place in with_state(saved, matched):
        entry = saved.state[place.key]
        for key, value in entry.items() if isinstance(entry, Mapping) else ():
            own = tuple(place.param.shape)
            if isinstance(value, torch.Tensor) and value.numel() != 1 and value.shape != own:
                misfits.shapes.append(Misshaped(place.label, key, tuple(value.shape), own))


def checked_entry(
    optimizer: Owner, place: Place, group: Mapping[str, Any], entry: Any, misfits: Misfits
) -> Entry | None:
    """The states of one parameter; None, and a note in ``misfits``, where they do not fit it."""
    if not isinstance(entry, Mapping):
        misfits.wrong.append(f"{place.label}: its state must be a dict, got {type(entry).__name__}")
        return None
    # torch's SGD saves momentum_buffer as None where it has none yet.
    present = {key: value for key, value in entry.items() if value is not None}
    if not present:
        return {}
    needed, known = state_names(optimizer, group, present)
    rule = optimizer.composed_rule
    kept = {key: value for key, value in present.items() if key not in known}
    wrong = [
        f"{place.label}: the state dict has {key!r}, which is no state of this optimizer "
        f"({', '.join(known)}); did you mean {meant}?"
        for key in kept
        if (meant := slip_for(str(key), known))
    ]
    for key, value in kept.items():
        wrong += unreadable_in(value, place.param, f"{place.label}: state {key!r}")
    misfits.idle += [key for key in kept if key in _states_of_all() and key not in misfits.idle]
    wrong += [
        f"{place.label}: the state dict lacks the state {key!r}"
        for key in needed
        if key not in present
    ]
    found: Entry = {}
    shapes = []
    for key, value in present.items():
        if key in kept:
            found[key] = None if wrong else _own(value, place.param)
            continue
        if key not in rule.tensor_states:
            found[key], problem = _number(key, value)
        elif isinstance(value, torch.Tensor) and value.shape != place.param.shape:
            own = tuple(place.param.shape)
            shapes.append(Misshaped(place.label, key, tuple(value.shape), own))
            continue
        else:
            found[key], problem = _wanted(rule.states[key], place.param, group, value)
        if problem:
            wrong.append(f"{place.label}: state {key!r} {problem}")
    misfits.shapes += shapes
    misfits.wrong += wrong
    return None if shapes or wrong else found


def _own(value: Any, p: torch.Tensor) -> Any:
    """A copy of what a program keeps among a parameter's states; tensors are widened as states."""
    if isinstance(value, torch.Tensor):
        inexact = value.is_floating_point() or value.is_complex()
        wide = torch.promote_types(value.dtype, p.dtype) if inexact else value.dtype
        return deep_copy(value).to(p.device, wide)
    if isinstance(value, dict):
        return {key: _own(item, p) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_own(item, p) for item in value)
    return deepcopy(value)


@cache
def _states_of_all() -> frozenset[str]:
    """The names of the states of all optimizers that are given by a rule."""
    from thalweg.optim.catalogue import classes  # which stands above this

    rules = (getattr(each, "rule", None) for each in classes().values())
    return frozenset(name for rule in rules if rule is not None for name in rule.states)


def state_names(
    optimizer: Owner, options: Mapping[str, Any], present: Mapping[str, Any]
) -> tuple[Sequence[str], Sequence[str]]:
    """The states that an updated parameter must have with these options, and all it may.

    Args:
        optimizer: whose rule.
        options: the parameter's group's options.
        present: the states that it has. Without any of an added transform's it need have none of
            them: the transform may have been added after its last update.
    """
    rule = optimizer.composed_rule
    count = ["step"] if rule.counted else []
    all_states = [*rule.scalar_states, *rule.tensor_states]
    first = [1.0, *(rule.states[name].initial_value(options) for name in rule.scalar_states)]
    used = {*rule.scalar_states, *rule.program(options, first).states}
    for each in optimizer.added_transforms:
        if present.keys().isdisjoint(each.states):
            used.difference_update(each.states)
    needed = [
        name
        for name in all_states
        if (name in used if (begun := rule.states[name].begun) is None else begun(present))
    ]
    return [*count, *needed], [*count, *all_states]


def is_number(value: Any) -> bool:
    """Whether it is one number, or a tensor that holds one; infinities and NaN are."""
    if isinstance(value, str) or (isinstance(value, torch.Tensor) and unreadable(value)):
        return False
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


def _number(key: str, value: Any) -> tuple[Any, str]:
    if not is_number(value):
        return None, f"must be one number, got {value!r:.200}"
    number = float(value)
    if key == "step" and not (number >= 0 and math.isfinite(number)):
        return None, f"must be a number of updates, finite and >= 0, got {number}"
    return torch.tensor(number, dtype=torch.float64, device="cpu"), ""


def _wanted(state: State, p: torch.Tensor, group: Mapping[str, Any], value: Any) -> tuple[Any, str]:
    if not isinstance(value, torch.Tensor):
        return None, f"must be a tensor, got {type(value).__name__}"
    if (problem := unfit(value, p)) is not None:
        return None, problem
    if not (value.is_floating_point() or value.is_complex()) or (
        value.is_complex() and not p.is_complex()
    ):
        return None, f"is {value.dtype}, the parameter {p.dtype}"
    asked = state.stored_dtype(group, p.dtype)
    return Wanted(value, asked or torch.promote_types(value.dtype, p.dtype)), ""


def unfit(value: torch.Tensor, p: torch.Tensor) -> str | None:
    """Why a tensor's numbers cannot become a state of a parameter; None if they can."""
    kinds = {torch.Tensor if type(x) in PLAIN_TENSORS else type(x) for x in (value, p)}
    alike = len(kinds) == 1 and value.is_meta == p.is_meta
    # Where the parameter has no numbers itself, none are read.
    return None if alike and (p.is_meta or type(p) not in PLAIN_TENSORS) else unreadable(value)


def unreadable_in(data: Any, p: torch.Tensor, place: str) -> Iterator[str]:
    """What is wrong with the tensors of nested data that belongs to a parameter."""
    if isinstance(data, torch.Tensor):
        if (problem := unfit(data, p)) is not None:
            yield f"{place} {problem}"
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from unreadable_in(value, p, f"{place}[{key!r:.80}]")
    elif isinstance(data, (list, tuple)):
        for i, value in enumerate(data):
            yield from unreadable_in(value, p, f"{place}[{i}]")
