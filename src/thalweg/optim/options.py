"""The options of parameter groups: what they may be, and the checks that say so."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from thalweg.names import nearest, slip_for
from thalweg.optim.extras import EXTRAS
from thalweg.ranges import OrNone, Range, Ranges, number
from thalweg.rule import Transform
from thalweg.rule.program import number as without_gradient

# How a step is carried out, not what it does: the options that every optimizer with a rule takes.
MODES: dict[str, Any] = {
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
}

GROUP_KEYS = (
    *("params", "param_names", "name", "lr_scale"),
    *("initial_lr", "max_lr", "min_lr", "swa_lr", "max_momentum", "base_momentum"),  # schedulers'
)


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A constructor's options, from its ``locals()``: all but what is no option.

    >>> class Own:
    ...     def __init__(self, params, lr=0.1, **extras):
    ...         self.options = given(locals())
    >>> Own([]).options
    {'lr': 0.1}
    """
    others = ("self", "params", "extras", *EXTRAS, "__class__")
    return {name: value for name, value in arguments.items() if name not in others}


def given_but_fused(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """As :func:`given`, for a class whose groups have no ``fused``, since torch's have none.

    A checkpoint that torch made of one may then lack no option.
    """
    return {name: value for name, value in given(arguments).items() if name != "fused"}


def check_arguments(owner: str, unknown: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError for a constructor's argument that no constructor has."""
    for name in unknown:
        raise TypeError(
            f"{owner}.__init__() got an unexpected keyword argument {name!r}{nearest(name, known)}"
        )


def as_tuple(values: Any) -> Any:
    """A sequence of numbers of whatever class as a tuple; a list or anything else as it is."""
    if isinstance(values, (tuple, list, str, bytes)):
        return values
    try:
        return tuple(values)
    except TypeError:  # it is no sequence, or a tensor of no dimension
        return values


def with_transforms(
    owner: str, options: Mapping[str, Any], transforms: Iterable[Transform]
) -> dict[str, Any]:
    """The options and those of transforms.

    Raises:
        ValueError: an option of a transform is there already, or another transform's.
    """
    merged = dict(options)
    owners = dict.fromkeys(options, owner)
    for each in transforms:
        for option, default in each.options.items():
            if option in GROUP_KEYS or option in owners:
                holder = owners.get(option, "every parameter group")
                raise ValueError(
                    f"{owner}: the transform {each.name} brings the option {option!r}, which "
                    f"{holder} has already; set that one, or leave the transform out"
                )
            merged[option] = default
        owners |= dict.fromkeys(each.options, f"the transform {each.name}")
    return merged


def check_known(owner: str, group: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise TypeError for a key that looks like a misspelt option; users may add others."""
    for key in group:
        if key in known or key in GROUP_KEYS:
            continue
        if meant := slip_for(str(key), known):
            raise TypeError(
                f"{owner}: a parameter group has the key {key!r}; did you mean {meant}?"
            )


def flags_in(options: Mapping[str, Any]) -> list[str]:
    """The options whose default is True or False."""
    return [name for name, default in options.items() if isinstance(default, bool)]


def check_transform(owner: str, group: Mapping[str, Any], transform: Transform) -> None:
    """Raise for an option of a transform that is missing or wrong."""
    check_ranges(owner, group, transform.ranges)
    check_flags(owner, group, flags_in(transform.options))
    if transform.check is not None:
        transform.check(owner, group)


def check_flags(owner: str, group: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise TypeError for one of these options that is not True, False, 0, 1 or None."""
    for name in names:
        if name in group and not _is_flag(group[name]):
            raise TypeError(f"{owner}: {name} must be True or False, got {group[name]!r:.200}")


def _is_flag(value: Any) -> bool:
    kinds = (bool, int, np.bool_)
    return value is None or (isinstance(value, kinds) and value in (0, 1))


def check_modes(owner: str, group: Mapping[str, Any]) -> None:
    """Raise for ways to carry out a step that exclude each other, as torch does."""
    if group.get("fused") and group.get("foreach"):
        raise RuntimeError(
            f"{owner}: `fused` and `foreach` cannot be `True` together; leave one out"
        )
    if group.get("fused") and group.get("differentiable"):
        raise RuntimeError(f"{owner}: `fused` does not support `differentiable`; leave `fused` out")


def check_tensor_options(owner: str, group: Mapping[str, Any]) -> None:
    """Raise ValueError for tensors as lr or betas where torch's Adam does."""
    betas = group["betas"]
    are_tensors = [isinstance(beta, torch.Tensor) for beta in betas]
    if any(are_tensors) and not all(are_tensors):
        raise ValueError(f"{owner}: betas must be either both floats or both Tensors, got {betas}")
    if group.get("foreach") and not group.get("capturable"):
        numbers = {"lr": group["lr"]} | {f"betas[{i}]": b for i, b in enumerate(betas)}
        for name, value in numbers.items():
            if isinstance(value, torch.Tensor):
                raise ValueError(
                    f"{owner}: {name} as a Tensor is not supported for capturable=False and "
                    "foreach=True; leave foreach out"
                )


def check_ranges(owner: str, options: Mapping[str, Any], ranges: Ranges) -> None:
    """Raise for an option out of its range, naming it, its value and what it may be.

    Args:
        owner: the optimizer's name.
        options: a parameter group's options.
        ranges: for each numeric option its range, or one for each number of a tuple.

    Raises:
        KeyError: if an option is missing.
        TypeError: if an option is not a number.
        ValueError: if it is out of range, a Tensor of several elements, or a tuple of another
            length.
    """
    for name, allowed in ranges.items():
        if name not in options:
            raise KeyError(f"{owner}: a parameter group lacks the option {name!r}; set it again")
        value = options[name]
        if isinstance(allowed, OrNone):
            if value is None:
                continue
            allowed = allowed.allowed
        if isinstance(allowed, Range):
            _check_number(owner, name, value, allowed)
            continue
        if not isinstance(value, (tuple, list)):
            raise TypeError(
                f"{owner}: {name} must be a tuple of {len(allowed)} numbers, got {value!r:.200}"
            )
        if len(value) != len(allowed):
            raise ValueError(
                f"{owner}: {name} must hold {len(allowed)} numbers, got {value!r:.200}"
            )
        for i, (item, item_range) in enumerate(zip(value, allowed, strict=True)):
            _check_number(owner, f"{name}[{i}]", item, item_range)


def _check_number(owner: str, name: str, value: Any, allowed: Range) -> None:
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"{owner}: Tensor {name} must be 1-element, got shape {tuple(value.shape)}; pass "
                "a 0-d tensor or a float"
            )
        if value.device.type == "meta":  # a tensor without values is checked where it has some
            return
        value = without_gradient(value)
    number(owner, name, value, allowed, flags=False, infinite=True)
