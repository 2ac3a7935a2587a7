"""A small training whose checkpoints are damaged, and how its state is compared."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

import thalweg.optim as optim
from tests.optim.exact import bits, snapshot
from thalweg import checkpoint
from thalweg.checkpoint import CheckpointError

E = TypeVar("E", bound=BaseException)


class Subject:
    """A model with buffers, an optimizer with two groups, a schedule, a generator and a step.

    Args:
        seed: of the weights and the gradients; states of different seeds differ everywhere.
        width: of the model; with 8 a file has 20 kB.
        steps: that were made.
        rng: whether the process's random states are saved too.
    """

    def __init__(self, seed: int, *, width: int = 8, steps: int = 3, rng: bool = True) -> None:
        self.rng = rng
        self.generator = torch.Generator().manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            with torch.no_grad():
                tensor.copy_(torch.rand(tensor.shape, generator=self.generator) * 9)
        named = list(self.model.named_parameters())
        groups = [{"params": named[:2]}, {"params": named[2:], "weight_decay": 0.5}]
        self.optimizer = optim.AdamW(groups, lr=0.1 + seed)
        self.scheduler = optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.step = seed
        for _ in range(steps):
            self.advance()

    def advance(self) -> None:
        for p in self.model.parameters():
            p.grad = torch.randn(p.shape, generator=self.generator)
        self.optimizer.step()
        self.scheduler.step()

    def save(self, path: Path) -> None:
        checkpoint.save(
            path,
            rng=self.rng,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            generator=self.generator,
            step=self.step,
        )

    def load(self, path: Path) -> None:
        found = checkpoint.load(
            path,
            rng=self.rng,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            generator=self.generator,
        )
        self.step = found["step"]

    def state(self) -> Any:
        """All that a checkpoint of it holds, bit for bit."""
        optimizer = self.optimizer.state_dict()
        return [
            bits(self.model.state_dict()),
            bits(optimizer["state"]),
            [bits(dict(sorted(group.items()))) for group in optimizer["param_groups"]],
            bits(self.scheduler.state_dict()),
            bits(self.generator.get_state()),
            self.step,
        ]

    def untouched(self) -> Any:
        """All that a load may change, bit for bit and with the objects' identities."""
        states = random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state()
        numbers = states[0], *states[1][:1], states[1][1].tobytes(), states[1][2:], bits(states[2])
        return self.state(), snapshot(self.optimizer), numbers


def raised(function: Callable[..., object], *args: Any, kinds: tuple[type[E], ...]) -> E | None:
    """The error of a call, of these kinds; None if it went through."""
    try:
        function(*args)
    except kinds as error:
        return error
    return None


def refused(path: Path, subject: Subject, before: Any, *kinds: type[Exception]) -> Exception:
    """The error of a load that must fail, name the file and leave everything as it was.

    Args:
        before: the subject's ``untouched()``.
        kinds: of errors that are right; none given: CheckpointError.
    """
    error = raised(subject.load, path, kinds=kinds or (CheckpointError,))
    assert error is not None, "the damage was not found"
    assert str(path) in str(error), f"{error} does not name the file"
    assert subject.untouched() == before, f"changed by a load that failed: {error}"
    return error


def refused_save(path: Path, subject: Subject, kind: type[OSError]) -> OSError | None:
    """The error of a save, which must name the file and its folder; None if it went through."""
    error = raised(subject.save, path, kinds=(kind,))
    if error is not None:
        assert path.name in str(error), f"{error} does not name the file"
        assert str(path.parent) in str(error), f"{error} does not name the folder"
        assert isinstance(error, OSError)
    return error


def seeded(name: str, case: int) -> random.Random:
    """Random numbers of one case, the same each time."""
    return random.Random(f"{name} {case}")
