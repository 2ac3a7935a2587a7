"""Memory that is not what the plan thinks: nothing is read or written but the operands."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.fuzz.apart import Outcome, Raised, Returned, apart
from thalweg import optim
from thalweg.engine import torch_internals
from thalweg.engine.backends.cpu import addresses
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import slots_of
from thalweg.rule import Rule

KINDS = ["native", "python"]


@pytest.fixture(params=KINDS, autouse=True)
def native(request, monkeypatch) -> str:
    """With what torch exports, and without."""
    if request.param == "python":
        monkeypatch.setattr(addresses, "library", lambda: None)
    return request.param


def filled(n: int, value: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full((n,), value, dtype=dtype)


# ---- what of others runs during a step ------------------------------------------------------


class Rate(float):
    """A rate that does something whenever it is reckoned with."""

    def __new__(cls, value: float, act: Callable[[], None]) -> Rate:
        rate = super().__new__(cls, value)
        rate.act = act
        return rate

    def __mul__(self, other: Any) -> Any:
        self.act()
        return float.__mul__(self, other)

    __rmul__ = __mul__

    def __neg__(self) -> float:
        self.act()
        return float.__neg__(self)

    def __float__(self) -> float:
        self.act()
        return float.__float__(self)


@pytest.mark.parametrize("n", [7, 100_000])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.NAdam])
def test_a_rate_that_drops_the_gradient(make: Any, threads: int, n: int) -> None:
    torch.set_num_threads(threads)
    p = Parameter(torch.zeros(n))
    optimizer = make([p], lr=0.5)
    p.grad = filled(n)
    optimizer.step()
    kept = []

    def drop() -> None:
        p.grad = None
        kept.extend(filled(n, 1e9) for _ in range(4))

    optimizer.param_groups[0]["lr"] = Rate(0.5, drop)
    for _ in range(3):
        p.grad = filled(n)
        before = p.detach().clone()
        optimizer.step()
        assert (p - before).abs().max() < 1, "computed from memory that was free"


@pytest.mark.parametrize("n", [50, 30_000])
@pytest.mark.parametrize("fused", [None, False])
def test_a_signal_handler_that_exchanges_the_memory(n: int, fused: bool | None) -> None:
    """Whenever it comes, each step takes one whole gradient, and writes to living memory."""
    params = [Parameter(torch.zeros(n)) for _ in range(5)]
    optimizer = optim.SGD(params, lr=1.0, momentum=0.5, fused=fused)

    def exchange(*_: Any) -> None:
        for p in params:
            p.grad = filled(n)
            p.data = p.data.clone()
            entry = optimizer.state[p]
            if "momentum_buffer" in entry:
                entry["momentum_buffer"].data = entry["momentum_buffer"].data.clone()

    before = signal.signal(signal.SIGALRM, exchange)
    try:
        for k in range(300):
            for p in params:
                p.grad = filled(n)
            signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + 5 * (k % 60)))
            with contextlib.suppress(RuntimeError):  # changed while the step ran
                optimizer.step()
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    for p in params:
        assert p.isfinite().all()
        assert (p <= 0).all()


# ---- overlapping operands -------------------------------------------------------------------


def one_buffer(n: int) -> list[Parameter]:
    memory = torch.zeros(n)
    return [Parameter(memory) for _ in range(6)]


def tied(n: int) -> list[Parameter]:
    a, b, c = (Parameter(torch.zeros(n)) for _ in range(3))
    c.data = a.data
    return [a, b, c]


def shifted(n: int) -> list[Parameter]:
    memory = torch.zeros(2 * n)
    return [Parameter(memory[k : k + n]) for k in (0, n // 2, n)]


def grouped(params: list[Parameter]) -> Any:
    return [{"params": [p], "weight_decay": 0.1 * k} for k, p in enumerate(params)]


@pytest.mark.parametrize("n", [10, 40_000])
@pytest.mark.parametrize("layout", [one_buffer, tied, shifted])
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
@pytest.mark.parametrize("arranged", [list, grouped])
def test_parameters_that_share_memory_are_updated_one_after_the_other(
    arranged: Any, name: str, layout: Any, n: int
) -> None:
    torch.set_num_threads(2)
    found = []
    for module in (optim, torch.optim):
        params = layout(n)
        optimizer = getattr(module, name)(arranged(params), lr=0.01)
        draw = torch.Generator().manual_seed(0)
        for _ in range(5):
            for p in params:
                p.grad = torch.randn(n, generator=draw)
            optimizer.step()
        found.append(torch.stack([p.detach() for p in params]))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:sgd. fused=True, but there is no kernel")
@pytest.mark.parametrize("fused", [None, True])
def test_parameters_may_come_to_share_memory(fused: bool | None) -> None:
    params = [Parameter(torch.zeros(20_000)) for _ in range(8)]
    optimizer = optim.SGD(params, lr=1.0, fused=fused)
    for step in range(6):
        if step == 2:
            for p in params:
                p.data = params[0].data
        for p in params:
            p.grad = filled(20_000)
        optimizer.step()
    assert (params[0] == -2 - 4 * 8).all()
    for p in params:
        p.data = torch.zeros(20_000)
        optimizer.add_param_group({"params": [Parameter(torch.zeros(1))]})
    optimizer.step()
    assert (torch.stack([p.detach() for p in params]) == -1).all()


def gradient_is_the_parameter(params: list[Parameter]) -> None:
    params[0].grad = params[0].data


def gradient_is_anothers_memory(params: list[Parameter]) -> None:
    params[1].grad = params[0].data


def gradient_is_a_state(params: list[Parameter], state: Any) -> None:
    params[0].grad = state[params[0]]["exp_avg"]


@pytest.mark.parametrize("change", [gradient_is_the_parameter, gradient_is_anothers_memory])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_gradient_in_written_memory_is_read_as_by_torch(name: str, change: Any) -> None:
    torch.set_num_threads(2)
    found = []
    for module in (optim, torch.optim):
        draw = torch.Generator().manual_seed(1)
        params = [Parameter(torch.randn(50_000, generator=draw)) for _ in range(3)]
        optimizer = getattr(module, name)(params, lr=0.1, foreach=False)
        for step in range(4):
            for p in params:
                p.grad = torch.randn(50_000, generator=draw)
            if step >= 2:
                change(params)
            optimizer.step()
        found.append(torch.stack([p.detach() for p in params]))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_begins_within_its_parameter_raises_as_in_torch() -> None:
    for module in (optim, torch.optim):
        memory = torch.zeros(1001)
        p = Parameter(memory[:1000])
        optimizer = module.SGD([p], lr=1.0)
        p.grad = filled(1000)
        optimizer.step()
        p.grad = memory[1:]
        with pytest.raises(RuntimeError, match="single memory location"):
            optimizer.step()


# ---- storages -------------------------------------------------------------------------------


def parameter_without_storage(p: Parameter, state: Any) -> None:
    p.data.untyped_storage().resize_(0)


def parameter_with_less(p: Parameter, state: Any) -> None:
    p.data.untyped_storage().resize_(16)


def gradient_with_less(p: Parameter, state: Any) -> None:
    p.grad.untyped_storage().resize_(16)


def state_with_less(p: Parameter, state: Any) -> None:
    state[p]["exp_avg_sq"].untyped_storage().resize_(16)


@pytest.mark.parametrize(
    "shrink",
    [parameter_without_storage, parameter_with_less, gradient_with_less, state_with_less],
)
def test_what_reaches_beyond_its_storage_is_refused(shrink: Any) -> None:
    p = Parameter(torch.zeros(1000))
    optimizer = optim.Adam([p])
    p.grad = filled(1000)
    optimizer.step()
    shrink(p, optimizer.state)
    with pytest.raises(RuntimeError, match="storage"):
        optimizer.step()


# ---- states ---------------------------------------------------------------------------------


def _counting_child(optimizer: Any, params: list[Parameter], steps: int) -> None:
    child = os.fork()
    if not child:
        for _ in range(steps):
            optimizer.step()
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("module", [optim, torch.optim])
def test_states_shared_in_advance_are_those_that_all_processes_count_in(module: Any) -> None:
    params = [Parameter(torch.ones(3)).share_memory_() for _ in range(2)]
    optimizer = module.Adam(params, lr=0.1)
    for p in params:
        entry = {"step": torch.zeros(()), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
        optimizer.state[p].update({k: t.share_memory_() for k, t in entry.items()})
        p.grad = torch.ones(3)
    counts = [optimizer.state[p]["step"] for p in params]
    _counting_child(optimizer, params, 3)
    assert [c.item() for c in counts] == [3, 3]
    optimizer.step()
    _counting_child(optimizer, params, 1)
    assert [c.item() for c in counts] == [5, 5]
    assert [optimizer.state[p]["step"] is c for p, c in zip(params, counts, strict=True)]
    torch.testing.assert_close(params[0].detach(), torch.full((3,), 0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_count_whose_memory_was_replaced_counts_on(dtype: torch.dtype) -> None:
    p = Parameter(torch.ones(3))
    optimizer = optim.Adam([p], lr=0.1)
    p.grad = torch.ones(3)
    optimizer.step()
    optimizer.state[p]["step"].data = torch.tensor(100.0, dtype=dtype)
    for count in (101, 102):
        optimizer.step()
        assert optimizer.state[p]["step"].item() == count
    optimizer.state[p]["step"] = torch.tensor(7.0)
    optimizer.step()
    assert optimizer.state[p]["step"].item() == 8


# ---- tensors without memory -----------------------------------------------------------------


def _batched() -> None:
    p = Parameter(torch.zeros(5))
    optimizer = optim.SGD([p], lr=0.1)

    def stepped(x: Tensor) -> Tensor:
        p.grad = None
        p.grad = x
        optimizer.step()
        return x

    torch.vmap(stepped)(torch.ones(3, 5))


def _functional() -> None:
    p = Parameter(torch.zeros(5))
    optimizer = optim.SGD([p], lr=0.1)
    p.grad = torch.ones(5)
    optimizer.step()
    p.grad = None
    p.grad = torch._to_functional_tensor(torch.ones(5))
    optimizer.step()


def _zero() -> list[float]:
    p = Parameter(torch.ones(5))
    optimizer = optim.SGD([p], lr=0.1, weight_decay=1.0)
    for gradient in (torch.ones(5), torch._efficientzerotensor((5,))):
        p.grad = gradient
        optimizer.step()
    return [round(x, 4) for x in p.tolist()]


def _inference_after(step_inside: bool) -> int:
    p = Parameter(torch.ones(8))
    p.grad = torch.ones(8)
    optimizer = optim.Adam([p], lr=0.1)
    with torch.inference_mode(step_inside):
        optimizer.step()
    optimizer.step()
    return p._version


def _inference_state() -> None:
    p = Parameter(torch.ones(8))
    p.grad = torch.ones(8)
    optimizer = optim.Adam([p], lr=0.1)
    optimizer.step()
    with torch.inference_mode():
        optimizer.state[p]["exp_avg"] = torch.zeros(8)
    optimizer.step()


@pytest.mark.parametrize("function", [_batched, _functional, _inference_state])
def test_a_tensor_without_memory_is_refused(function: Any, native: str) -> None:
    if native == "native":
        outcome = apart(function)
        assert isinstance(outcome, Raised), outcome
        assert "RuntimeError" in outcome.kinds


def test_a_zero_without_memory_counts_as_zeros() -> None:
    assert apart(_zero) == Returned([0.72] * 5)


@pytest.mark.parametrize("inside", [False, True])
def test_a_first_step_in_inference_mode(inside: bool) -> None:
    outcome: Outcome = apart(_inference_after, inside)
    assert isinstance(outcome, Returned), outcome


# ---- after a fork ---------------------------------------------------------------------------


def test_a_child_steps_an_optimizer_that_another_thread_was_stepping() -> None:
    assert apart(_forked_while_stepping, longest=50) == Returned([0] * 5)


def _forked_while_stepping() -> list[int]:
    import threading

    torch.set_num_threads(1)
    params = [Parameter(torch.zeros(50_000)) for _ in range(10)]
    for p in params:
        p.grad = torch.ones(50_000)
    optimizer = optim.Adam(params)
    optimizer.step()
    over = threading.Event()

    def steps() -> None:
        while not over.is_set():
            optimizer.step()

    thread = threading.Thread(target=steps)
    thread.start()
    statuses = []
    for _ in range(5):
        child = os.fork()
        if not child:
            signal.alarm(8)
            optimizer.step()
            os._exit(0)
        statuses.append(os.waitpid(child, 0)[1])
    over.set()
    thread.join()
    return statuses


def test_a_child_steps_after_its_parent_used_several_threads() -> None:
    """Where torch's own step waits for threads that do not exist."""
    assert apart(_forked_after_threads, longest=50) == Returned(0)


def _forked_after_threads() -> int:
    torch.set_num_threads(2)
    p = Parameter(torch.zeros(1_000_000))
    p.grad = torch.ones(1_000_000)
    optimizer = optim.Adam([p])
    optimizer.step()
    child = os.fork()
    if not child:
        signal.alarm(8)
        optimizer.step()
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_no_reference_is_kept_after_a_step() -> None:
    for n in (10, 200_000):
        p = Parameter(torch.zeros(n))
        optimizer = optim.Adam([p])
        for _ in range(2):
            p.grad = filled(n)
            optimizer.step()
        gradient = weakref.ref(p.grad)
        p.grad = None
        gc.collect()
        assert gradient() is None
    assert torch_internals.missing_memory(torch.ones(1)) is None


def sum_of_counts_that_were_moved() -> float:
    rule = Rule(lambda p, g, s, h: p - g, name="plain")
    slots = slots_of([{"params": [Parameter(torch.zeros(1))]}])
    states = ScalarStates(rule, slots * 5_000_000)  # memory that is given back when it is freed
    before = states.table
    states.tensor.share_memory_()  # type: ignore[no-untyped-call]
    return float(before.sum())


def test_counts_that_are_moved_leave_memory_at_the_address_that_the_engine_has() -> None:
    assert apart(sum_of_counts_that_were_moved) == Returned(0.0)
