"""Steps from several Python threads: the same bits as alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.engine.interrupted_steps import REDUCING
from tests.engine.running import class_of
from thalweg import optim
from thalweg.optim.catalogue import classes
from thalweg.optim.optimizer import MODES
from thalweg.optim.swa_utils import CarriedAverage

STEPS = 4
# One that is worth two threads, with several chunks and blocks of a sum, and small ones.
SIZES = [(70001,), (3, 5), *((n,) for n in range(1, 9))]
ALL = sorted(
    name
    for name, value in vars(optim).items()
    if isinstance(value, type)
    and issubclass(value, optim.Optimizer)
    and value is not optim.Optimizer
)


def _reducing(params: list[Parameter], **options: Any) -> optim.Optimizer:
    return class_of(REDUCING)(params, {**MODES, "lr": 0.1, "max_norm": 1.0, **options})


def _carrying(params: list[Parameter]) -> optim.Optimizer:
    optimizer = optim.AdamW(params)
    CarriedAverage(optimizer, decay=0.9)
    return optimizer


MAKERS: dict[str, Callable[[list[Parameter]], Any]] = {
    **{name: getattr(optim, name) for name in ALL},
    "SGD momentum": lambda params: optim.SGD(params, momentum=0.9),
    "reducing": _reducing,
    "reducing eagerly": lambda params: _reducing(params, fused=False),
    "carrying": _carrying,
    "LBFGS strong_wolfe": lambda params: optim.LBFGS(params, line_search_fn="strong_wolfe"),
    "eager": lambda params: optim.RAdam(params, fused=False),
}


class Run:
    """An optimizer of its own parameters, with a gradient for each step."""

    def __init__(self, name: str, seed: int, dtype: torch.dtype = torch.float32) -> None:
        self.name, self.sparse = name, name == "SparseAdam"
        draw = torch.Generator().manual_seed(seed)
        self.params = [
            Parameter(torch.randn(size, generator=draw).to(dtype))
            for size in ([(70, 20), (9, 2)] if self.sparse else SIZES)
        ]
        self.draw = draw
        self.optimizer = MAKERS[name](self.params)

    def step(self) -> None:
        for p in self.params:
            g = torch.randn(p.shape, generator=self.draw).to(p.dtype)
            p.grad = (g * (g[:, :1] > 0)).to_sparse(1) if self.sparse else g
        if isinstance(self.optimizer, optim.LBFGS):
            targets = [p.grad for p in self.params]
            self.optimizer.step(lambda: self._closure(targets))
        else:
            self.optimizer.step()

    def _closure(self, targets: list[Tensor]) -> float:
        """Half the squared distance, summed by NumPy: torch's sum depends on the threads."""
        loss = 0.0
        for p, target in zip(self.params, targets, strict=True):
            p.grad = p.detach() - target
            loss += 0.5 * float(np.square(p.grad.numpy(), dtype=float).sum())
        return loss

    def steps(self, count: int = STEPS) -> list[bytes]:
        for _ in range(count):
            self.step()
        return self.content()

    def content(self) -> list[bytes]:
        entries = [self.optimizer.state_dict()["state"].get(i, {}) for i in range(len(self.params))]
        tensors = [v for entry in entries for v in _tensors(list(entry.values()))]
        return [
            t.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
            for t in (*self.params, *tensors)
        ]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, Tensor):
        yield value


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Call functions, each in a thread that begins when all are there; their results."""
    results: list[Any] = [None] * len(functions)
    barrier = threading.Barrier(len(functions))

    def call(i: int) -> None:
        barrier.wait()
        try:
            results[i] = functions[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@pytest.fixture(autouse=True)
def often_switched() -> Iterator[None]:
    """Let threads take turns far more often than usual, and end with the threads there were."""
    interval, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


def test_all_classes_are_here() -> None:
    assert set(classes()) == set(ALL)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_all_optimizers_at_once_as_alone(threads: int) -> None:
    torch.set_num_threads(threads)
    names = list(MAKERS)
    for few in (names[i::3] for i in range(3)):  # more would wait for cores most of the time
        alone = [Run(name, seed).steps() for seed, name in enumerate(few)]
        runs = [Run(name, seed) for seed, name in enumerate(few)]
        found = at_once(*(run.steps for run in runs))
        for name, bits, expected in zip(few, found, alone, strict=True):
            assert bits == expected, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_several_of_one_class_at_once(dtype: torch.dtype) -> None:
    alone = [Run("reducing", seed, dtype).steps() for seed in range(6)]
    assert at_once(*(Run("reducing", seed, dtype).steps for seed in range(6))) == alone


@pytest.mark.parametrize("name", MAKERS)
def test_with_the_number_of_threads_changed_between_steps(name: str) -> None:
    torch.set_num_threads(1)
    expected = Run(name, 3).steps()
    run = Run(name, 3)
    for threads in [2, 1, 4, 3]:
        torch.set_num_threads(threads)
        run.step()
    assert run.content() == expected


def test_with_the_number_of_threads_changed_while_others_step() -> None:
    torch.set_num_threads(1)
    names = ["AdamW", "reducing", "SGD momentum"]
    alone = [Run(name, 5).steps(30) for name in names]
    over = threading.Event()

    def change() -> None:
        draw = random.Random(1)
        while not over.is_set():
            torch.set_num_threads(draw.choice([1, 2, 4]))

    changing = threading.Thread(target=change)
    changing.start()
    try:
        found = at_once(*(lambda name=name: Run(name, 5).steps(30) for name in names))
    finally:
        over.set()
        changing.join()
    assert found == alone


def test_while_others_build_and_drop_optimizers() -> None:
    alone = [Run(name, 6).steps(30) for name in ("AdamW", "reducing")]
    over = threading.Event()

    def build() -> None:
        while not over.is_set():
            Run("RMSprop", 1).steps(2)

    building = threading.Thread(target=build)
    building.start()
    try:
        found = at_once(
            *(lambda name=name: Run(name, 6).steps(30) for name in ("AdamW", "reducing"))
        )
    finally:
        over.set()
        building.join()
    assert found == alone


def test_two_threads_with_the_same_optimizer_take_turns() -> None:
    """Not promised; but nobody reads memory that another has freed, and no step is lost."""
    params = [Parameter(torch.zeros(size)) for size in SIZES]
    optimizer = optim.AdamW(params)
    for p in params:
        p.grad = torch.ones_like(p)

    def steps() -> None:
        for k in range(60):
            if k % 5 == 0:
                # Not by an option: one that another thread changes in a plan is refused, rightly.
                optimizer._engine.plan_anew()
            optimizer.step()

    at_once(*[steps] * 4)
    assert {float(optimizer.state[p]["step"]) for p in params} == {240.0}


_FIRST = """
import sys
from tests.engine.test_concurrency import MAKERS, Run, at_once
sys.setswitchinterval(1e-5)
runs = [Run(name, 2) for name in ("AdamW", "reducing") for _ in range(3)]
found = at_once(*(run.steps for run in runs))
for i, run in enumerate(runs):
    assert found[i] == Run(run.name, 2).steps(), run.name
print("alike")
"""


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["", pytest.param("python", marks=pytest.mark.slow)])
def test_first_compilation_by_several_threads(tmp_path: Path, pool: str) -> None:
    """In a process of its own with an empty kernel cache; then with what it left there."""
    environment = os.environ | {"THALWEG_CACHE": str(tmp_path), "THALWEG_THREADS": pool}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", _FIRST], cwd=Path(__file__).parents[2],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "alike\n"), done.stderr
        assert not list(tmp_path.glob("*.tmp"))
