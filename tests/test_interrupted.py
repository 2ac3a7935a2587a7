"""What is set for a while is put back, whatever a signal handler raises and whenever."""

from __future__ import annotations

import ast
import signal
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import Parameter

import thalweg
from tests.fuzz.apart import Returned, apart
from thalweg import landscape, losses, optim
from thalweg.engine import observed
from thalweg.engine.copying import copy_values
from thalweg.optim import lr_scheduler
from thalweg.optim.swa_utils import AveragedModel, CarriedAverage, update_bn
from thalweg.race.protocol import evaluate
from thalweg.race.task import Task
from thalweg.range_test import lr_find


class Alarm(BaseException):
    """What a handler of another signal than Ctrl-C's raises."""


class Subject(NamedTuple):
    """A call, and what must be the same after it.

    Attributes:
        call: what is interrupted.
        seen: whatever Ctrl-C leaves, or puts back.
    """

    call: Callable[[], Any]
    seen: Callable[[], Any] = lambda: None


def _average() -> Subject:
    model = nn.ParameterList([torch.zeros(3)])
    average = AveragedModel(model, avg_fn=lambda average, value, n: average + (value - average) / 2)
    average.update_parameters(model)
    return Subject(lambda: average.update_parameters(model))


def _average_of_integers() -> Subject:
    model = nn.BatchNorm1d(2)
    average = AveragedModel(model, use_buffers=True)
    return Subject(lambda: average.update_parameters(model))


def _swap() -> Subject:
    p = Parameter(torch.zeros(3))
    optimizer = optim.SGD([p], lr=0.1)
    average = CarriedAverage(optimizer)
    for _ in range(2):
        p.grad = torch.ones(3)
        optimizer.step()

    def swap() -> None:
        with average.swapped():
            pass

    return Subject(swap, lambda: (p.tolist(), len(optimizer._optimizer_step_pre_hooks)))


def _batch_norm() -> Subject:
    model = nn.Sequential(nn.BatchNorm1d(2, momentum=0.3), nn.BatchNorm1d(2)).eval()
    batches = [torch.randn(4, 2)]
    return Subject(
        lambda: update_bn(batches, model),
        lambda: [(norm.momentum, norm.training) for norm in model],
    )


def _optimizer() -> optim.Optimizer:
    groups = [{"params": [Parameter(torch.zeros(1))]} for _ in range(4)]
    optimizer = optim.SGD(groups, lr=torch.tensor(1.0), momentum=0.5)
    optimizer.step()
    return optimizer


def _schedule() -> Subject:
    optimizer = _optimizer()
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (epoch + 1))

    def seen() -> tuple[bool, bool]:
        """Whether rates, epoch and count belong together."""
        rates = {float(group["lr"]) for group in optimizer.param_groups}
        whole = rates == {float(torch.tensor(1 / (scheduler.last_epoch + 1)))}
        counted = scheduler._step_count == scheduler.last_epoch + 1
        return whole and counted, scheduler._get_lr_called_within_step

    return Subject(scheduler.step, seen)


def _chain() -> Subject:
    optimizer = _optimizer()
    parts = [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.999)]
    chain = lr_scheduler.ChainedScheduler(parts)
    return Subject(
        chain.step,
        lambda: (
            {part.last_epoch - chain.last_epoch for part in parts},
            len({float(group["lr"]) for group in optimizer.param_groups}),
        ),
    )


def _plateau() -> Subject:
    optimizer = _optimizer()
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.999, patience=0, eps=0)
    return Subject(
        lambda: plateau.step(1.0),
        lambda: len({float(group["lr"]) for group in optimizer.param_groups}),
    )


def _explained() -> Subject:
    x, y = torch.ones(3), torch.zeros(3)
    return Subject(lambda: thalweg.explain(losses.mse_loss, x, y), lambda: observed.observer)


def _explained_by_itself() -> Subject:
    return Subject(lambda: thalweg.explain(losses.mse_loss), lambda: len(warnings.filters))


def _differentiated_twice() -> Subject:
    x, y = torch.ones(3, requires_grad=True), torch.zeros(3)

    def differentiate() -> None:
        torch.autograd.grad(losses.mse_loss(x, y), x, create_graph=True)

    return Subject(differentiate)


def _range_test() -> Subject:
    model = nn.Linear(2, 1)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    data = [(torch.ones(4, 2), torch.zeros(4, 1))]

    def seen() -> Any:
        tensors = [(p.tolist(), p._version, p.grad) for p in model.parameters()]
        return tensors, model.training, dict(optimizer.state), optimizer.param_groups[0]["lr"]

    return Subject(lambda: lr_find(model, data, optimizer, losses.mse_loss, steps=3), seen)


def _trajectory() -> Subject:
    surface, make = landscape.bowl(), partial(optim.SGD, lr=0.1)
    return Subject(lambda: landscape.trace(surface, make, steps=2))


def _surface() -> Subject:
    return Subject(lambda: landscape.bowl().grid(3))


def _evaluation() -> Subject:
    model = nn.Linear(2, 1)
    task = Task(
        name="a",
        model=lambda: model,
        batches=lambda split, generator: [torch.ones(4, 2)],
        loss=lambda model, batch: model(batch).mean(),
    )
    return Subject(lambda: evaluate(task, model, 0), lambda: "forward" in vars(model))


def _copies() -> Subject:
    pairs = [(torch.zeros(3), torch.ones(3))]
    return Subject(lambda: copy_values(pairs))


SUBJECTS = [
    _average, _average_of_integers, _swap, _batch_norm, _schedule, _chain, _plateau, _explained,
    _explained_by_itself, _differentiated_twice, _range_test, _trajectory, _surface, _evaluation,
    _copies,
]  # fmt: skip


def interrupted(name: str, seconds: float) -> tuple[int, list[str]]:
    """How often a call was interrupted by either, and what was not put back."""
    torch.set_num_threads(1)
    heard, faults = _interrupted(name, seconds, by_ctrl_c=False)
    heard_too, more = _interrupted(name, seconds, by_ctrl_c=True)
    return min(heard, heard_too), faults + more


def _interrupted(name: str, seconds: float, by_ctrl_c: bool) -> tuple[int, list[str]]:

    def ring(*_: Any) -> None:
        if by_ctrl_c:
            signal.raise_signal(signal.SIGINT)
        else:
            raise Alarm

    call, seen = globals()[name]()
    for _ in range(3):
        call()
    expected = seen()
    signal.signal(signal.SIGALRM, ring)
    handler = signal.getsignal(signal.SIGINT)
    heard, faults = 0, []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            # Again after a while: Python ignores what is raised within a finalizer.
            signal.setitimer(signal.ITIMER_REAL, 1e-5 * (20 + heard % 97), 0.05)
            while True:
                call()
        except (Alarm, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0)
            heard += 1
        if not torch.is_grad_enabled():
            faults.append("gradients are disabled")
            torch.set_grad_enabled(True)
        if by_ctrl_c and (now := seen()) != expected:
            faults.append(f"{expected} has become {now}")
        if by_ctrl_c and signal.getsignal(signal.SIGINT) is not handler:
            faults.append("Ctrl-C has another handler")
    call()
    return heard, faults


@pytest.mark.parametrize("seconds", [0.12, pytest.param(5.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.__name__)
def test_nothing_stays_set(subject: Callable[[], Subject], seconds: float) -> None:
    outcome = apart(interrupted, subject.__name__, seconds)
    assert isinstance(outcome, Returned), outcome
    heard, faults = outcome.value
    assert heard > 10
    assert not faults


SOURCE = Path(thalweg.__file__).parent
MODES = {"no_grad", "enable_grad", "set_grad_enabled", "inference_mode"}


def mode_setters(source: str) -> list[str]:
    """What sets one of torch's modes by Python code, with its line; doctests are none.

    >>> mode_setters("with torch.no_grad(): pass")
    ['1: no_grad']
    """
    found: list[str] = []
    if not any(mode in source for mode in MODES):
        return found
    for node in ast.walk(ast.parse(source)):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        names += [node.id] if isinstance(node, ast.Name) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        found += [f"{node.lineno}: {name}" for name in names if name in MODES]
    return found


@pytest.mark.parametrize(
    "source",
    [
        "with torch.no_grad(): pass",
        "with torch.autograd.set_grad_enabled(True): pass",
        "@torch.enable_grad()\ndef f(): pass",
        "from torch import inference_mode as quick",
    ],
)
def test_what_sets_a_mode_is_found(source: str) -> None:
    assert len(mode_setters(source)) == 1


def test_torchs_modes_are_set_by_functions_that_put_them_back() -> None:
    """Python's context managers lose them: see ``thalweg.engine.modes``."""
    found = {str(p.relative_to(SOURCE)): mode_setters(p.read_text()) for p in SOURCE.rglob("*.py")}
    assert {name: where for name, where in found.items() if where} == {}
