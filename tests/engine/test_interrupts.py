"""Ctrl-C: blocks that it does not cut in two, and steps that are made whole or not at all."""

from __future__ import annotations

import _signal
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.engine import interrupted_steps
from tests.engine.interrupted_steps import SUBJECTS, Subject
from tests.engine.interrupting import instructions, interrupt_before, traced
from thalweg import optim
from thalweg.engine.interrupts import uninterrupted
from thalweg.optim import carried_average
from thalweg.optim.swa_utils import CarriedAverage

OWN = "engine/interrupts.py"


def come() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def handler() -> Iterator[list[str]]:
    """The calls of a handler that does not raise, which is installed meanwhile."""
    calls: list[str] = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append("handled"))
    yield calls
    signal.signal(signal.SIGINT, before)


# ---- the block ------------------------------------------------------------------------------


def test_the_users_own_handler_is_called_after_the_block(handler: list[str]) -> None:
    own = signal.getsignal(signal.SIGINT)
    with uninterrupted():
        come()
        handler.append("block")
    assert handler == ["block", "handled"]
    assert signal.getsignal(signal.SIGINT) is own


def test_without_a_signal_nothing_is_called(handler: list[str]) -> None:
    with uninterrupted():
        pass
    assert handler == []


def test_once_for_each_signal_that_came(handler: list[str]) -> None:
    with uninterrupted():
        come()
        come()
    assert handler == ["handled"] * 2


def test_nested_blocks_wait_for_the_outermost(handler: list[str]) -> None:
    with uninterrupted():
        with uninterrupted():
            come()
        handler.append("outer")
        come()
    assert handler == ["outer", "handled", "handled"]


def test_the_handler_gets_the_frame_in_which_the_block_ends() -> None:
    frames: list[FrameType | None] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: frames.append(frame))
    try:
        with uninterrupted():
            come()
        assert frames == [sys._getframe()]
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_the_handler_raises_comes_out_of_the_block_and_drops_the_rest() -> None:
    done = []

    def block() -> None:
        with uninterrupted():
            come()
            come()
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_block_is_the_context_of_the_interrupt() -> None:
    def block() -> None:
        with uninterrupted():
            come()
            raise ValueError("block")

    with pytest.raises(KeyboardInterrupt) as caught:
        block()
    assert isinstance(caught.value.__context__, ValueError)
    with pytest.raises(ValueError, match="block"), uninterrupted():
        raise ValueError("block")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_function_within_may_be_interrupted() -> None:
    done = []

    def block() -> None:
        with uninterrupted() as shield:
            try:
                shield.but_for(come)
            finally:
                come()
                done.append(1)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == [1]
    with uninterrupted() as shield:
        assert shield.but_for(lambda: 3) == 3
        assert type(signal.getsignal(signal.SIGINT)) is uninterrupted
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_has_waited_is_handled_before_that_function(handler: list[str]) -> None:
    with uninterrupted() as shield:
        come()
        shield.but_for(lambda: handler.append("function"))
    assert handler == ["handled", "function"]


def test_within_another_block_that_function_is_not_interrupted(handler: list[str]) -> None:
    with uninterrupted(), uninterrupted() as shield:
        shield.but_for(come)
        handler.append("block")
    assert handler == ["block", "handled"]


def test_a_handler_that_the_function_installs_stays(handler: list[str]) -> None:
    own = signal.getsignal(signal.SIGINT)
    with uninterrupted() as shield:
        shield.but_for(lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, own)


def test_in_another_thread_nothing_is_done() -> None:
    found = []

    def block() -> None:
        with uninterrupted() as shield:
            found.append(signal.getsignal(signal.SIGINT))
            shield.but_for(lambda: found.append(signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler] * 2


@pytest.mark.parametrize("kind", [signal.SIG_IGN, signal.SIG_DFL])
def test_handlers_that_are_not_pythons_stay(kind: signal.Handlers) -> None:
    before = signal.signal(signal.SIGINT, kind)
    try:
        with uninterrupted():
            assert signal.getsignal(signal.SIGINT) is kind
            if kind is signal.SIG_IGN:
                come()
        assert signal.getsignal(signal.SIGINT) is kind
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_c_installed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_signal, "getsignal", lambda number: None)
    monkeypatch.setattr(_signal, "signal", lambda *_: pytest.fail("this could not be put back"))
    with uninterrupted():
        pass


def test_another_signals_handler_that_raises_leaves_the_users_installed() -> None:
    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stop), uninterrupted():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        # It is pending when the handler is put back, which first lets it raise.
        put_back = _signal.signal
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop), uninterrupted():
            patch.setattr(_signal, "signal", lambda *a: (patch.undo(), stop(), put_back(*a)))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("nested", [False, True])
def test_at_every_instruction_the_block_runs_whole_or_not_at_all(nested: bool) -> None:
    ran: list[int] = []

    def block() -> None:
        with uninterrupted():
            if nested:
                with uninterrupted() as shield:
                    ran.append(1)
                    shield.but_for(int)
            else:
                ran.append(1)
            ran.append(2)

    for number in range(instructions(block, OWN)):
        ran.clear()
        with pytest.raises(KeyboardInterrupt):
            interrupt_before(block, OWN, number)
        assert ran in ([], [1, 2]), number
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, number


# ---- the step -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize("steps", [0, 3])
def test_at_any_instruction_a_step_is_made_whole_or_not_at_all(name: str, steps: int) -> None:
    _check_instructions(name, steps, count=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_at_many_instructions_a_step_is_made_whole_or_not_at_all(name: str, steps: int) -> None:
    _check_instructions(name, steps, count=150)


def _check_instructions(name: str, steps: int, count: int) -> None:
    def begun() -> Subject:
        subject = Subject(name)
        for _ in range(steps):
            subject.step()
        return subject

    whole = begun()
    contents = [whole.content()]
    for _ in range(2):
        whole.step()
        contents.append(whole.content())
    assert len(set(contents)) == 3
    subject = begun()
    total = instructions(subject.step, "/thalweg/")
    draw = random.Random(f"{name} {steps}")
    for number in sorted(draw.sample(range(total), min(count, total))):
        subject = begun()
        with pytest.raises(KeyboardInterrupt):
            interrupt_before(subject.step, "/thalweg/", number)
        place = f"instruction {number} of {total}"
        found = subject.content()
        assert found in contents[:2], place
        # The next step is right, too.
        subject.k = steps + contents.index(found)
        while subject.k < steps + 2:
            subject.step()
        assert subject.content() == contents[2], place


@pytest.fixture
def signals_raise() -> Iterator[None]:
    """A handler of SIGUSR1 that raises TimeoutError, which no block makes wait."""

    def handle(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGUSR1, handle)
    yield
    signal.signal(signal.SIGUSR1, before)


def ended_before_each(files: str, made: Callable[[], tuple[Any, Callable[[int], None]]]) -> int:
    """Steps that are ended before an instruction of these files, each once, and made again.

    Args:
        files: see :func:`traced`.
        made: an optimizer before its step, and what checks it afterwards, given the instruction.

    Returns:
        How many instructions there are.
    """
    number, count = 0, 1
    while number < count:
        optimizer, check = made()
        try:
            count = traced(optimizer.step, files, number, signal.SIGUSR1)
        except TimeoutError:
            count = number + 2
            optimizer.step()
        check(number)
        number += 1
    return number


@pytest.mark.usefixtures("signals_raise")
def test_a_plan_that_another_signal_ends_is_made_anew() -> None:
    """Parameters are numbered anew, and their scalar states with them, before any instruction."""

    def made() -> tuple[Any, Callable[[int], None]]:
        first, second = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
        first.grad, second.grad = torch.ones(3), torch.ones(3)
        optimizer = optim.SGD([first], lr=0.5, foreach=True)
        optimizer.step()
        optimizer.add_param_group({"params": [second]})

        def check(number: int) -> None:
            assert (first.tolist(), second.tolist()) == ([0.0] * 3, [0.5] * 3), number

        return optimizer, check

    assert ended_before_each("engine/plan.py", made) > 500


@pytest.mark.usefixtures("signals_raise")
def test_scalar_states_that_have_moved_are_found_whatever_ends_the_search() -> None:
    """A state that is shared takes all of them to other memory; what they left is freed."""

    def made() -> tuple[Any, Callable[[int], None]]:
        p = torch.nn.Parameter(torch.ones(3))
        p.grad = torch.ones(3)
        optimizer = optim.Adam([p], lr=0.5)
        optimizer.step()
        optimizer.state[p]["step"].share_memory_()

        def check(number: int) -> None:
            # The step that was ended may have been made before.
            assert float(optimizer.state[p]["step"]) in (2, 3), number

        return optimizer, check

    assert ended_before_each("engine/scalars.py", made) > 100


@pytest.mark.slow
def test_signals_of_another_process_at_random_moments() -> None:
    _check_signals(cases=26)  # of each subject


@pytest.mark.slow
def test_many_signals_of_another_process_at_random_moments() -> None:
    _check_signals(cases=100)


def _check_signals(cases: int) -> None:
    """Run ``interrupted_steps`` in a process of its own and send it signals when it asks."""
    root = Path(__file__).parents[2]
    code = [sys.executable, "-m", interrupted_steps.__name__, str(cases)]
    draw = random.Random(cases)
    asked, sent, report = 0, 0, []
    with subprocess.Popen(code, cwd=root, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line == "now\n":
                asked += 1
                time.sleep(draw.expovariate(1 / 0.001))
                os.kill(child.pid, signal.SIGINT)
                sent += 1
            else:
                report.append(line.strip())
    assert child.returncode == 0, report
    assert report == [f"{name}: {cases} cases" for name in SUBJECTS]
    assert asked == sent == cases * len(SUBJECTS)


def test_a_signal_while_averages_are_swapped_back_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject("carried average")
    for _ in range(4):
        subject.step()
    before = [p.detach().clone() for p in subject.params]
    average = CarriedAverage(subject.optimizer, decay=0.9, start=1)
    write = carried_average._write

    def interrupted(targets: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
        write(targets[:2], values[:2])
        come()
        write(targets[2:], values[2:])

    with pytest.raises(KeyboardInterrupt):
        swap_back(average, lambda: monkeypatch.setattr(carried_average, "_write", interrupted))
    assert all(map(torch.equal, subject.params, before))
    subject.step()  # is not refused


def swap_back(average: CarriedAverage, inside: Callable[[], object]) -> None:
    with average.swapped():
        inside()


# ---- a step that raises ---------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
def test_an_eager_update_that_raises_leaves_each_parameter_updated_or_not(begun: bool) -> None:
    """Here the second of three; what comes later, kernels included, is as it was."""
    failing = False

    class OutOfMemory(TorchDispatchMode):
        """The first operation that writes to the second parameter's tensors raises."""

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if function.__name__.split(".")[0].endswith("_") and args[0].shape == (2,):
                raise MemoryError
            return function(*args, **(kwargs or {}))

    params = [torch.nn.Parameter(torch.full((n,), 1.0)) for n in (1, 2, 3, 4)]
    eager, kernel = {"params": params[:3], "fused": False}, {"params": params[3:]}
    optimizer = optim.SGD([kernel, eager], lr=0.1, momentum=0.9, dampening=0.5)
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    twin = optim.SGD(twins, lr=0.1, momentum=0.9, dampening=0.5)

    def give(tensors: Sequence[torch.nn.Parameter]) -> None:
        for p in tensors:
            p.grad = torch.ones_like(p)

    def alike() -> bool:
        return all(
            torch.equal(p, q)
            and p._version - before[i] == (not failing or i == 0)
            and str(optimizer.state.get(p, {})) == str(twin.state.get(q, {}))
            for i, (p, q) in enumerate(zip(params, twins, strict=True))
        )

    give(params)
    give(twins)
    if begun:
        optimizer.step()
        twin.step()
    before = [p._version for p in params]
    failing = True
    with pytest.raises(MemoryError), OutOfMemory():
        optimizer.step()
    for q in twins[1:]:
        q.grad = None
    twin.step()
    assert alike()
    assert optimizer.step_count == begun

    failing = False
    before = [p._version for p in params]
    give(twins)
    optimizer.step()
    twin.step()
    assert alike()
