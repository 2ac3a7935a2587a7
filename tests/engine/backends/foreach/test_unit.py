"""Sums that stay on the device, gradients of any kind, and when lists are not asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter

from tests.engine.backends.contract import ODD, Case, Problem, Stepper, difference, reference, run
from thalweg import optim
from thalweg.engine.backends.base import Subject, Unit
from thalweg.engine.backends.foreach.backend import ForeachBackend
from thalweg.engine.backends.foreach.printer import source
from thalweg.engine.backends.foreach.unit import ForeachUnit
from thalweg.engine.backends.lowering import lower
from thalweg.engine.initial_states import formats_of
from thalweg.engine.slots import slots_of
from thalweg.rule import Rule, norm


@pytest.mark.parametrize("case", ODD, ids=str)
def test_sums_stay_on_the_device(case: Case) -> None:
    """On tensors without values; whatever asked for one would raise."""
    with FakeTensorMode() as pretended:
        params = [Parameter(torch.empty(3 + k, 2, device="cuda")) for k in range(4)]
    groups = [
        {**options, "params": params[2 * k : 2 * k + 2]} for k, options in enumerate(case.options)
    ]
    stepper = Stepper(ForeachBackend(), case.rule, groups)
    for absent in (3, 1):
        with pretended:
            for k, p in enumerate(params):
                p.grad = torch.empty_like(p) if k != absent else None
        units = stepper.plan()
        with pretended:
            stepper.run(units)
    assert stepper.scalars.table[:, 0].tolist() == [2, 1, 2, 1]


class OnDevice(ForeachBackend):
    """Computes with sums as on another device: in torch, without a copy."""

    def units(self, *args: Any) -> Sequence[Unit]:
        (unit,) = super().units(*args)
        assert isinstance(unit, ForeachUnit)
        unit.takes_floats = False
        return [unit]


@pytest.mark.parametrize("problem", [Problem(), Problem(torch.float64)], ids=["fp32", "fp64"])
def test_constants_from_sums_in_torch(problem: Problem) -> None:
    (case,) = [c for c in ODD if c.name == "trust-ratio"]
    exact = reference(case, problem)
    assert difference(run(OnDevice(), case, problem), exact) <= problem.tolerance


def test_one_constant_for_all_is_not_repeated() -> None:
    """A total over all tensors is multiplied with a list as one tensor."""

    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return p * norm(g, "all")

    program = Rule(rule).program({}, [1.0])
    text = source(lower(program, 1))
    assert "torch._foreach_mul_(x_p, r0)" in text


def test_gradients_of_any_kind() -> None:
    """Conjugated, negated, sparse and repeated ones give what their copies give."""
    z = torch.randn(4, 3, dtype=torch.complex64)
    kinds = [
        z.conj(),
        z.conj().imag,
        z.real.contiguous().to_sparse(),
        torch.randn(1, 3).expand(4, 3),
        torch.randn(3, 4).t(),
    ]
    for g in kinds:
        copy = g.to_dense() if g.is_sparse else g.clone().resolve_conj().resolve_neg().contiguous()
        params = []
        for gradient in (g, copy):
            p = Parameter(torch.ones(4, 3, dtype=g.dtype))
            p.grad = gradient
            given = optim.Adam([p])
            groups = [{**given.param_groups[0], "foreach": True}]
            Stepper(ForeachBackend(temporary_bytes=40), given.rule, groups).step()
            params.append(p.detach())
        torch.testing.assert_close(*params)
        assert not torch.equal(params[0], torch.ones_like(params[0]))


# -------------------------------------------------------------------------------------- obstacles


def obstacle(p: Any, g: Any = None, rows: bool = False, **options: Any) -> str | None:
    (slot,) = slots_of([{"params": [p], **options}])
    gradient = torch.ones_like(p) if g is None else g
    formats = formats_of(Rule(lambda p, g, s, h: p), slot, gradient, {}, ())
    subject = Subject(slot, gradient, {}, formats, rows, lambda: None)  # type: ignore[arg-type, return-value]
    return ForeachBackend().obstacle(subject)


def test_obstacles_are_told() -> None:
    p = Parameter(torch.ones(2))
    with FakeTensorMode():
        elsewhere = Parameter(torch.ones(2, device="cuda"))
        gradient = torch.ones(2, device="cuda")
    assert obstacle(p, foreach=True) is None
    assert obstacle(elsewhere, gradient) is None
    assert obstacle(elsewhere, gradient, fused=False, foreach=True) is None
    for told, words in [
        (obstacle(p), "p is on the CPU"),
        (obstacle(elsewhere, gradient, fused=False), "fused=False"),
        (obstacle(p, foreach=True, differentiable=True), "differentiable=True"),
        (obstacle(p, rows=True, foreach=True), "only the rows"),
        (obstacle(p, gradient, foreach=True), "g is on cuda:0, p on cpu"),
        (obstacle(p, p.detach().as_subclass(Other), foreach=True), "g is a Other"),
        (obstacle(torch.ones(2, dtype=torch.complex64).conj(), foreach=True), "conjugates"),
        (obstacle(torch.ones(2).to(torch.float8_e5m2), p, foreach=True), "float8_e5m2"),
    ]:
        assert told is not None
        assert words in told
    with torch.inference_mode():
        unseen = torch.ones(2)
    assert "inference" in (obstacle(unseen, foreach=True) or "")


class Other(torch.Tensor):
    """A kind of tensor that nobody knows."""
