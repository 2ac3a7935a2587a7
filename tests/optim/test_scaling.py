"""Scaled gradients: by GradScaler, and by attributes set by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import thalweg.optim as optim
from tests.engine.interrupting import traced

FUSED = ("Adam", "AdamW", "SGD", "Adagrad")
OPTIONS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}}
every_fused = pytest.mark.parametrize("name", FUSED)


def made(library: Any, name: str, **options: Any) -> tuple[list[Tensor], Any]:
    params = [torch.linspace(-1, 1, 3 + k).requires_grad_() for k in range(2)]
    return params, getattr(library, name)(params, lr=0.25, **OPTIONS.get(name, {}), **options)


def give_gradients(params: list[Tensor], scale: float) -> None:
    for p in params:
        p.grad = (p.detach() - 0.3) * scale


@every_fused
def test_attributes_set_by_hand_have_torchs_effect(name: str) -> None:
    found = []
    for library in (torch.optim, optim):
        params, optimizer = made(library, name, fused=True)
        for found_inf in (0.0, 1.0, 0.0):
            give_gradients(params, 8.0)
            optimizer.grad_scale = torch.tensor(8.0)
            optimizer.found_inf = torch.tensor(found_inf)
            optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
        give_gradients(params, 1.0)
        optimizer.step()
        steps = [float(s["step"]) for s in optimizer.state.values() if "step" in s]
        found.append([*(v for p in params for v in p.tolist()), *steps])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@every_fused
def test_the_step_unscales_what_it_reads_and_no_gradient_is_changed(name: str) -> None:
    params, optimizer = made(optim, name, fused=True)
    give_gradients(params, 8.0)
    before = [p.grad.clone() for p in params]
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.grad_scale = torch.tensor(8.0)
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))
    assert not any(optimizer.state.values()) or name == "Adagrad"
    assert optimizer.skipped_steps == 1
    optimizer.found_inf = None
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))
    assert all("grad_scale" not in entry for entry in optimizer.state.values())
    saved = optimizer.state_dict()
    assert all("grad_scale" not in group for group in saved["param_groups"])


@pytest.mark.parametrize("backend", ["cpu", "foreach", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_scale_of_two_to_the_k_leaves_no_trace(dtype: torch.dtype, backend: str) -> None:
    """With new parameters, another scale and loaded states on the way."""
    found = []
    for scales in ((1.0, 1.0, 1.0, 1.0), (8.0, 8.0, 2.0, 0.5)):
        params = [torch.linspace(-1, 1, 3 + k).to(dtype).requires_grad_() for k in range(2)]
        optimizer = optim.AdamW(params, lr=0.25, fused=True)
        without_kernels = {"fused": False, "foreach": backend == "foreach"}
        for k, scale in enumerate(scales):
            if k == 2:
                params.append(torch.linspace(-2, 1, 5).to(dtype).requires_grad_())
                optimizer.add_param_group({"params": params[-1:]})
                optimizer.load_state_dict(optimizer.state_dict())
            give_gradients(params, scale)
            if backend == "cpu":
                optimizer.grad_scale = torch.tensor(scale)
            else:
                for group in optimizer.param_groups:
                    group.update(without_kernels)
                optimizer._unscales = True
                optimizer._engine.give("grad_scale", scale)
                optimizer._step_once = optimizer._engine.step
            optimizer.step()
            assert {c.backend for c in optimizer._engine.choices.values()} == {backend}
        found.append([v for p in params for v in p.tolist()])
        assert len(set(found[-1])) > len(params)
    assert found[0] == found[1]


@every_fused
def test_they_are_refused_without_fused_as_by_torch(name: str) -> None:
    for library in (torch.optim, optim):
        params, optimizer = made(library, name)
        give_gradients(params, 8.0)
        before = [p.detach().clone() for p in params]
        optimizer.grad_scale = torch.tensor(8.0)
        with pytest.raises(AssertionError, match="grad_scale and found_inf"):
            optimizer.step()
        assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


@every_fused
def test_a_grad_scaler_gives_the_same_with_and_without_fused(name: str) -> None:
    found = []
    for library, fused in ((torch.optim, True), (optim, True), (optim, None)):
        params, optimizer = made(library, name, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        assert getattr(optimizer, "_step_supports_amp_scaling", False) is (fused is True)
        for k in range(5):
            optimizer.zero_grad()
            loss = sum((p * p).sum() for p in params)
            scaler.scale(loss * (float("inf") if k == 2 else 1.0)).backward()
            if k == 3:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        found.append([scaler.get_scale(), *(v for p in params for v in p.tolist())])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[2] == pytest.approx(found[1], rel=1e-6)


def interrupted_scaled_step(instruction: int) -> bool:
    """The first scaled step, before an instruction of which Ctrl-C comes; then another one.

    Returns:
        whether it had so many.
    """
    p = Parameter(torch.ones(2))
    optimizer = optim.Adam([p], lr=0.1, fused=True)
    p.grad = torch.ones(2)
    optimizer.step()
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(8.0), torch.tensor(0.0)
    p.grad = torch.full((2,), 8.0)
    try:
        reached = traced(optimizer.step, "optim/step_extras", instruction) > instruction
    except KeyboardInterrupt:
        reached = True
    while optimizer.step_count < 4:
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.6))
    return reached


def test_the_first_scaled_step_can_be_interrupted() -> None:
    instruction = 0
    while interrupted_scaled_step(instruction):
        instruction += 1
    assert instruction > 50
