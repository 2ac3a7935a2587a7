"""The form of a state dict: torch's, with numbers for parameters, or with names in their place."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from thalweg.names import repeated

State = dict[Any, Any]
Groups = list[dict[str, Any]]

# What a group holds that is no option.
PARAMS, NAMES = "params", "param_names"
# What a checkpoint holds besides torch's two entries; see `packed`.
CLASS, SHAPES = "class", "shapes"


def pack(groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any]) -> dict[str, Any]:
    """``{"state": {number: states}, "param_groups": [...]}``, parameters by their number."""
    numbers: dict[int, int] = {}
    for group in groups:
        for p in group[PARAMS]:
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
            {**group, PARAMS: [numbers[id(p)] for p in group[PARAMS]]} for group in groups
        ],
    }


def named(state_dict: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
    """A state dict with the parameters' names in place of their numbers.

    Args:
        state_dict: in torch's format.
        names: of the parameters, all groups' in a row; None: those in its groups.

    Raises:
        ValueError: a parameter has no name, or two have the same.

    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> adagrad = torch.optim.Adagrad([("bias", p)])
    >>> list(named(adagrad.state_dict())["state"]["bias"])
    ['step', 'sum']
    """
    groups = state_dict["param_groups"]
    keys = [key for group in groups for key in group[PARAMS]]
    if names is None:
        if not all(NAMES in group for group in groups):
            raise ValueError("the state dict's parameters have no names; give them")
        names = [name for group in groups for name in group[NAMES]]
    by_key = dict(zip(keys, names, strict=True))
    if len(set(by_key.values())) < len(by_key):
        raise ValueError(f"two parameters have the same name: {', '.join(repeated(names))}")
    return {
        "state": {by_key.get(key, key): entry for key, entry in state_dict["state"].items()},
        "param_groups": [
            {
                **{key: value for key, value in group.items() if key != NAMES},
                PARAMS: [by_key[key] for key in group[PARAMS]],
            }
            for group in groups
        ],
    }


def packed(optimizer: torch.optim.Optimizer, names: Sequence[str] | None = None) -> dict[str, Any]:
    """An optimizer's state dict for a checkpoint: by name where names are known or given.

    Besides torch's two entries it holds the optimizer's ``class`` and the ``shapes`` of its
    parameters, all groups' in a row: a state may have another shape, or there may be none, and
    :func:`prepare` compares them.

    Args:
        optimizer: thalweg's or torch's.
        names: of an optimizer without names, its parameters'.
    """
    saved: dict[str, Any] = optimizer.state_dict()
    own = own_names(optimizer)
    if own is not None and ambiguous(own, map(id, parameters(optimizer))):
        own = None  # two parameters of one name can only go by number
    found = own if own is not None else names
    return {
        CLASS: type(optimizer).__name__,
        SHAPES: [tuple(p.shape) for p in parameters(optimizer)],
        **(named(saved, found) if found is not None else saved),
    }


def ambiguous(names: Iterable[str], of: Iterable[Any]) -> list[str]:
    """The names that stand for several parameters; one that is in a group twice is still one."""
    return repeated(name for name, _ in dict.fromkeys(zip(names, of, strict=True)))


def names_in(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[str] | None:
    """The names that a module has for all parameters of an optimizer; None if it lacks one.

    >>> model = torch.nn.Linear(2, 1)
    >>> names_in(model, torch.optim.SGD([model.bias, model.weight]))
    ['bias', 'weight']
    """
    known = {id(p): name for name, p in module.named_parameters()}
    found = [known.get(id(p)) for p in parameters(optimizer)]
    return None if None in found else [name for name in found if name is not None]


def parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """All groups' parameters in a row."""
    return [p for group in optimizer.param_groups for p in group[PARAMS]]


def own_names(optimizer: torch.optim.Optimizer) -> list[str] | None:
    """The parameters' names, all groups' in a row; None if it was built without."""
    groups = optimizer.param_groups
    if not all(NAMES in group for group in groups):
        return None
    return [name for group in groups for name in group[NAMES]]


@dataclass(frozen=True)
class Saved:
    """A state dict that has the right form.

    Attributes:
        groups: options of each group, without its parameters.
        keys: of each group's parameters: numbers or names.
        names: of each group's parameters; None if there are none.
        param_names: whether the names are in ``param_names``, as in torch, and not the keys.
        state: states by key.
        shapes: of the parameters by key, where the state dict has them.
        made_by: the optimizer's class, where the state dict has it.
    """

    groups: list[dict[str, Any]]
    keys: list[list[Any]]
    names: list[list[str]] | None
    param_names: bool
    state: Mapping[Any, Any]
    shapes: Mapping[Any, tuple[int, ...]]
    made_by: str | None

    @property
    def all_keys(self) -> list[Any]:
        """All groups' keys in a row."""
        return [key for keys in self.keys for key in keys]


def parse(owner: str, saved: Any) -> Saved:
    """Take a state dict apart.

    Args:
        owner: the optimizer's class, for messages.
        saved: the state dict.

    Raises:
        TypeError, ValueError: it is none.
    """
    if not isinstance(saved, Mapping):
        raise TypeError(f"{owner}: a state dict must be a dict, got {type(saved).__name__}")
    for key in ("state", "param_groups"):
        if key not in saved:
            raise ValueError(f"{owner}: the state dict lacks {key!r}; is it an optimizer's?")
    state, groups = saved["state"], saved["param_groups"]
    if not isinstance(state, Mapping):
        raise TypeError(f"{owner}: 'state' must be a dict, got {type(state).__name__}")
    if not isinstance(groups, (list, tuple)) or not all(
        isinstance(group, Mapping) and isinstance(group.get(PARAMS), (list, tuple))
        for group in groups
    ):
        raise TypeError(
            f"{owner}: 'param_groups' must be a list of dicts that each list their 'params', got "
            f"{groups!r:.200}"
        )
    keys = [list(group[PARAMS]) for group in groups]
    for key in (each for group in keys for each in group):
        if not isinstance(key, (int, str)) or isinstance(key, bool):
            raise TypeError(
                f"{owner}: the state dict's 'params' must be numbers or names, got {key!r:.80}"
            )
    return Saved(
        groups=[{k: v for k, v in g.items() if k not in (PARAMS, NAMES)} for g in groups],
        keys=keys,
        names=(names := _names(owner, groups, keys)),
        param_names=names is not None and names is not keys,
        state=state,
        shapes=_shapes(owner, saved.get(SHAPES), keys),
        made_by=made_by if isinstance(made_by := saved.get(CLASS), str) else None,
    )


def _names(
    owner: str, groups: Sequence[Mapping[str, Any]], keys: list[list[Any]]
) -> list[list[str]] | None:
    if groups and all(isinstance(key, str) for group in keys for key in group) and any(keys):
        return keys
    if not groups or not all(NAMES in group for group in groups):
        return None
    for k, group in enumerate(groups):
        names = group[NAMES]
        if (
            not isinstance(names, (list, tuple))
            or not all(isinstance(name, str) for name in names)
            or len(names) != len(keys[k])
        ):
            raise ValueError(
                f"{owner}: group {k} of the state dict has {len(keys[k])} parameters; its "
                f"'param_names' must be as many names, got {names!r:.200}"
            )
    return [list(group[NAMES]) for group in groups]


def _shapes(owner: str, given: Any, keys: list[list[Any]]) -> dict[Any, tuple[int, ...]]:
    if given is None:
        return {}
    flat = [key for group in keys for key in group]
    if (
        not isinstance(given, (list, tuple))
        or len(given) != len(flat)
        or not all(isinstance(s, (list, tuple)) and all(type(n) is int for n in s) for s in given)
    ):
        raise ValueError(
            f"{owner}: 'shapes' of the state dict must be a shape for each of its {len(flat)} "
            f"parameters, got {given!r:.200}"
        )
    return {key: tuple(shape) for key, shape in zip(flat, given, strict=True)}
