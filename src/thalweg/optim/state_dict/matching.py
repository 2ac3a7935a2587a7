"""Which entry of a state dict belongs to which parameter: by name, or by order as torch has it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from thalweg.names import nearest
from thalweg.optim.state_dict.form import NAMES, PARAMS, Saved, ambiguous, own_names, parameters
from thalweg.optim.state_dict.report import Misshaped

Rename = Mapping[str, str] | Callable[[str], str]

_ABSENT: Any = object()
_UNLESS_NAMED = ", or give both sides names (named_parameters()), with which it may be another"


@dataclass(frozen=True)
class Place:
    """A parameter of the optimizer, and where the state dict keeps what belongs to it.

    Attributes:
        param: the parameter.
        group: number of its group.
        key: of its entry in the state dict; None if that does not know the parameter.
        label: how to call it in a report.
    """

    param: torch.Tensor
    group: int
    key: Any
    label: str


@dataclass
class Match:
    """How a state dict and an optimizer go together.

    Attributes:
        places: of each of the optimizer's parameters, once.
        options: for each of its groups those of the state dict, or None where it has none for it.
        by_name: whether names decided, not the order.
        missing, unexpected, misshaped, kept: see :class:`LoadReport`.
    """

    places: list[Place]
    options: list[dict[str, Any] | None]
    by_name: bool
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[Misshaped] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def match(
    optimizer: torch.optim.Optimizer,
    saved: Saved,
    rename: Rename | None,
    names: Sequence[str] | None,
) -> Match:
    """Find the entry of each parameter; by name where both sides have names, else by order.

    Args:
        optimizer: whose parameters.
        saved: the state dict.
        rename: from names in the state dict to names here.
        names: of an optimizer without names, all groups' in a row.

    Raises:
        TypeError: ``rename`` gives something else than names.
        ValueError: by order, other groups than the optimizer's; names that are not unique;
            ``rename`` without names.
    """
    owner = type(optimizer).__name__
    own = own_names(optimizer) or (list(names) if names is not None else None)
    theirs = None if saved.names is None else [name for group in saved.names for name in group]
    if own is not None and theirs is not None:
        new = renamed(owner, theirs, rename)
        doubtful = ambiguous(own, map(id, parameters(optimizer)))
        doubtful += ambiguous(new, saved.all_keys)
        if not doubtful:
            return _by_name(optimizer, own, saved, new)
        if own != new:
            raise ValueError(
                f"{owner}: two parameters have the same name ({', '.join(dict.fromkeys(doubtful))})"
                ", so that they cannot go by name; give each a name of its own"
            )
    elif rename is not None:
        lacking = "the optimizer" if own is None else "the state dict"
        raise ValueError(
            f"{owner}: rename needs names, and {lacking} has none; build the optimizer from "
            "named_parameters(), or call name_parameters()"
        )
    return _by_order(optimizer, own, saved)


def check_rename(owner: str, rename: Any) -> None:
    """Raise TypeError for what cannot lead from old names to new ones."""
    if not (rename is None or isinstance(rename, Mapping) or callable(rename)):
        raise TypeError(
            f"{owner}: rename must be a dict from old to new names or a function, got "
            f"{type(rename).__name__}"
        )


def renamed(owner: str, names: Sequence[str], rename: Rename | None) -> list[str]:
    """The new names; raises for names that a dict does not know, and for what is no name."""
    check_rename(owner, rename)
    if rename is None:
        return list(names)
    if isinstance(rename, Mapping):
        for old in rename:
            if old not in names:
                raise ValueError(
                    f"{owner}: rename has {old!r}, which the state dict does not know"
                    f"{nearest(str(old), names)}"
                )
        new = [rename.get(name, name) for name in names]
    else:
        new = [rename(name) for name in names]
    for old, name in zip(names, new, strict=True):
        if not isinstance(name, str):
            raise TypeError(f"{owner}: rename must give names, got {name!r} for {old!r}")
    return new


@dataclass(frozen=True)
class _Own:
    """One of the optimizer's parameters: its group, and its number in that and among all."""

    param: torch.Tensor
    group: int
    within: int
    number: int


def _own(optimizer: torch.optim.Optimizer) -> list[_Own]:
    """Every parameter once; one that is in a group twice counts where it is first."""
    found: dict[int, _Own] = {}
    number = 0
    for k, group in enumerate(optimizer.param_groups):
        for within, p in enumerate(group[PARAMS]):
            found.setdefault(id(p), _Own(p, k, within, number))
            number += 1
    return list(found.values())


def _by_name(
    optimizer: torch.optim.Optimizer, names: Sequence[str], saved: Saved, new: Sequence[str]
) -> Match:
    group_of = [k for k, keys in enumerate(saved.keys) for _ in keys]
    known = dict(zip(new, zip(saved.all_keys, group_of, strict=True), strict=True))
    result = Match([], [], by_name=True)
    sources: list[list[int]] = [[] for _ in optimizer.param_groups]
    for own in _own(optimizer):
        name = names[own.number]
        key, group = known.get(name, (None, None))
        result.places.append(Place(own.param, own.group, key, name))
        if group is None:
            result.missing.append(name)
        elif group not in sources[own.group]:
            sources[own.group].append(group)
    here = set(names)
    result.unexpected = [name for name in dict.fromkeys(new) if name not in here]
    for k, (options, found) in enumerate(zip(optimizer.param_groups, sources, strict=True)):
        result.options.append(_merged(k, options, [saved.groups[i] for i in found], result.kept))
    return _with_shapes(result, saved)


def _merged(
    k: int, own: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], kept: list[str]
) -> dict[str, Any] | None:
    """The options of the groups that a group's parameters come from; None if there are none.

    Where they disagree, the group keeps its own, and ``kept`` says so.
    """
    if not sources:
        return None
    merged: dict[str, Any] = {}
    for option in dict.fromkeys(key for source in sources for key in source):
        values = [source.get(option, _ABSENT) for source in sources]
        if all(_same(values[0], value) for value in values[1:]):
            merged[option] = values[0]
            continue
        shown = " and ".join(dict.fromkeys("none" if v is _ABSENT else repr(v) for v in values))
        kept.append(f"{option} of group {k} ({shown})")
        if option in own:
            merged[option] = own[option]
    return merged


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        both = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
        return both and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _by_order(optimizer: torch.optim.Optimizer, names: Sequence[str] | None, saved: Saved) -> Match:
    owner, groups = type(optimizer).__name__, optimizer.param_groups
    if len(groups) != len(saved.groups):
        raise ValueError(
            f"{owner}: the state dict has {len(saved.groups)} parameter groups, the optimizer "
            f"{len(groups)}; build the optimizer with the same groups{_UNLESS_NAMED}"
        )
    for k, (group, keys) in enumerate(zip(groups, saved.keys, strict=True)):
        if len(group[PARAMS]) != len(keys):
            raise ValueError(
                f"{owner}: the state dict contains a parameter group that doesn't match the size "
                f"of the optimizer's: group {k} has {len(keys)} parameters there, "
                f"{len(group[PARAMS])} here; build the optimizer with the same{_UNLESS_NAMED}"
            )
    keys = saved.all_keys
    holders: dict[Any, int] = {}
    for key, p in zip(keys, parameters(optimizer), strict=True):
        if holders.setdefault(key, id(p)) != id(p):
            raise ValueError(
                f"{owner}: the state dict has parameter {key} where the optimizer has two; is it "
                "another model's?"
            )
    result = Match([], [dict(options) for options in saved.groups], by_name=False)
    for own in _own(optimizer):
        key = keys[own.number]
        label = f"parameter {key} ({own.within} of group {own.group})"
        if names is not None:
            label = f"{label} {names[own.number]!r}"
        result.places.append(Place(own.param, own.group, key, label))
    if saved.names is not None and saved.param_names:
        for group, options, found in zip(groups, result.options, saved.names, strict=True):
            if NAMES not in group and options is not None:
                options[NAMES] = list(found)  # as torch does
    return _with_shapes(result, saved)


def _with_shapes(result: Match, saved: Saved) -> Match:
    """Note the parameters whose own shape, where the state dict tells it, is another."""
    for place in result.places:
        shape, own = saved.shapes.get(place.key), tuple(place.param.shape)
        if shape is not None and shape != own:
            result.misshaped.append(Misshaped(place.label, "", shape, own))
    return result
