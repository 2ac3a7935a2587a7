"""Whether the options of a state dict's groups fit an optimizer that is given by a rule."""

import warnings
from collections import deque
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from thalweg.optim.options import MODES, check_flags, check_transform, flags_in
from thalweg.optim.state_dict.form import NAMES, PARAMS
from thalweg.optim.state_dict.owner import Owner
from thalweg.optim.state_dict.values import is_number
from thalweg.ranges import OrNone
from thalweg.transforms.shipped import missing_transform

_SEQUENCES = (deque, np.ndarray, torch.Tensor)  # which a rule does not read


def checked_options(
    optimizer: Owner, k: int, own: Mapping[str, Any], saved: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A group with its saved options, copied; with its own where the state dict has none for it.

    Switches that an older or torch's checkpoint lacks keep their value.

    Raises:
        ValueError, TypeError: an option is missing or wrong.
    """
    if saved is None:
        return dict(own)
    name = type(optimizer).__name__
    if missing := missing_transform(saved, optimizer.defaults):
        raise ValueError(
            f"{name}: group {k} of the state dict is of an optimizer with the transform {missing}, "
            f"whose states would be lost here; build this one with transforms=[{missing}(...)], or "
            "call add_transform first"
        )
    group = {PARAMS: own[PARAMS], **deepcopy(dict(saved))}
    if NAMES in own:
        group[NAMES] = own[NAMES]
    for key, default in optimizer.defaults.items():
        if key in group:
            continue
        if default is None or isinstance(default, bool):
            group[key] = own.get(key, default)  # torch adds defaults when it loads
            continue
        for each in optimizer.all_transforms:
            if key in each.options and saved.keys().isdisjoint(each.options):
                raise ValueError(
                    f"{name}: group {k} of the state dict has no option of the transform "
                    f"{each.name}, which the optimizer has; load it into one without, and call "
                    "add_transform after that"
                )
        raise ValueError(
            f"{name}: group {k} of the state dict lacks the option {key!r}; it has "
            f"{sorted(map(str, saved))}. Is it another optimizer's?"
        )
    optimizer.normalize_options(group)
    for option, value in group.items():
        several = isinstance(optimizer.defaults.get(option), (tuple, list))
        if several and isinstance(value, _SEQUENCES) and np.ndim(value) == 1:
            group[option] = tuple(map(float, value))
    check_flags(name, group, (*MODES, *flags_in(optimizer.defaults)))
    for each in optimizer.added_transforms:  # whose options no schedule moves
        check_transform(name, group, each)
    try:
        optimizer.check_options(group)
    except (TypeError, ValueError, RuntimeError) as error:
        if not _computable(optimizer, group):
            raise
        # A step takes it: a schedule may have gone there, or a program set it.
        warnings.warn(f"{error}; group {k} takes it over as it is", UserWarning, stacklevel=4)
    return group


def _computable(optimizer: Owner, group: Mapping[str, Any]) -> bool:
    """Whether the options are numbers, if not those that they should be."""
    if not hasattr(optimizer, "rule"):  # its step checks what it takes
        return False
    for ranges in (optimizer.ranges, *(each.ranges for each in optimizer.all_transforms)):
        for name, allowed in ranges.items():
            value = group[name]
            if isinstance(allowed, OrNone) and value is None:
                continue
            if not isinstance(allowed, tuple):
                value = [value]
            elif not isinstance(value, (tuple, list)) or len(value) != len(allowed):
                return False
            if not all(map(is_number, value)):
                return False
    return True
