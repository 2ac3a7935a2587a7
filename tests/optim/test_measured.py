"""Norms and ratios that a step measures, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

import thalweg.optim as optim
from tests.optim.cases import DENSE
from tests.optim.test_nonfinite import BACKENDS, check_backend, give_gradients, parameters
from thalweg.transforms import averaged, clip_by_norm, clip_by_value
from thalweg.transforms.measuring import SUMS

ALL = tuple(SUMS)
on_every_backend = pytest.mark.parametrize("backend", BACKENDS)


def norms(params: list[Parameter], before: list[Parameter]) -> dict[str, float]:
    """What there is to measure of these, as a step has changed them."""

    def flat(tensors: Any) -> Any:
        return torch.cat([x.detach().double().flatten() for x in tensors])

    given = [(p, b) for p, b in zip(params, before, strict=True) if p.grad is not None]
    weights = flat(b for _, b in given)
    updates = flat(p for p, _ in given) - weights
    found = {
        "gradient_norm": flat(p.grad for p, _ in given).norm(),
        "weight_norm": weights.norm(),
        "update_norm": updates.norm(),
        "update_ratio": updates.norm() / weights.norm(),
    }
    return {name: float(x) for name, x in found.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@on_every_backend
@pytest.mark.parametrize("name", DENSE)
def test_norms_are_those_of_a_float64_sum(name: str, backend: str, dtype: torch.dtype) -> None:
    """And the measured optimizer makes the steps of one that measures nothing, bit for bit."""
    params, plain = parameters(dtype), parameters(dtype)
    options = BACKENDS[backend]
    optimizer = getattr(optim, name)(params, lr=0.02, measure=ALL, **options)
    unmeasured = getattr(optim, name)(plain, lr=0.02, **options)
    for step in range(3):
        before = [p.detach().clone() for p in params]
        for own in (params, plain):
            give_gradients(own, step)
            if step == 1:
                own[1].grad = None
        optimizer.step()
        unmeasured.step()
        check_backend(optimizer, backend)
        wanted = norms(params, before)
        assert wanted["update_norm"] > 0 or (name, step) == ("ADOPT", 0)
        # The update itself is not rounded; the difference that it has made is.
        ulp = torch.finfo(dtype).eps * wanted["weight_norm"]
        for key, value in wanted.items():
            assert optimizer.measured[key] == pytest.approx(value, rel=2e-6, abs=ulp)
        assert optimizer.measured["clipped_share"] == 0.0
        assert optimizer.measured["lost_share"] < 1.0
        for p, old in zip(params, before, strict=True):
            if p.grad is None:
                with pytest.raises(KeyError, match="had no gradient"):
                    optimizer.measured.of(p)
                continue
            for key, value in norms([p], [old]).items():
                assert optimizer.measured.of(p)[key] == pytest.approx(value, rel=2e-6, abs=ulp)
    if backend == "cpu" and name != "LAMB":  # whose own sums go another way
        assert all(torch.equal(p, q) for p, q in zip(params, plain, strict=True))
    torch.testing.assert_close(params, plain, rtol=1e-6, atol=1e-7)


@on_every_backend
def test_an_update_that_16_bits_cannot_hold_is_measured_before_it_is_rounded(backend: str) -> None:
    p = Parameter(torch.ones(64, dtype=torch.bfloat16))
    p.grad = torch.ones_like(p)
    asked = ("update_norm", "lost_share")
    optimizer = optim.SGD([p], lr=1e-6, measure=asked, **BACKENDS[backend])
    optimizer.step()
    assert optimizer.measured["lost_share"] == 1.0
    assert p.tolist() == [1.0] * 64
    assert optimizer.measured["update_norm"] == pytest.approx(8e-6, rel=1e-6)
    check_backend(optimizer, backend)


@on_every_backend
def test_gradients_are_measured_before_clips_and_after_unscaling(backend: str) -> None:
    params = parameters()
    around = [clip_by_value(0.5), clip_by_norm(0.25), averaged(0.9)]
    options = {**BACKENDS[backend], "measure": ("gradient_norm", "update_norm")}
    optimizer = optim.SGD(params, lr=1.0, transforms=around, **options)
    give_gradients(params, 1)
    wanted = norms(params, params)["gradient_norm"]
    optimizer.step()
    assert optimizer.measured["gradient_norm"] == pytest.approx(wanted, rel=1e-6)
    assert optimizer.measured["update_norm"] == pytest.approx(0.25, rel=1e-3)


def test_unscaled_gradients_are_measured() -> None:
    params = parameters()
    optimizer = optim.SGD(params, lr=1.0, measure=("gradient_norm",), fused=True)
    give_gradients(params, 1)
    wanted = norms(params, params)["gradient_norm"]
    optimizer.grad_scale = torch.tensor(wanted)
    optimizer.step()
    assert optimizer.measured["gradient_norm"] == pytest.approx(1.0, rel=1e-6)


@on_every_backend
def test_the_share_that_was_clipped(backend: str) -> None:
    p, q = Parameter(torch.zeros(8)), Parameter(torch.zeros(8))
    options = {**BACKENDS[backend], "measure": ("clipped_share",)}
    optimizer = optim.SGD([p, q], transforms=[clip_by_value(1.0)], **options)
    p.grad, q.grad = torch.arange(8.0) - 4, torch.zeros(8)  # -4 to 3: 5 of 8 beyond 1
    optimizer.step()
    assert optimizer.measured["clipped_share"] == 5 / 16
    assert optimizer.measured.of(p)["clipped_share"] == 5 / 8
    both = optim.SGD(
        [p, q], transforms=[clip_by_value(1.0), clip_by_norm(1.0, "tensor")], **options
    )
    both.step()
    assert both.measured["clipped_share"] == 8 / 16
    group = both.param_groups[0]
    group["max_norm"], group["max_value"] = float("inf"), float("inf")
    both.step()
    assert both.measured["clipped_share"] == 0.0


def test_a_step_left_out_has_measured_nothing() -> None:
    params = parameters()
    optimizer = optim.AdamW(params, nonfinite="skip", measure=ALL)
    assert all(value != value for value in optimizer.measured.values())
    give_gradients(params, 1)
    optimizer.step()
    assert optimizer.measured["gradient_norm"] > 0
    give_gradients(params, 1, float("inf"))
    optimizer.step()
    assert all(value != value for value in optimizer.measured.values())


def test_differentiable_steps_are_measured() -> None:
    p = Parameter(torch.tensor([4.0, 0.0], dtype=torch.float64))
    q = p.clone()
    q.grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
    optimizer = optim.SGD([q], lr=0.5, differentiable=True, measure=("update_ratio",))
    optimizer.step()
    assert float(optimizer.measured["update_ratio"]) == 0.625


def test_bad_input() -> None:
    params = parameters()
    with pytest.raises(TypeError, match=r"measure must be a tuple of names, got 'gradient_norm'"):
        optim.AdamW(params, measure="gradient_norm")
    with pytest.raises(ValueError, match=r"got 'grad_norm'; did you mean gradient_norm\?"):
        optim.AdamW(params, measure=("grad_norm",))
    with pytest.raises(TypeError, match="LBFGS: measure is for optimizers with a rule"):
        optim.LBFGS(params, measure=("gradient_norm",))
    optimizer = optim.AdamW(params, measure=("weight_norm",))
    with pytest.raises(KeyError, match=r"'gradient_norm' is not measured.*Pass measure="):
        optimizer.measured["gradient_norm"]
    optimizer.measure = ()
    assert dict(optimizer.measured) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@on_every_backend
def test_the_share_of_updates_that_are_lost(backend: str, dtype: torch.dtype) -> None:
    """Those of less than half an ulp; no update at all is not one that is lost."""
    ulp = torch.finfo(dtype).eps
    p = Parameter(torch.ones(8, dtype=dtype))
    steps = torch.tensor([0.0, 0.0, 0.1, -0.2, 0.4, 1.0, 2.0, -3.0], dtype=torch.float64) * ulp
    p.grad = (-steps * 2**20).to(dtype)
    before = p.detach().clone()
    optimizer = optim.SGD([p], lr=2.0**-20, measure=("lost_share",), **BACKENDS[backend])
    optimizer.step()
    stayed = int((p == before).sum()) - 2
    assert stayed == 3
    assert optimizer.measured["lost_share"] == stayed / 8
    check_backend(optimizer, backend)
