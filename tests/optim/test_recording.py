"""A step is recorded by make_fx or refused, never left out of the graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree

import thalweg.optim as optim


@pytest.mark.parametrize("fused", [None, False])
def test_a_step_of_parameters_with_memory_is_refused(fused: bool | None) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = optim.SGD([p], lr=0.5, fused=fused)

    def step(g: Tensor) -> Tensor:
        p.grad = g
        optimizer.step()
        return p.detach().clone()

    with pytest.raises(RuntimeError, match="make_fx cannot record"):
        make_fx(step)(torch.ones(3))
    assert (p == 1).all()
    p.grad = torch.ones(3)
    optimizer.step()
    assert (p == 0.5).all()


def test_a_step_of_fake_parameters_is_recorded() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = optim.SGD([p], lr=0.5, momentum=0.5)
    p.grad = torch.ones(3)
    optimizer.step()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        fakes = {"p": mode.from_tensor(p)}
        state = _pytree.tree_map_only(Tensor, mode.from_tensor, optimizer.state_dict())

    def step(params: dict[str, Tensor], state: object, g: Tensor) -> object:
        params["p"].grad = g
        with optim.swap_in_optimizer_params_and_state(optimizer, params, state):
            optimizer.step()
        return params, state

    graph = make_fx(step)(fakes, state, mode.from_tensor(torch.ones(3)))
    q, saved = torch.full((3,), 0.5, requires_grad=True), optimizer.state_dict()
    saved["state"][0]["momentum_buffer"] = torch.ones(3)
    with torch.no_grad():
        graph({"p": q}, saved, torch.full((3,), 2.0))
    assert q.tolist() == [0.5 - 0.5 * 2.5] * 3
    assert saved["state"][0]["momentum_buffer"].tolist() == [2.5] * 3
    assert (p == 0.5).all()
    optimizer.step()
    assert p.tolist() == [0.5 - 0.5 * 1.5] * 3
