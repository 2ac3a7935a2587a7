"""A forked process goes on, whatever other threads of its parent held or did."""

from __future__ import annotations

import ast
import importlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import thalweg
from tests.fuzz.apart import Returned, apart
from tests.test_structure import MODULES, module_name
from thalweg import losses, optim
from thalweg.rule import Rule, Transform, transformed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

LOCKS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"}


def _optimizer() -> optim.Optimizer:
    p = Parameter(torch.zeros(3))
    p.grad = torch.ones(3)
    optimizer = optim.SGD([p], lr=0.1)
    optimizer.step()
    return optimizer


# Of locks that are attributes: where one is to be found.
HELD_BY: dict[str, Callable[[], Any]] = {
    "thalweg.engine.engine.Engine": lambda: _optimizer()._engine
}

# Of a lock that lives as long as one call: no child goes on with that.
OF_A_CALL = {("thalweg.engine.backends.cpu.threads", "_Shared._change")}


def places_of_locks(source: str) -> set[str]:
    """The names to which locks are assigned, within their class, if any: ``Engine._lock``."""
    found: set[str] = set()

    def visit(node: ast.AST, owner: str) -> None:
        if isinstance(node, ast.ClassDef):
            owner = node.name
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "attr", getattr(function, "id", ""))
            if name in LOCKS:
                found.add(owner)  # wherever it goes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = node.value.func
            if getattr(made, "attr", getattr(made, "id", "")) in LOCKS:
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        found.add(target.id)
                    elif isinstance(target, ast.Attribute):
                        found.add(f"{owner}.{target.attr}")
                return
        for child in ast.iter_child_nodes(node):
            visit(child, owner)

    visit(ast.parse(source), "")
    return found


def test_locks_are_found() -> None:
    assert places_of_locks("import threading\na = threading.RLock()") == {"a"}
    assert places_of_locks("class A:\n def f(self):\n  self.b = Lock()") == {"A.b"}
    assert places_of_locks("f(Lock())") == {""}, "no place that a test could hold it at"


ALL = sorted(
    (module_name(path), place)
    for path in MODULES
    if any(name in (source := path.read_text()) for name in LOCKS)
    for place in places_of_locks(source)
    if (module_name(path), place) not in OF_A_CALL
)


def test_there_are_locks() -> None:
    assert len(ALL) >= 4


def _held_while_forking(module: str, place: str) -> int:
    """How a child ends that takes a lock which another thread of its parent held."""
    holder: Any = importlib.import_module(module)
    owner, _, name = place.rpartition(".")
    if owner:
        holder = HELD_BY[f"{module}.{owner}"]()
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with getattr(holder, name):
            taken.set()
            over.wait(1)  # not for good: a fork may wait for it

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    child = os.fork()
    if not child:
        os._exit(0 if getattr(holder, name).acquire(timeout=3) else 1)
    over.set()
    thread.join()
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize(("module", "place"), ALL)
def test_a_child_finds_no_lock_held(module: str, place: str) -> None:
    assert apart(_held_while_forking, module, place, longest=20) == Returned(0)


def _sgd(p: Any, g: Any, s: Any, h: Any) -> Any:
    return p - h.lr * g


def _doubled(update: Any) -> Any:
    return lambda p, g, s, h: update(p, 2 * g, s, h)


def _use_everything() -> None:
    """Trace, wrap, explain, evaluate and step, each anew."""
    rule = transformed(Rule(_sgd, name="sgd"), [Transform(_doubled)])
    rule.program({"lr": 0.1}, [0.0])
    thalweg.explain(losses.mse_loss, torch.ones(3), torch.zeros(3))
    _optimizer()


def _forked_while_in_use(times: int) -> list[int]:
    torch.set_num_threads(1)
    _use_everything()  # whatever is compiled
    over = threading.Event()

    def use() -> None:
        while not over.is_set():
            _use_everything()

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    statuses = []
    for _ in range(times):
        child = os.fork()
        if not child:
            signal.alarm(10)
            _use_everything()
            os._exit(0)
        statuses.append(os.waitpid(child, 0)[1])
    over.set()
    for thread in threads:
        thread.join()
    return statuses


@pytest.mark.parametrize("times", [15, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_child_goes_on_with_what_other_threads_were_at(times: int) -> None:
    outcome = apart(_forked_while_in_use, times, longest=300)
    assert outcome == Returned([0] * times)


def test_where_there_is_no_fork_nothing_is_registered(monkeypatch) -> None:
    from thalweg.forks import in_child

    monkeypatch.delattr(os, "register_at_fork")
    assert in_child(_optimizer) is _optimizer
