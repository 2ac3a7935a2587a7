"""A step of LBFGS is made whole, or not at all where its closure raises or Ctrl-C comes."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from thalweg.optim.lbfgs import LBFGS

STEPS = 6
# The ring wraps around within a step; it grows within one; it stays as it is.
SIZES = pytest.mark.parametrize("size", [3, 100])
SEARCH = pytest.mark.parametrize("search", [None, "strong_wolfe"])


class Stop(Exception):
    pass


class Run:
    """A problem with a run of LBFGS; before the evaluation ``call``, ``fault`` is called."""

    def __init__(self, search: str | None, size: int) -> None:
        curvature = torch.logspace(0, 2, 12, dtype=torch.float64)
        self.x = torch.linspace(-1, 1, 12, dtype=torch.float64).requires_grad_()
        self.y = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        self.optimizer = LBFGS(
            [self.x, self.y], lr=0.5, max_iter=7, history_size=size, line_search_fn=search
        )
        self.curvature = curvature
        self.calls = 0
        self.call = -1
        self.fault: Callable[[], None] = lambda: None

    def closure(self) -> Tensor:
        self.optimizer.zero_grad()
        x = self.x + self.y
        loss = 0.5 * (self.curvature * x * x).sum() + 0.1 * x.pow(4).sum() + self.y.square()
        loss.backward()
        if self.calls == self.call:
            self.fault()
        self.calls += 1
        return loss

    def content(self) -> bytes:
        """Everything that a step may change, as bytes."""
        file = io.BytesIO()
        entry = dict(self.optimizer.state_dict()["state"].get(0, {}))
        torch.save([self.x, self.y, entry], file)
        return file.getvalue()


def fault_raise() -> None:
    raise Stop


def fault_signal() -> None:
    signal.raise_signal(signal.SIGINT)


@SEARCH
@SIZES
@pytest.mark.parametrize("fault", [fault_raise, fault_signal], ids=["raise", "signal"])
def test_wherever_it_stops_the_step_is_undone_and_made_again(
    search: str | None, size: int, fault: Callable[[], None]
) -> None:
    whole = Run(search, size)
    expected, ends = [], []
    for _ in range(STEPS):
        expected.append(whole.content())
        whole.optimizer.step(whole.closure)
        ends.append(whole.calls)
    expected.append(whole.content())
    assert ends[-1] > 20

    run = Run(search, size)
    run.fault = fault
    begin = 0
    for step, end in enumerate(ends):
        for call in range(begin, end):
            run.calls, run.call = begin, call
            with pytest.raises((Stop, KeyboardInterrupt)):
                run.optimizer.step(run.closure)
            assert run.content() == expected[step], f"step {step}, evaluation {call - begin}"
        run.calls, run.call = begin, -1
        run.optimizer.step(run.closure)
        assert run.content() == expected[step + 1]
        begin = end


def test_a_signal_outside_of_the_closure_comes_after_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, run = Run(None, 3), Run(None, 3)
    for each in (whole, run):
        each.optimizer.param_groups[0]["max_iter"] = 1  # no evaluation after the first
    whole.optimizer.step(whole.closure)
    move = torch.add
    monkeypatch.setattr(torch, "add", lambda *a, **k: (fault_signal(), move(*a, **k))[1])
    with pytest.raises(KeyboardInterrupt):
        run.optimizer.step(run.closure)
    assert run.content() == whole.content()


def test_the_first_step_may_be_the_one_that_stops() -> None:
    run = Run(None, 3)
    run.call, run.fault = 3, fault_raise
    with pytest.raises(Stop):
        run.optimizer.step(run.closure)
    assert not run.optimizer.state
    assert run.optimizer.step_count == 0
