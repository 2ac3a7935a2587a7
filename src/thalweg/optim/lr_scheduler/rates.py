"""Rates, as numbers or as tensors that a group goes on holding: set, copied, compared."""

from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch

from thalweg.engine.modes import with_gradients
from thalweg.rule.program import number
from thalweg.schedules import Schedule

Rate = float | torch.Tensor
Made = TypeVar("Made", bound=Schedule)


def set_option(group: dict[str, Any], name: str, value: Any) -> None:
    """Set a number or a tuple of a group; a Tensor is filled, and stays the same object."""
    present = group[name]
    if isinstance(present, torch.Tensor):
        _fill(present, value)
    elif isinstance(present, (tuple, list)) and any(isinstance(x, torch.Tensor) for x in present):
        for held, new in zip(present, value, strict=True):
            _fill(held, new)
    else:
        group[name] = number(value) if isinstance(value, torch.Tensor) else value


@with_gradients(False)
def _fill(held: torch.Tensor, value: Rate) -> None:
    held.fill_(number(value))


def copied(value: Any) -> Any:
    """The value, sharing no tensor with this one."""
    if isinstance(value, tuple):
        return tuple(copied(item) for item in value)
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def unshared(value: Any) -> Any:
    """A value that shares no list, dict or tensor with this one."""
    if type(value) is list:
        return [unshared(item) for item in value]
    return copy(value) if isinstance(value, dict) else copied(value)


def like(present: Rate, value: float) -> Rate:
    """The value as the group would hold it: a Tensor rounds it to its dtype."""
    return torch.full_like(present, value) if isinstance(present, torch.Tensor) else value


def made(kind: Callable[..., Made], *options: Any) -> Made:
    """The schedule that ``kind`` makes of these numbers; a step asks for the same ones again."""
    return cast(Made, _made(kind, *options))


@lru_cache(maxsize=1024)
def _made(kind: Callable[..., Any], *options: Any) -> Any:
    return kind(*options)
