"""A load is all or nothing, whatever is wrong; and needs no memory beyond the states themselves."""

from __future__ import annotations

import copy
import gc
import math
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import thalweg.optim as optim
from tests.memory import anonymous
from tests.optim.problems import FULLEST, Case, Problem, advance, bits, snapshot, start
from tests.optim.through import through_a_file
from thalweg.optim.state_dict import prepare

GIVEN = Problem(torch.float32, seed=6, steps=8)


def seasoned(name: str = "Adam", steps: int = 2, size: int = 6, **options: Any) -> Any:
    params = [torch.linspace(0, 1, size).requires_grad_() for _ in range(3)]
    optimizer = getattr(optim, name)(params, **options)
    return advanced(optimizer, steps)


def advanced(optimizer: Any, steps: int = 1) -> Any:
    for _ in range(steps):
        for i, p in enumerate(optimizer.param_groups[0]["params"]):
            p.grad = torch.full_like(p, 0.5 + i)
        optimizer.step()
    return optimizer


def states(optimizer: Any) -> Iterator[Tensor]:
    for entry in optimizer.state.values():
        yield from (value for value in entry.values() if value.dim())


# ----------------------------------------------------------------------------- whose memory is used


def test_own_memory_is_written_over() -> None:
    saved = through_a_file(seasoned(steps=5).state_dict())
    optimizer = seasoned()
    before = [t.data_ptr() for t in states(optimizer)]
    optimizer.load_state_dict(saved)
    assert [t.data_ptr() for t in states(optimizer)] == before
    assert bits(optimizer.state_dict()["state"]) == bits(saved["state"])
    twin = seasoned(steps=5)
    with torch.no_grad():
        for p, q in zip(*(o.param_groups[0]["params"] for o in (optimizer, twin)), strict=True):
            p.copy_(q)
    assert snapshot(advanced(optimizer))[2] == snapshot(advanced(twin))[2]


Hold = Callable[[Any, Any], Any]
HOLDS: dict[str, Hold] = {
    "its state dict": lambda optimizer, p: optimizer.state_dict(),
    "a tensor": lambda optimizer, p: optimizer.state[p]["exp_avg"],
    "a view": lambda optimizer, p: optimizer.state[p]["exp_avg"][1:],
    "a detached tensor": lambda optimizer, p: optimizer.state[p]["exp_avg"].detach(),
    "an array": lambda optimizer, p: optimizer.state[p]["exp_avg"].numpy(),
    "a storage": lambda optimizer, p: optimizer.state[p]["exp_avg"].untyped_storage(),
}


@pytest.mark.parametrize("what", HOLDS)
def test_what_somebody_else_holds_stays_as_it_is(what: str) -> None:
    """``state_dict()`` gives away the optimizer's own tensors; with torch, too, they stay."""
    saved = through_a_file(seasoned(steps=5).state_dict())
    optimizer = seasoned()
    p = optimizer.param_groups[0]["params"][0]
    held = HOLDS[what](optimizer, p)

    def content() -> Any:
        if isinstance(held, np.ndarray):
            return held.tobytes()
        return list(held) if isinstance(held, torch.UntypedStorage) else bits(held)

    before = content()
    optimizer.load_state_dict(saved)
    assert content() == before
    assert bits(optimizer.state_dict()["state"]) == bits(saved["state"])


@pytest.mark.parametrize("case", FULLEST, ids=str)
def test_two_optimizers_exchange_their_states(case: Case) -> None:
    """Dicts that were taken before any load are what they were after the first."""
    make = getattr(optim, case.name)
    runs = [
        advance(start(make, case, GIVEN, torch.float32), GIVEN, 0, steps).optimizer
        for steps in (3, 6)
    ]
    first, second = (run.state_dict() for run in runs)
    expected = [bits(copy.deepcopy(taken)["state"]) for taken in (second, first)]
    runs[0].load_state_dict(second)
    runs[1].load_state_dict(first)
    assert [bits(run.state_dict()["state"]) for run in runs] == expected


def test_its_own_state_dict_needs_nothing() -> None:
    optimizer = seasoned()
    held = list(states(optimizer))
    before = snapshot(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    assert all(a is b for a, b in zip(states(optimizer), held, strict=True))
    assert snapshot(optimizer) == before


def test_shared_memory_of_other_processes_is_left_alone() -> None:
    optimizer = seasoned()
    for tensor in states(optimizer):
        tensor.share_memory_()
    before = [t.data_ptr() for t in states(optimizer)]
    del tensor
    optimizer.load_state_dict(through_a_file(seasoned(steps=5).state_dict()))
    assert not set(before) & {t.data_ptr() for t in states(optimizer)}


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
@pytest.mark.parametrize("begun", [False, True], ids=["fresh", "after steps"])
def test_memory_of_a_load(begun: bool, tmp_path: Any) -> None:
    """The states, and at most one more copy of the largest tensor."""
    count, elements = 8, 4_000_000
    params = [torch.zeros(elements, requires_grad=True) for _ in range(count)]
    for p in params:
        p.grad = torch.ones(elements)
    source = optim.Adam(params)
    source.step()
    torch.save(source.state_dict(), tmp_path / "adam.pt")
    optimizer = optim.Adam(params)
    if begun:
        optimizer.step()
    del source
    saved = torch.load(tmp_path / "adam.pt", weights_only=True, mmap=True)
    highest, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.0002):
            highest[0] = max(highest[0], anonymous())

    before = anonymous()
    watcher = threading.Thread(target=watch)
    watcher.start()
    optimizer.load_state_dict(saved)
    stop.set()
    watcher.join()
    largest = 4 * elements
    added = highest[0] - before - (0 if begun else 2 * count * largest)
    assert added < 1.1 * largest


# ------------------------------------------------------------------------------- all or nothing


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything in nested data, but for the root."""
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        yield (*path, key)
        if isinstance(child, (dict, list, tuple)):
            yield from places(child, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], Any]) -> Any:
    """Nested data with the container at a path's end changed by ``change(container, key)``."""
    if len(path) == 1:
        return change(value, path[0])
    inner = replaced(value[path[0]], path[1:], change)
    return put(value, path[0], inner)


def put(container: Any, key: Any, value: Any) -> Any:
    if isinstance(container, dict):
        return {**container, key: value}
    items = list(container)
    items[key] = value
    return type(container)(items)


def without(container: Any, key: Any) -> Any:
    if isinstance(container, dict):
        return {k: v for k, v in container.items() if k != key}
    return type(container)(item for i, item in enumerate(container) if i != key)


WRONG: list[Callable[[Any], Any]] = [
    lambda value: None,
    lambda value: "text",
    lambda value: -1,
    lambda value: 1e400,
    lambda value: math.nan,
    lambda value: [],
    lambda value: {},
    lambda value: object(),
    lambda value: torch.zeros(0),
    lambda value: torch.zeros(2, 2),
    lambda value: torch.ones(6, dtype=torch.int32),
    lambda value: torch.full((6,), math.nan),
    lambda value: value.to(torch.complex64) if isinstance(value, Tensor) else (value, value),
    lambda value: value[:-1] if isinstance(value, (Tensor, list, tuple, str)) and value != () and (
        not isinstance(value, Tensor) or value.dim()) else [value],
    lambda value: value.double() * 2 if isinstance(value, Tensor) else True,
]  # fmt: skip


def spoilt(saved: Any, drawn: random.Random) -> Any:
    """The state dict with one to three entries removed, added, or replaced by something else."""
    for _ in range(drawn.choice([1, 1, 2, 3])):
        path = drawn.choice(list(places(saved)))
        how = drawn.choice(["remove", "retype", "retype", "retype", "add", "exchange"])
        if how == "remove":
            saved = replaced(saved, path, without)
        elif how == "retype":
            wrong = drawn.choice(WRONG)
            saved = replaced(saved, path, lambda c, k, wrong=wrong: put(c, k, wrong(c[k])))
        elif how == "add":
            key = drawn.choice(["exp_avg", "lr", "step", 7, "name"])
            value = drawn.choice([0, torch.ones(6), {}, [0]])
            saved = replaced(
                saved, path,
                lambda c, k, key=key, value=value: {**c, key: value} if isinstance(c, dict) else c,
            )  # fmt: skip
        else:
            other = drawn.choice(list(places(saved)))
            value: Any = saved
            for key in other:
                value = value[key]
            saved = replaced(saved, path, lambda c, k, value=value: put(c, k, value))
    return saved


@pytest.mark.filterwarnings("ignore:.*takes it over as it is")
@pytest.mark.filterwarnings("ignore:.*as other optimizers have")
@pytest.mark.parametrize("named", [False, True], ids=["by number", "by name"])
@pytest.mark.parametrize("name", ["Adam", "SGD", "NAdam", "ASGD", "LBFGS"])
def test_spoilt_state_dicts_end_in_the_old_or_the_new_state(name: str, named: bool) -> None:
    """500 in all: whatever is accepted is what a step can go on with."""
    options = {"momentum": 0.9} if name == "SGD" else {}

    def made(steps: int) -> Any:
        params: Any = [torch.linspace(0, 1, 6).requires_grad_() for _ in range(3)]
        optimizer = getattr(optim, name)(
            [(f"p{i}", p) for i, p in enumerate(params)] if named else params, **options
        )
        for _ in range(steps):
            stepped(optimizer)
        return optimizer

    def stepped(optimizer: Any) -> None:
        def closure() -> float:
            for i, p in enumerate(optimizer.param_groups[0]["params"]):
                p.grad = p.detach() * (0.5 + i)
            return 1.0

        if name == "LBFGS":
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()

    good = through_a_file(made(4).state_dict())
    outcomes, messages = {"old": 0, "new": 0}, {}
    for seed in range(50):
        drawn = random.Random(seed)
        saved = spoilt(copy.deepcopy(good), drawn)
        optimizer = made(2)
        before = snapshot(optimizer)
        strict = drawn.random() < 0.5
        try:
            optimizer.load_state_dict(saved, strict=strict)
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            messages[seed] = str(error.args[0])
            assert snapshot(optimizer) == before, f"seed {seed}"
            outcomes["old"] += 1
        else:
            stepped(optimizer)
            outcomes["new"] += 1
    assert {s: m for s, m in messages.items() if not m.startswith(f"{name}: ")} == {}
    assert outcomes["old"] > 10, outcomes
    assert outcomes["new"] > 5, outcomes


def test_numbers_that_are_not_finite_pass_in_tensors_and_not_as_counts() -> None:
    """A state may have become NaN in training, and is loaded as it is; a count cannot have."""
    saved = through_a_file(seasoned().state_dict())
    saved["state"][1]["exp_avg"][2] = math.nan
    optimizer = seasoned()
    optimizer.load_state_dict(saved)
    assert bits(optimizer.state_dict()["state"]) == bits(saved["state"])
    for path, value in (
        (("state", 1, "step"), math.nan),
        (("state", 1, "step"), math.inf),
        (("state", 1, "step"), torch.tensor(-1.0)),
    ):
        bad = replaced(saved, path, lambda c, k, value=value: put(c, k, value))
        before = snapshot(optimizer)
        with pytest.raises(ValueError, match=str(path[-1])):
            optimizer.load_state_dict(bad)
        assert snapshot(optimizer) == before


def test_ctrl_c_while_loading_leaves_the_old_or_the_new_state() -> None:
    """200 interrupts at random moments of a load, in the middle of real work."""
    params = [torch.zeros(2000, requires_grad=True) for _ in range(20)]
    for p in params:
        p.grad = torch.ones(2000)
    optimizer, wanted = optim.Adam(params, lr=0.1), []
    dicts = []
    for _ in range(2):
        optimizer.step()
        dicts.append(copy.deepcopy(optimizer.state_dict()))
        dicts[-1]["param_groups"][0]["lr"] = 0.1 * len(dicts)
        wanted.append(bits(dicts[-1]))
    drawn = random.Random(0)
    outcomes = [0, 0]
    for turn in range(200):
        now = turn % 2
        optimizer.load_state_dict(dicts[1 - now])
        old = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        gc.disable()  # Python drops what is raised in its callbacks
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-5 + drawn.random() * 0.004)
            for _ in range(100):
                optimizer.load_state_dict(dicts[now])
                optimizer.load_state_dict(dicts[1 - now])
        except KeyboardInterrupt:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
            gc.enable()
        found = bits(optimizer.state_dict())
        assert found in wanted
        outcomes[wanted.index(found)] += 1
    assert min(outcomes) > 20, outcomes


def test_nothing_of_a_prepared_load_shows_before_it_is_committed() -> None:
    saved = through_a_file(seasoned(steps=5).state_dict())
    optimizer, twin = seasoned(), seasoned()
    before = snapshot(optimizer)
    pending = prepare(optimizer, saved)
    assert snapshot(optimizer) == before
    assert snapshot(advanced(optimizer))[:5] == snapshot(advanced(twin))[:5]
    pending.commit()
    assert bits(optimizer.state_dict()["state"]) == bits(saved["state"])


def test_an_adamw_stays_one_with_the_state_of_an_adam() -> None:
    saved = []
    for library in (torch.optim, optim):
        p = torch.nn.Parameter(torch.ones(2))
        p.grad = torch.ones_like(p)
        source, target = library.Adam([p], lr=0.5), library.AdamW([p], lr=0.25)
        source.step()
        target.load_state_dict(source.state_dict())
        assert target.param_groups[0]["decoupled_weight_decay"] is True
        saved.append(target.param_groups[0]["lr"])
    assert saved == [0.5, 0.5]


def test_a_group_of_adamw_may_have_the_other_kind_of_decay() -> None:
    found = []
    for library in (torch.optim, optim):
        p = torch.nn.Parameter(torch.ones(2))
        p.grad = torch.full_like(p, 0.5)
        group = {"params": [p], "decoupled_weight_decay": False, "weight_decay": 0.5}
        optimizer = library.AdamW([group], lr=0.25)
        optimizer.step()
        p.grad = torch.full_like(p, -1.5)
        optimizer.step()
        found.append(p.tolist())
    assert found[1] == pytest.approx(found[0], rel=1e-6)
