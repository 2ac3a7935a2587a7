"""Gradients that the step itself leaves at 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import thalweg.optim as optim
from tests.engine.interrupting import traced
from tests.optim.cases import DENSE
from tests.optim.test_nonfinite import BACKENDS, check_backend, everything, give_gradients, same
from tests.optim.test_nonfinite import parameters as made
from thalweg.transforms import adaptive_clipping, clip_by_norm

on_every_backend = pytest.mark.parametrize("backend", BACKENDS)


def gradients(params: list[Parameter]) -> list[Tensor]:
    return [p.grad for p in params if p.grad is not None]


def check_zero(params: list[Parameter], before: list[Tensor]) -> None:
    """The same tensors, at 0, and autograd knows that they were written."""
    assert all(a is b for a, b in zip(gradients(params), before, strict=True))
    assert all(not g.any() for g in before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@on_every_backend
@pytest.mark.parametrize("name", DENSE)
def test_gradients_are_0_and_the_step_is_the_same(
    name: str, backend: str, dtype: torch.dtype
) -> None:
    found = []
    for zeroed in (False, True):
        params = made(dtype)
        options = BACKENDS[backend] | {"zero_grad_after": zeroed}
        optimizer = getattr(optim, name)(params, lr=0.02, **options)
        for step in range(3):
            give_gradients(params, step)
            if step == 1:
                params[0].grad = None
            before = gradients(params)
            versions = [g._version for g in before]
            optimizer.step()
            assert all(bool(g.any()) is not zeroed for g in before)
            if zeroed:
                check_zero(params, before)
                assert all(g._version > v for g, v in zip(before, versions, strict=True))
        check_backend(optimizer, backend)
        found.append(everything(optimizer))
    assert same(*found)


@on_every_backend
def test_with_sums_before_and_accumulation_after(backend: str) -> None:
    params = made()
    around = [clip_by_norm(0.5), adaptive_clipping(0.5)]
    options = BACKENDS[backend] | {"zero_grad_after": True, "measure": ("gradient_norm",)}
    optimizer = optim.AdamW(params, transforms=around, **options)
    for _ in range(2):
        for _ in range(2):
            sum((p * p).sum() for p in params).backward()
        norm = torch.cat([p.grad.flatten() for p in params]).double().norm()
        before = gradients(params)
        optimizer.step()
        assert optimizer.measured["gradient_norm"] == pytest.approx(float(norm), rel=1e-6)
        check_zero(params, before)
    check_backend(optimizer, backend)


@on_every_backend
def test_gradients_that_lie_otherwise(backend: str) -> None:
    for around in ([], [adaptive_clipping(0.5)]):
        params = [Parameter(torch.randn(6, 5)), Parameter(torch.randn(4, 4, dtype=torch.complex64))]
        options = BACKENDS[backend] | {"zero_grad_after": True}
        optimizer = optim.AdamW(params, transforms=around, **options)
        for _ in range(2):
            for p in params:
                p.grad = torch.randn_like(p).mT.contiguous().mT
            before = gradients(params)
            optimizer.step()
            check_zero(params, before)


def test_sparse_gradients() -> None:
    for name, options in (("SparseAdam", {}), ("SGD", {"momentum": 0.9}), ("Adagrad", {})):
        p = Parameter(torch.ones(6, 2))
        optimizer = getattr(optim, name)([p], lr=0.1, zero_grad_after=True, **options)
        indices, values = [[1, 4]], torch.ones(2, 2)
        p.grad = torch.sparse_coo_tensor(indices, values, (6, 2), check_invariants=True)
        optimizer.step()
        assert not p.grad.to_dense().any()
        assert not torch.equal(p, torch.ones(6, 2))


@on_every_backend
def test_a_step_that_is_left_out_leaves_no_gradient_that_is_not_finite(backend: str) -> None:
    params = made()
    options = BACKENDS[backend] | {"zero_grad_after": True, "nonfinite": "skip"}
    optimizer = optim.AdamW(params, **options)
    give_gradients(params, 0, float("nan"))
    before = gradients(params)
    optimizer.step()
    assert optimizer.skipped_steps == 1
    check_zero(params, before)


def bad(what: str) -> tuple[list[Parameter], dict[str, Any]]:
    params = [Parameter(torch.ones(4)) for _ in range(2)]
    memory = torch.ones(8)
    if what == "the same":
        params[0].grad = params[1].grad = memory[:4]
    elif what == "overlapping":
        params[0].grad, params[1].grad = memory[:4], memory[2:6]
    elif what == "expanded":
        params[0].grad = torch.ones(1).expand(4)
    elif what == "the parameter":
        params[0].grad = params[0].detach()
    elif what == "differentiable":
        params = [(p * 1).detach().requires_grad_() for p in params]
        params[0].grad = memory[:4]
        return params, {"differentiable": True}
    return params, {}


@pytest.mark.parametrize(
    "what", ["the same", "overlapping", "expanded", "the parameter", "differentiable"]
)
def test_what_leaves_no_right_order_is_refused(what: str) -> None:
    params, options = bad(what)
    optimizer = optim.SGD(params, lr=0.5, zero_grad_after=True, **options)
    before = [g.clone() for g in gradients(params)]
    with pytest.raises(RuntimeError, match="zero_grad_after"):
        optimizer.step()
    assert all(map(torch.equal, gradients(params), before))
    assert torch.equal(params[0], torch.ones(4))


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="zero_grad_after must be True or False, got 'yes'"):
        optim.SGD(made(), zero_grad_after="yes")
    with pytest.raises(TypeError, match="LBFGS: zero_grad_after is for optimizers with a rule"):
        optim.LBFGS(made(), zero_grad_after=True)
    optimizer = optim.SGD(made())
    optimizer.zero_grad_after = True
    assert optimizer.zero_grad_after


def interrupted_step(instruction: int) -> tuple[bool, set[bool]]:
    """A step before one of whose instructions Ctrl-C comes.

    Returns:
        whether it had so many; of the update and all that becomes of gradients, whether it is done.
    """
    params = [Parameter(torch.ones(4, 2)), Parameter(torch.ones(3))]
    optimizer = optim.SGD(params, lr=0.1, zero_grad_after=True)
    for planned in (False, True):
        params[0].grad, params[1].grad = torch.ones(4, 2).to_sparse(1), torch.ones(3)
        version = params[1].grad._version
        if not planned:
            optimizer.step()
    before = [p.detach().clone() for p in params]
    try:
        reached = traced(optimizer.step, "/thalweg/", instruction) > instruction
    except KeyboardInterrupt:
        reached = True
    done = {not torch.equal(p, b) for p, b in zip(params, before, strict=True)}
    done |= {not g.to_dense().any() for g in gradients(params)}
    return reached, done | {params[1].grad._version > version}


def test_a_step_that_is_interrupted_is_done_with_its_gradients_or_not_made() -> None:
    instruction, reached = 0, True
    while reached:
        reached, done = interrupted_step(instruction)
        assert len(done) == 1, instruction
        instruction += 29
    assert instruction > 1000
