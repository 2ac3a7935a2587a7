"""Many steps, and many optimizers: memory stays flat, and no file stays open."""

from __future__ import annotations

import gc
import itertools
import os
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tests.engine.test_concurrency import MAKERS
from tests.memory import anonymous
from thalweg import optim
from thalweg.optim.lr_scheduler import CosineAnnealingWarmRestarts
from thalweg.optim.swa_utils import AveragedModel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self"),
]

MEGABYTE = 2**20


def resident() -> int:
    """The process's own memory in bytes, without mapped files."""
    gc.collect()
    return anonymous()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


class Training:
    """A small model with an optimizer, a schedule and an average; each step has data of its own."""

    def __init__(self, name: str) -> None:
        self.sparse = name == "SparseAdam"
        if self.sparse:
            self.model: nn.Module = nn.Embedding(20, 4, sparse=True)
        else:
            self.model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        self.optimizer = MAKERS[name](list(self.model.parameters()))
        if isinstance(self.optimizer, optim.LBFGS):  # takes most of the time, and data that changes
            self.optimizer.param_groups[0].update(lr=0.01, max_iter=2, history_size=5)
        self.data = torch.empty(0)
        self.schedule = CosineAnnealingWarmRestarts(self.optimizer, 50)
        self.average = AveragedModel(self.model)
        self.k = 0

    def closure(self) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=self.k // 100 % 2 == 0 or self.sparse)
        loss = (self.model(self.data) - 1).square().mean()
        loss.backward()
        return loss

    def step(self) -> None:
        self.data = torch.randint(20, (8,)) if self.sparse else torch.randn(8, 8)
        self.optimizer.step(self.closure)
        self.schedule.step()
        self.k += 1
        if self.k % 50 == 0:
            self.average.update_parameters(self.model)
        if self.k % 500 == 0:
            saved = self.optimizer.state_dict()
            if self.k % 1000 == 0:
                self.optimizer.load_state_dict(saved)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Without the warning that a sparse tensor is made unchecked, which comes once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def growth(function: Callable[[], object], calls: int, warmup: int) -> list[int]:
    """How much more memory there is after each tenth of the calls than after the warm-up."""
    for _ in range(warmup):
        function()
    begin, files = resident(), open_files()
    found = []
    for _ in range(10):
        for _ in range(calls // 10):
            function()
        found.append(resident() - begin)
    assert open_files() == files
    print("KiB after each tenth:", [n // 1024 for n in found])
    return found


def rotation() -> Callable[[], None]:
    """A step of AdamW, and one of each other optimizer in turn."""
    first = Training("AdamW")
    names = [name for name in MAKERS if name not in ("AdamW", "LBFGS strong_wolfe")]
    others = itertools.cycle([Training(name) for name in names])

    def step() -> None:
        first.step()
        next(others).step()

    return step


def test_memory_is_flat_over_100_000_steps(quiet: None) -> None:
    assert max(growth(rotation(), calls=100_000, warmup=20_000)) < MEGABYTE


def test_no_python_object_is_left_by_a_step(quiet: None) -> None:
    step = rotation()
    for _ in range(4000):
        step()
    tracemalloc.start()
    try:
        for _ in range(2000):
            step()
        gc.collect()
        begin = tracemalloc.get_traced_memory()[0]
        for _ in range(4000):
            step()
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] - begin
        print("bytes left by 8000 steps:", left)
    finally:
        tracemalloc.stop()
    assert left < 40_000


@pytest.mark.parametrize("name", MAKERS)
def test_memory_is_flat_over_1000_optimizers(name: str, quiet: None) -> None:
    torch.manual_seed(0)

    def build_step_drop() -> None:
        training = Training(name)
        training.step()
        training.step()

    assert max(growth(build_step_drop, calls=1000, warmup=300)) < MEGABYTE


def test_large_states_go_with_their_optimizer() -> None:
    """A megabyte of state each: a hundred that stayed would be seen."""

    def build_step_drop() -> Any:
        p = nn.Parameter(torch.zeros(2**17))
        p.grad = torch.ones_like(p)
        optimizer = optim.Adam([p])
        optimizer.step()

    assert max(growth(build_step_drop, calls=100, warmup=20)) < 4 * MEGABYTE
