"""Threads: torch's own pool, obeyed settings, and the same bits however many there are."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

import thalweg.optim as optim
from tests.engine.running import class_of
from thalweg.engine.backends.cpu import threads
from thalweg.engine.backends.cpu.addresses import AtOnce
from thalweg.engine.backends.cpu.cache import Generated
from thalweg.engine.backends.cpu.chunks import CHUNK
from thalweg.engine.backends.cpu.kernel import Kernel
from thalweg.engine.backends.cpu.threads import WORTH_A_THREAD
from thalweg.optim.optimizer import MODES
from thalweg.rule import Rule, norm

SIZES = [3, 5 * CHUNK + 17, 100_000, 1]


def update(p, g, s, h):
    s.buf = 0.9 * s.buf + g / (norm(g) + norm(g, "all"))
    return p - 0.1 * s.buf


def digest(count: int) -> str:
    """Of what three steps on so many threads leave behind: elements, sums, sums over all."""
    torch.set_num_threads(count)
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(n, generator=generator)) for n in SIZES]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    optimizers = [
        optim.Adam(params, lr=0.1, fused=True),
        class_of(Rule(update, {"buf": 0.0}))(params, {**MODES, "fused": True}),
    ]
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.step()
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in params)).hexdigest()


def test_any_number_of_threads_gives_the_same_bits() -> None:
    assert len({digest(count) for count in (1, 2, 3, 7)}) == 1


def test_pythons_threads_give_the_same_bits() -> None:
    root = Path(__file__).parents[4]
    code = (
        "from tests.engine.backends.cpu import test_threads as t\n"
        "from thalweg.engine.backends.cpu.threads import openmp_library\n"
        "assert openmp_library() is None\n"
        "import atexit\n"
        "atexit.register(lambda: print(t.digest(2)))\n"  # when no thread can be started any more
        "print(t.digest(2))"
    )
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "THALWEG_THREADS": "python", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [digest(1)] * 2


class Later:
    """In place of a pool: its threads come when the test lets them."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], None]] = []

    def submit(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)


def of_python(monkeypatch, call: Callable[[int], None]) -> Later:
    """Let this be called in place of any kernel, on threads of Python's."""
    pool = Later()
    monkeypatch.setattr(threads, "openmp_pool", lambda: None)
    monkeypatch.setattr(threads, "_threads", lambda: pool)
    monkeypatch.setattr(threads, "_free_entry", lambda address: call)
    torch.set_num_threads(2)
    return pool


KERNEL = Kernel(0, Generated("none", "", None))


def test_no_thread_joins_a_call_that_has_ended(monkeypatch) -> None:
    calls: list[int] = []
    pool = of_python(monkeypatch, calls.append)
    threads.run(KERNEL, 12, 2)
    (late,) = pool.tasks
    late()
    assert calls == [12]


def test_a_call_that_is_interrupted_waits_for_threads_that_have_joined(monkeypatch) -> None:
    done = []

    def call(arguments: int) -> None:
        if threading.current_thread() is threading.main_thread():
            (joining,) = pool.tasks
            threading.Thread(target=joining).start()
            assert joined.wait(10)
            raise KeyboardInterrupt
        joined.set()
        time.sleep(0.1)
        done.append(arguments)

    joined = threading.Event()
    pool = of_python(monkeypatch, call)
    with pytest.raises(KeyboardInterrupt):
        threads.run(KERNEL, 12, 2)
    assert done == [12]


@pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP is what torch has on Linux")
def test_the_pool_is_torchs_own() -> None:
    library = threads.openmp_library()
    assert library is not None
    assert "libgomp" in library.name
    assert Path(torch.__file__).parent.parent in library.parents


def test_the_environment_can_ask_for_pythons(monkeypatch) -> None:
    monkeypatch.setenv("THALWEG_THREADS", "python")
    assert threads.openmp_library.__wrapped__() is None


def threads_asked_for(monkeypatch) -> list[int]:
    """How many threads each kernel that has run was to have, from now on."""
    asked: list[int] = []
    real = AtOnce.run

    def recorded(self, kernels, let_go) -> bool:
        done = real(self, kernels, let_go)
        asked.extend(count for _, _, count in kernels if done)
        return done

    monkeypatch.setattr(AtOnce, "run", recorded)
    return asked


def test_set_num_threads_is_obeyed_at_each_step(monkeypatch) -> None:
    asked = threads_asked_for(monkeypatch)
    p = Parameter(torch.ones(4 * WORTH_A_THREAD))
    p.grad = torch.ones_like(p)
    optimizer = optim.SGD([p], lr=0.5)
    for count in (1, 2, 3, 1):
        torch.set_num_threads(count)
        optimizer.step()
    assert asked == [1, 2, 3, 1]
    assert (p == -1).all()


def test_small_work_stays_on_one_thread(monkeypatch) -> None:
    asked = threads_asked_for(monkeypatch)
    torch.set_num_threads(8)
    for size in (10, WORTH_A_THREAD, 2 * WORTH_A_THREAD, 5 * WORTH_A_THREAD):
        p = Parameter(torch.ones(size))
        p.grad = torch.ones(size)
        optim.SGD([p], lr=0.5).step()
    assert asked == [1, 1, 2, 5]


def test_many_small_tensors_are_shared_out() -> None:
    params = [Parameter(torch.ones(50)) for _ in range(3000)]
    for k, p in enumerate(params):
        p.grad = torch.full((50,), float(k))
    torch.set_num_threads(2)
    optim.SGD(params, lr=1.0, fused=True).step()
    assert all((p == 1 - k).all() for k, p in enumerate(params))
