"""Parameter groups: what is put into one, and the parameters' names."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from thalweg.names import repeated

Group = dict[str, Any]


def listed(owner: str, params: Any) -> list[Any]:
    """A constructor's ``params`` as a list.

    Raises:
        TypeError: a tensor, or a set.
        ValueError: there are none.
    """
    if isinstance(params, torch.Tensor):
        raise TypeError(
            f"{owner}: params must be an iterable of tensors or dicts, got a "
            f"{type(params).__name__}; write [p] for a single parameter"
        )
    refuse_set(owner, params)
    entries = list(params)
    if not entries:
        raise ValueError(f"{owner}: got an empty parameter list; pass the model's")
    return entries


def refuse_set(owner: str, params: Any) -> None:
    """Raise TypeError for a set, whose order is another one in every run."""
    if isinstance(params, (set, frozenset)):
        raise TypeError(
            f"{owner}: params must have an order that is the same on every run, got a "
            f"{type(params).__name__}; pass a list"
        )


def opened(owner: str, given: Any) -> Group:
    """A new group from the dict that a user gave: ``params`` as a list, and ``param_names``."""
    if not isinstance(given, dict):
        raise TypeError(f"{owner}: a parameter group must be a dict, got {type(given).__name__}")
    if "params" not in given:
        raise ValueError(f"{owner}: a parameter group must have the key 'params'")
    params = given["params"]
    refuse_set(owner, params)
    entries: list[Any] = [params] if isinstance(params, torch.Tensor) else list(params)
    named = [isinstance(entry, tuple) for entry in entries]
    if not any(named):
        return {**given, "params": entries}
    if not all(named):
        raise ValueError(
            f"{owner}: all params must be with or without names; some names are missing"
        )
    names = [str(entry[0]) for entry in entries]
    return {**given, "params": [entry[1] for entry in entries], "param_names": names}


def check_parameter(owner: str, k: int, p: Any, results: bool) -> None:
    """Raise for what is no tensor, or (unless ``results``) the result of an operation.

    Args:
        owner: the optimizer's name.
        k: the parameter's number in its group.
        p: the parameter.
        results: whether results of operations may be optimized too (``differentiable``).
    """
    if not isinstance(p, torch.Tensor):
        raise TypeError(
            f"{owner}: parameter {k} is a {type(p).__name__}; an optimizer can only optimize "
            "Tensors"
        )
    if not (results or p.is_leaf or p.retains_grad):
        raise ValueError(
            f"{owner}: can't optimize a non-leaf Tensor: parameter {k}, shape {tuple(p.shape)}, is "
            "the result of an operation; pass the tensor it was made from"
        )


def check_new_group(owner: str, group: Mapping[str, Any], others: Sequence[Group]) -> None:
    """Raise ValueError where a new group does not go with those that are there.

    Warns of a parameter that is in the group twice.
    """
    if len({id(p) for p in group["params"]}) != len(group["params"]):
        warnings.warn(
            f"{owner}: optimizer contains a parameter group with duplicate parameters; each is "
            "updated once",
            UserWarning,
            stacklevel=4,
        )
    taken = {id(p) for other in others for p in other["params"]}
    if not taken.isdisjoint(id(p) for p in group["params"]):
        raise ValueError(
            f"{owner}: some parameters appear in more than one parameter group; leave each in one"
        )
    if any(("param_names" in other) != ("param_names" in group) for other in others):
        raise ValueError(
            f"{owner}: all parameter groups must be with or without names; pass named_parameters() "
            "for every group, or for none"
        )


def names_for(
    owner: str, groups: Sequence[Group], named: Iterable[tuple[str, torch.Tensor]]
) -> list[list[str]]:
    """The names of each group's parameters; see ``Optimizer.name_parameters``."""
    names: dict[int, str] = {}
    for name, p in named:
        names.setdefault(id(p), str(name))
    nameless = [
        f"parameter {i} of group {k}, shape {tuple(p.shape)}"
        for k, group in enumerate(groups)
        for i, p in enumerate(group["params"])
        if id(p) not in names
    ]
    if nameless:
        raise ValueError(
            f"{owner}: name_parameters gives no name to {'; '.join(nameless)}; pass the "
            "named_parameters() of everything that it trains"
        )
    held = {id(p): names[id(p)] for group in groups for p in group["params"]}
    if twice := repeated(held.values()):
        raise ValueError(
            f"{owner}: name_parameters gives the same name to two parameters: {', '.join(twice)}; "
            "put something in front that tells their models apart"
        )
    return [[names[id(p)] for p in group["params"]] for group in groups]
