"""Putting this library's names in the place of torch's, for scripts that cannot be changed."""

import sys
from types import ModuleType
from typing import Any

import torch

from thalweg import optim
from thalweg.engine.interrupts import uninterrupted

# Classes that others ask for with isinstance, also of what torch made: ours derive from them.
BASES = ("Optimizer", "LRScheduler")

_replaced: list[tuple[ModuleType, str, Any]] = []


def install() -> None:
    """Put every optimizer, scheduler and weight average of this library in place of torch's.

    From then on ``torch.optim.Adam`` is :class:`thalweg.optim.Adam`, and so for each name that both
    have, in ``torch.optim``, ``torch.optim.lr_scheduler``, ``torch.optim.swa_utils`` and the
    modules that torch defines them in. What torch alone has stays, and so do the base classes
    ``Optimizer`` and ``LRScheduler``, of which these are subclasses. Names that a module has
    imported already (``from torch.optim import Adam``) stay what they are: call it first. Called
    again, it changes nothing.

    >>> import torch, thalweg
    >>> thalweg.install()
    >>> torch.optim.Adam
    <class 'thalweg.optim.adam.Adam'>
    >>> thalweg.uninstall()
    >>> torch.optim.Adam
    <class 'torch.optim.adam.Adam'>
    """
    pairs = (
        (optim, torch.optim),
        (optim.lr_scheduler, torch.optim.lr_scheduler),
        (optim.swa_utils, torch.optim.swa_utils),
    )
    with uninterrupted():
        for ours, theirs in pairs:
            for name in ours.__all__:
                _replace(theirs, name, getattr(ours, name))


def uninstall() -> None:
    """Put torch's names back. Objects made meanwhile stay what they are."""
    with uninterrupted():
        while _replaced:
            module, name, torchs = _replaced.pop()
            setattr(module, name, torchs)


def _replace(module: ModuleType, name: str, ours: Any) -> None:
    torchs = getattr(module, name, None)
    if torchs is None or torchs is ours or name in BASES or isinstance(ours, ModuleType):
        return
    for place in {id(m): m for m in (module, sys.modules[torchs.__module__])}.values():
        if getattr(place, name, None) is torchs:
            _replaced.append((place, name, torchs))
            setattr(place, name, ours)
