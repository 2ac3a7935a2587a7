"""Checks of what a scheduler is given, with the errors that torch raises."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch

from thalweg import ranges
from thalweg.optim.lr_scheduler.rates import copied


def check_optimizer(optimizer: Any) -> None:
    """Raise ``TypeError``, as torch does, for what is no optimizer."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"{type(optimizer).__name__} is not an Optimizer; pass the optimizer itself"
        )


def check_options(owner: str, allowed: Mapping[str, ranges.Range], **options: Any) -> None:
    """Raise for a number out of its range, or not a finite number."""
    for name, value in options.items():
        ranges.number(owner, name, value, allowed.get(name, ranges.ANY))


def check_integer(owner: str, name: str, value: Any, least: int) -> None:
    """Raise ``ValueError``, as torch does for counts, unless it is an integer >= ``least``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        kind = "positive integer" if least == 1 else f"integer >= {least}"
        raise ValueError(f"{owner}: Expected {kind} {name}, but got {value!r}")


def per_group(owner: str, name: str, optimizer: torch.optim.Optimizer, value: Any) -> list[Any]:
    """One value for each parameter group, from one or from a list of as many."""
    groups = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        value = [value] * groups
    elif len(value) != groups:
        raise ValueError(
            f"{owner}: {name} must have the same length as optimizer.param_groups: it has "
            f"{len(value)} values for {groups} groups. Pass one for each, or a single one for all"
        )
    for item in value:
        check_options(owner, {}, **{name: item})
    return [copied(item) for item in value]
