"""State dicts in torch's format: packing, and unpacking with every check before any change."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from thalweg.rule.compose import AVERAGE_OPTIONS

if TYPE_CHECKING:
    from thalweg.optim.optimizer import Optimizer

State = dict[Any, Any]
Groups = list[dict[str, Any]]


def pack(groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any]) -> dict[str, Any]:
    """``{"state": {number: states}, "param_groups": [...]}``, parameters by their number."""
    numbers: dict[int, int] = {}
    for group in groups:
        for p in group["params"]:
            numbers.setdefault(id(p), len(numbers))
    return {
        "state": {
            numbers[id(key)] if isinstance(key, torch.Tensor) else key: (
                dict(value) if isinstance(value, dict) else value
            )
            for key, value in state.items()
            if value != {}  # SGD without momentum has nothing to keep
        },
        "param_groups": [
            {**group, "params": [numbers[id(p)] for p in group["params"]]} for group in groups
        ],
    }


def unpack(optimizer: "Optimizer", saved: Mapping[str, Any]) -> tuple[Groups, State]:
    """Groups and state from a state dict, all copied; raises if it does not fit the optimizer."""
    name = type(optimizer).__name__
    if not isinstance(saved, Mapping):
        raise TypeError(f"{name}: a state dict must be a dict, got {type(saved).__name__}")
    for key in ("state", "param_groups"):
        if key not in saved:
            raise ValueError(f"{name}: the state dict lacks {key!r}; is it an optimizer's?")
    if not isinstance(saved["state"], Mapping):
        raise TypeError(f"{name}: 'state' must be a dict, got {type(saved['state']).__name__}")
    own_groups, saved_groups = optimizer.param_groups, saved["param_groups"]
    if not isinstance(saved_groups, (list, tuple)) or not all(
        isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple))
        for group in saved_groups
    ):
        raise TypeError(
            f"{name}: 'param_groups' must be a list of dicts that each list their 'params', got "
            f"{saved_groups!r:.200}"
        )
    if len(own_groups) != len(saved_groups):
        raise ValueError(
            f"{name}: the state dict has {len(saved_groups)} parameter groups, the optimizer "
            f"{len(own_groups)}; build the optimizer with the same groups"
        )
    groups = []
    owners: dict[Any, tuple[torch.Tensor, dict[str, Any], str]] = {}
    for k, (own, other) in enumerate(zip(own_groups, saved_groups, strict=True)):
        if len(own["params"]) != len(other["params"]):
            raise ValueError(
                f"{name}: the state dict contains a parameter group that doesn't match the size "
                f"of the optimizer's: group {k} has {len(other['params'])} parameters there, "
                f"{len(own['params'])} here"
            )
        group = _group(optimizer, k, own, other)
        groups.append(group)
        for i, (p, number) in enumerate(zip(own["params"], other["params"], strict=True)):
            owners[number] = (p, group, f"{name}: parameter {number} ({i} of group {k})")

    state: State = {}
    for number, entry in saved["state"].items():
        if number in owners:
            p, group, place = owners[number]
            state[p] = _entry(optimizer, place, p, group, entry)
        elif isinstance(number, int):
            raise ValueError(
                f"{name}: the state dict has a state for parameter {number}, which no group holds"
            )
        else:
            state[number] = entry
    return groups, state


def _group(
    optimizer: "Optimizer", k: int, own: Mapping[str, Any], other: Mapping[str, Any]
) -> dict[str, Any]:
    """The saved options; switches that an older or torch's checkpoint lacks keep their value."""
    name = type(optimizer).__name__
    if not optimizer.carries_average and all(option in other for option in AVERAGE_OPTIONS):
        raise ValueError(
            f"{name}: group {k} of the state dict carries an average, the optimizer none; attach "
            "one first, CarriedAverage(optimizer, ...)"
        )
    group = {**other, "params": own["params"]}
    if "param_names" in own:
        group["param_names"] = own["param_names"]
    for key, default in optimizer.defaults.items():
        if key in group:
            continue
        if default is None or isinstance(default, bool):
            group[key] = own[key]
        elif optimizer.carries_average and key in AVERAGE_OPTIONS:
            raise ValueError(
                f"{name}: group {k} of the state dict carries no average, the optimizer does; load "
                "it into an optimizer without one and attach CarriedAverage after that"
            )
        else:
            raise ValueError(
                f"{name}: group {k} of the state dict lacks the option {key!r}; it has "
                f"{sorted(other)}. Is it another optimizer's?"
            )
    optimizer.check_options(group)
    return group


def _entry(
    optimizer: "Optimizer",
    place: str,
    p: torch.Tensor,
    group: Mapping[str, Any],
    entry: Any,
) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise TypeError(f"{place}: its state must be a dict, got {type(entry).__name__}")
    # torch's SGD saves momentum_buffer as None where it has none yet.
    present = {key: value for key, value in entry.items() if value is not None}
    if not present:
        return {}
    needed, known = optimizer.state_names(group, present)
    for key in present:
        if key not in known:
            raise ValueError(
                f"{place}: the state dict has {key!r}, which is no state of this optimizer "
                f"({', '.join(known)}). Is it another optimizer's?"
            )
    for key in needed:
        if key not in present:
            raise ValueError(f"{place}: the state dict lacks the state {key!r}")
    return {key: _value(optimizer, place, p, group, key, v) for key, v in present.items()}


def _value(
    optimizer: "Optimizer",
    place: str,
    p: torch.Tensor,
    group: Mapping[str, Any],
    key: str,
    value: Any,
) -> Any:
    rule = optimizer.carried_rule
    if key not in rule.tensor_states:
        try:
            return torch.tensor(float(value), dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{place}: state {key!r} must be one number, got {value!r}") from None
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{place}: state {key!r} must be a tensor, got {type(value).__name__}")
    if value.layout is not torch.strided:
        value = value.to_dense()  # torch's SGD keeps a sparse momentum_buffer
    if value.shape != p.shape:
        raise ValueError(
            f"{place}: state {key!r} has shape {tuple(value.shape)}, the parameter {tuple(p.shape)}"
        )
    if not (value.is_floating_point() or value.is_complex()) or (
        value.is_complex() and not p.is_complex()
    ):
        raise ValueError(f"{place}: state {key!r} is {value.dtype}, the parameter {p.dtype}")
    asked = rule.states[key].stored_dtype(group, p.dtype)
    dtype = asked or torch.promote_types(value.dtype, p.dtype)
    like = torch.empty_like(p.detach(), dtype=dtype, memory_format=torch.preserve_format)
    return like.copy_(value.detach())
