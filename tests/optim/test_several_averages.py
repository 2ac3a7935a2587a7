"""Averages by name, with a warm-up, and parameters on their way to an average."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import thalweg.optim as optim
from thalweg.optim.swa_utils import CarriedAverage
from thalweg.transforms import averaged

BACKENDS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "foreach": {"fused": False, "foreach": True},
    "eager": {"fused": False},
}
STEPS = 6


def made(**options: Any) -> tuple[Parameter, Any]:
    p = Parameter(torch.linspace(-1, 1, 7))
    slow = averaged(0.9, name="slow", warmup=True)
    equal = averaged(None, start=2, name="equal", dtype=torch.float64)
    return p, optim.AdamW([p], lr=0.1, transforms=[averaged(0.5), slow, equal], **options)


def train(p: Parameter, optimizer: Any, steps: range = range(STEPS)) -> list[torch.Tensor]:
    values = []
    for k in steps:
        p.grad = torch.cos(p.detach() + k)
        optimizer.step()
        values.append(p.detach().double().clone())
    return values


@pytest.mark.parametrize("backend", BACKENDS)
def test_three_averages_in_one_pass(backend: str) -> None:
    p, optimizer = made(**BACKENDS[backend])
    values = train(p, optimizer)
    assert {c.backend for c in optimizer._engine.choices.values()} == {backend}
    fast = slow = values[0]
    for n, value in enumerate(values[1:], start=1):
        fast = fast + 0.5 * (value - fast)
        slow = slow + (1 - min(0.9, (1 + n) / (10 + n))) * (value - slow)
    wanted = {"": fast, "slow": slow, "equal": torch.stack(values[2:]).mean(0)}
    names = {"": (0.5, 0, False), "slow": (0.9, 0, True), "equal": (None, 2, False)}
    for name, right in wanted.items():
        decay, start, warmup = names[name]
        dtype = torch.float64 if name == "equal" else None
        average = CarriedAverage(optimizer, decay, start, 1, dtype, warmup, name)
        torch.testing.assert_close(average.of(p).double(), right, rtol=1e-6, atol=1e-6)
        assert not torch.equal(average.of(p).double(), values[-1])
    assert len(optimizer.added_transforms) == 3


def test_they_are_saved_and_resumed_by_their_names() -> None:
    p, optimizer = made()
    train(p, optimizer, range(3))
    q, other = made()
    with torch.no_grad():
        q.copy_(p)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(p, optimizer, range(3, 6))
    train(q, other, range(3, 6))
    for name in ("average", "slow_average", "equal_average"):
        assert torch.equal(optimizer.state[p][name], other.state[q][name])
    assert optimizer.param_groups[0]["slow_average_decay"] == 0.9


def test_parameters_go_a_share_of_the_way_to_their_average() -> None:
    p, optimizer = made()
    train(p, optimizer)
    average = CarriedAverage(optimizer, 0.9, warmup=True, name="slow")
    here, there = p.detach().clone(), average.of(p).clone()
    with average.swapped(share=0.65):
        torch.testing.assert_close(p.detach(), here + 0.65 * (there - here))
    assert torch.equal(p, here)
    holder = torch.nn.ParameterList([p])
    target = copy.deepcopy(holder)
    average.copy_to(target, holder, share=0.25)
    torch.testing.assert_close(target[0].detach(), here + 0.25 * (there - here))


def test_two_of_one_name_clash() -> None:
    p = Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="average"):
        optim.SGD([p], transforms=[averaged(0.9), averaged(0.99)])
    with pytest.raises(ValueError, match="slow_average"):
        optim.SGD([p], transforms=[averaged(0.9, name="slow"), averaged(0.99, name="slow")])
    with pytest.raises(ValueError, match="slow_average_dtype must be a real"):
        optim.SGD([p], transforms=[averaged(0.9, name="slow", dtype=torch.int32)])
