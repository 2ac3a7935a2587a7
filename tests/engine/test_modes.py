"""Modes of torch are put back, whatever a signal handler raises and whenever."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.fuzz.apart import Returned, apart
from thalweg import optim
from thalweg.engine.modes import outside_inference, with_gradients, with_real_tensors


class Alarm(Exception):
    """What the handler raises."""


def _steps_under_alarms(options: dict[str, Any], seconds: float) -> tuple[int, int, bool]:
    def ring(*_: Any) -> None:
        raise Alarm

    signal.signal(signal.SIGALRM, ring)
    interrupt = signal.getsignal(signal.SIGINT)
    name = options.pop("name", "SGD")
    p = Parameter(torch.zeros(5))
    p.grad = torch.ones(5)
    p.requires_grad_("differentiable" not in options)
    optimizer = getattr(optim, name)([p], lr=1e-9, **options)
    heard = lost = 0

    def closure() -> float:
        return 0.0

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            # Again after a while: Python ignores what is raised within a finalizer.
            signal.setitimer(signal.ITIMER_REAL, 1e-5 * (20 + heard % 97), 0.05)
            while True:
                optimizer.step(closure)
        except Alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            heard += 1
        lost += not torch.is_grad_enabled()
        torch.set_grad_enabled(True)
    signal.setitimer(signal.ITIMER_REAL, 0)
    optimizer.step(closure)
    return heard, lost, signal.getsignal(signal.SIGINT) is interrupt


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fused": False},
        {"fused": False, "foreach": True},
        {"differentiable": True},
        {"name": "LBFGS"},
    ],
    ids=str,
)
def test_an_exception_of_a_signal_handler_leaves_no_mode_set(options: dict[str, Any]) -> None:
    outcome = apart(_steps_under_alarms, options, 0.7)
    assert isinstance(outcome, Returned), outcome
    heard, lost, put_back = outcome.value
    assert heard > 30
    assert lost == 0
    assert put_back, "Ctrl-C is handled as before"


@pytest.mark.parametrize("before", [True, False])
def test_gradients_are_as_asked_for_inside_and_as_before_outside(before: bool) -> None:
    def fail() -> None:
        raise ValueError(torch.is_grad_enabled())

    with torch.set_grad_enabled(before):
        for asked in (True, False):
            assert with_gradients(asked)(torch.is_grad_enabled)() is asked
            with pytest.raises(ValueError, match=str(asked)):
                with_gradients(asked)(fail)()
            assert torch.is_grad_enabled() is before


def test_what_is_made_outside_of_inference_is_an_ordinary_tensor() -> None:
    with torch.inference_mode():
        made = outside_inference(torch.zeros)(3)
        assert torch.is_inference_mode_enabled()
    assert not made.is_inference()


def test_real_tensors_have_memory() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        made = with_real_tensors(torch.ones)(3)
    assert type(made) is torch.Tensor
    assert made.tolist() == [1, 1, 1]
