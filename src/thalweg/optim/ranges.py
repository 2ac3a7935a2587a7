"""The ranges that an optimizer declares for its options, checked for all of them at once."""

from collections.abc import Mapping
from typing import Any

import torch

from thalweg.ranges import Range, number
from thalweg.rule.program import number as without_gradient

Ranges = Mapping[str, Range | tuple[Range, ...]]


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
