"""What becomes of a step with gradients that are not finite."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import thalweg.optim as optim
from tests.optim.cases import DENSE
from thalweg.transforms import averaged, clip_by_norm

BACKENDS = {
    "cpu": {},
    "foreach": {"foreach": True, "fused": False},
    "eager": {"foreach": False, "fused": False},
}
on_every_backend = pytest.mark.parametrize("backend", BACKENDS)
BAD = [float("nan"), float("inf"), -float("inf")]


def parameters(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(5, 8), (11,), (3, 2, 4)]
    return [Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def give_gradients(params: list[Parameter], seed: int, bad: float | None = None) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
    if bad is not None:
        params[1].grad[3] = bad


def everything(optimizer: Any) -> list[Tensor]:
    """Copies of parameters and states."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [x for entry in optimizer.state.values() for x in entry.values()]
    return [x.detach().clone() for x in (*params, *states)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def check_backend(optimizer: Any, backend: str) -> None:
    found = {choice.backend for choice in optimizer._engine.choices.values()}
    assert found == {backend}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@on_every_backend
@pytest.mark.parametrize("name", DENSE)
def test_a_skipped_step_leaves_no_trace(name: str, backend: str, dtype: torch.dtype) -> None:
    """Left out first, later and twice, it is as if the step had never been asked for."""
    found = []
    for seeds in ([None, 1, None, None, 2, 3], [1, 2, 3]):
        params = parameters(dtype)
        optimizer = getattr(optim, name)(params, nonfinite="skip", **BACKENDS[backend])
        if name == "SGD":
            optimizer.param_groups[0]["momentum"] = 0.9
        for k, seed in enumerate(seeds):
            before = everything(optimizer)
            give_gradients(params, seed or 7, BAD[k % 3] if seed is None else None)
            optimizer.step()
            assert same(before, everything(optimizer)) is (seed is None), k
            check_backend(optimizer, backend)
        assert optimizer.skipped_steps == seeds.count(None)
        assert optimizer.step_count == 3
        found.append(everything(optimizer))
    assert same(*found)


@on_every_backend
def test_all_groups_are_left_out_together(backend: str) -> None:
    """Other dtypes, other switches, other numbers of stages: one bad element keeps all back."""
    a, b, c = parameters(), parameters(torch.float64), parameters(torch.bfloat16)
    groups = [{"params": a}, {"params": b, "max_norm": 1.0}, {"params": c, "amsgrad": True}]
    optimizer = optim.AdamW(
        groups,
        transforms=[clip_by_norm(float("inf")), averaged(0.5)],
        nonfinite="skip",
        **BACKENDS[backend],
    )
    for bad in (a, b, c, None):
        for params in (a, b, c):
            give_gradients(params, 3, float("nan") if params is bad else None)
        before = everything(optimizer)
        optimizer.step()
        assert same(before, everything(optimizer)) is (bad is not None)
        check_backend(optimizer, backend)


@on_every_backend
def test_raise_names_the_parameters_and_changes_nothing(backend: str) -> None:
    params = parameters()
    named = [(f"layer.{k}", p) for k, p in enumerate(params)]
    optimizer = optim.Adam(named, nonfinite="raise", **BACKENDS[backend])
    give_gradients(params, 1)
    optimizer.step()
    before = everything(optimizer)
    give_gradients(params, 2, float("nan"))
    params[2].grad.fill_(float("inf"))
    with pytest.raises(RuntimeError, match=r"layer\.1.*1 of 11 el.*layer\.2.*24 of 24") as caught:
        optimizer.step()
    assert "layer.0" not in str(caught.value)
    assert same(before, everything(optimizer))
    assert optimizer.skipped_steps == 0


@on_every_backend
def test_zero_takes_such_elements_for_0(backend: str) -> None:
    found = []
    for zeroed in (False, True):
        params = parameters()
        options = BACKENDS[backend] | ({"nonfinite": "zero"} if zeroed else {})
        optimizer = optim.AdamW(params, transforms=[clip_by_norm(1.0)], **options)
        for k, bad in enumerate(BAD):
            give_gradients(params, k, bad)
            if not zeroed:
                params[1].grad[3] = 0.0
            before = [p.grad.clone() for p in params]
            optimizer.step()
            assert all(p.grad.equal(g) or zeroed for p, g in zip(params, before, strict=True))
        check_backend(optimizer, backend)
        found.append(everything(optimizer))
    assert same(*found)


def test_a_gradient_too_large_for_its_square_is_finite() -> None:
    params = parameters()
    optimizer = optim.SGD(params, lr=0.5, nonfinite="skip")
    give_gradients(params, 1)
    params[0].grad.fill_(3e38)
    optimizer.step()
    assert optimizer.skipped_steps == 0


def test_gradients_of_a_step_left_out_are_not_kept() -> None:
    params = parameters()
    optimizer = optim.AdamW(params, nonfinite="skip")
    for _ in range(2):
        give_gradients(params, 1, float("nan"))
        held = [weakref.ref(p.grad) for p in params]
        optimizer.step()
        optimizer.zero_grad()
        assert not any(ref() is not None for ref in held)


def test_absent_gradients_are_finite() -> None:
    params = parameters()
    optimizer = optim.AdamW(params, nonfinite="skip")
    give_gradients(params, 1)
    params[1].grad = None
    optimizer.step()
    assert optimizer.skipped_steps == 0
    assert params[1] not in optimizer.state


def test_sparse_gradients_are_looked_at() -> None:
    p = Parameter(torch.ones(6, 2))
    optimizer = optim.SGD([p], lr=0.5, nonfinite="skip")
    for value in (float("nan"), 1.0):
        values = [[1.0, value], [1.0, 1.0]]
        p.grad = torch.sparse_coo_tensor([[1, 4]], values, (6, 2), check_invariants=True)
        optimizer.step()
    assert optimizer.skipped_steps == 1
    assert p[:, 0].tolist() == [1.0, 0.5, 1.0, 1.0, 0.5, 1.0]


def test_it_may_be_set_between_steps_and_is_copied_but_not_saved() -> None:
    params = parameters()
    optimizer = optim.AdamW(params)
    optimizer.nonfinite = "skip"
    give_gradients(params, 1, float("nan"))
    optimizer.step()
    other = copy.deepcopy(optimizer)
    assert (other.nonfinite, other.skipped_steps) == ("skip", 1)
    assert "nonfinite" not in str(optimizer.state_dict())
    optimizer.nonfinite = "propagate"
    optimizer.step()
    assert params[0].isfinite().all()
    assert not params[1].isfinite().all()


@pytest.mark.parametrize("choice", ["Skip", "ignore", None, 1])
def test_wrong_choices(choice: Any) -> None:
    with pytest.raises(ValueError, match=r"AdamW: nonfinite must be one of 'propagate'.*got"):
        optim.AdamW(parameters(), nonfinite=choice)
    optimizer = optim.AdamW(parameters(), nonfinite="zero")
    with pytest.raises(ValueError, match="nonfinite"):
        optimizer.nonfinite = choice
    assert optimizer.nonfinite == "zero"


def test_an_optimizer_without_a_rule_refuses_it() -> None:
    with pytest.raises(TypeError, match="LBFGS: nonfinite is for optimizers with a rule"):
        optim.LBFGS(parameters(), nonfinite="skip")


def test_raise_and_a_scaler_exclude_each_other() -> None:
    params = parameters()
    optimizer = optim.AdamW(params, fused=True, nonfinite="raise")
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(sum((p * p).sum() for p in params)).backward()
    before = everything(optimizer)
    with pytest.raises(RuntimeError, match="cannot be had with a GradScaler"):
        scaler.step(optimizer)
    assert same(before, everything(optimizer))


def test_a_misspelt_argument_is_told_with_its_neighbour() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'nonfinit'; did you mean"):
        optim.AdamW(parameters(), nonfinit="skip")
