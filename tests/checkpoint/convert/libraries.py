"""The libraries whose states are converted, and training that is the same with any of them.

``THALWEG_PEERS`` names a folder that they are installed in, as ``make test`` has it. A library that
is not there makes its tests fail then; without the variable they are skipped.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import thalweg
from tests.ids import shown_briefly

PEERS = os.environ.get("THALWEG_PEERS")
if PEERS:
    sys.path.append(os.path.abspath(PEERS))  # last: nothing there stands in for what tests run with

STEPS, MORE = 12, 8
TIMM_FILES = {
    "AdamWLegacy": "adamw", "NAdamLegacy": "nadam", "NAdamW": "nadamw", "RAdamLegacy": "radam",
    "RMSpropTF": "rmsprop_tf", "SGDW": "sgdw", "Lamb": "lamb",
}  # fmt: skip


def installed(library: str) -> importlib.metadata.Distribution:
    """The package of that library; skips or fails where it is not installed."""
    name = {"optimi": "torch-optimi"}.get(library, library)
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        reason = f"{name} is not installed (make test installs it)"
        if PEERS:
            pytest.fail(f"THALWEG_PEERS is {PEERS}, but {reason}")
        pytest.skip(reason)


def _timm_class(name: str) -> Any:
    """From its own file: timm as a whole needs torchvision, which is for another build of torch."""
    if name not in TIMM_FILES:
        return getattr(torch.optim, name)  # timm.optim hands on torch's
    if "timm" not in sys.modules:
        root = str(installed("timm").locate_file("timm"))
        for package, path in (("timm", root), ("timm.optim", os.path.join(root, "optim"))):
            module = types.ModuleType(package)
            module.__path__ = [path]
            sys.modules[package] = module
    return getattr(importlib.import_module(f"timm.optim.{TIMM_FILES[name]}"), name)


def their_class(library: str, name: str) -> Any:
    """The optimizer class of that library; skips or fails where it is not installed."""
    if library == "timm":
        return _timm_class(name)
    installed(library)
    # bitsandbytes reports on import which optional kernels it has not found.
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    module = importlib.import_module(library)
    if library == "heavyball":
        module.utils.compile_mode = None  # nor compile every function before the first step
    return getattr(module.optim if library == "bitsandbytes" else module, name)


@dataclass(frozen=True, eq=False)
class Case:
    """An optimizer of a library, with options, and ours of the same rule."""

    library: str
    theirs: str
    ours: str
    options: dict[str, Any] = field(default_factory=dict)
    #: the options with which ours is the same from the start
    same: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = "-".join(f"{key}={shown_briefly(value)}" for key, value in self.options.items())
        return f"{self.library}-{self.theirs}-{self.ours}-{given}".replace(" ", "")

    def make(self, params: list[Any]) -> Any:
        return their_class(self.library, self.theirs)(grouped(params), **self.options)

    def our_defaults(self) -> dict[str, Any]:
        return {"lr": 0.0123, **({"momentum": 0.5} if self.ours == "SGD" else {})}


SHAPES = ((3, 4), (5,), (2, 2, 3), (4,), ())
NEVER = 3  # the parameter that has no gradient before the state is converted
LATE = 1  # and the one that has its first at the fourth step


def start(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(7)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES
    ]


def grouped(params: list[Any]) -> list[dict[str, Any]]:
    """Three in the first group, two in a second with another lr."""
    return [{"params": params[:3]}, {"params": params[3:], "lr": 0.02}]


def gradients(steps: int, seed: int = 0) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(shape, generator=generator) for shape in SHAPES] for _ in range(steps)]


def train(
    optimizer: torch.optim.Optimizer,
    params: list[Any],
    steps: list[list[Tensor]],
    *,
    without: tuple[int, ...] = (),
    late: int | None = None,
) -> None:
    for t, step in enumerate(steps):
        for i, (p, gradient) in enumerate(zip(params, step, strict=True)):
            absent = i in without or (i == late and t < 3)
            p.grad = None if absent else gradient.to(p.dtype, copy=True)
        optimizer.step()


def copies(params: list[Any]) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(p.detach().clone()) for p in params]


OPTIM = {"thalweg": thalweg.optim, "torch": torch.optim}
