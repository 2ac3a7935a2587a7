"""torch's distributed checkpoints, which go by the module's names, in one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import thalweg.optim as optim
from tests.optim.problems import SHARED, bits


def trained(model: nn.Module, optimizer: Any, steps: int) -> Any:
    for _ in range(steps):
        for i, p in enumerate(model.parameters()):
            p.grad = torch.full_like(p, 0.5 + i)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("name", ["Adam", "SGD", "RMSprop"])
def test_states_go_through_torchs_functions(name: str, named: bool, flatten: bool) -> None:
    def made() -> tuple[nn.Module, Any]:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        params = model.named_parameters() if named else model.parameters()
        options = {"momentum": 0.9} if name == "SGD" else {}
        return model, getattr(optim, name)(params, lr=0.25, **options)

    given = StateDictOptions(flatten_optimizer_state_dict=flatten)
    source_model, source = made()
    trained(source_model, source, 3)
    saved = get_optimizer_state_dict(source_model, source, options=given)
    target_model, target = made()
    trained(target_model, target, 1)
    set_optimizer_state_dict(target_model, target, saved, options=given)
    states = [bits(list(o.state_dict()["state"].values())) for o in (source, target)]
    assert states[0] == states[1]
    assert ("param_names" in target.param_groups[0]) == named


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("name", SHARED)
def test_states_go_to_torchs_class_and_back(name: str, flatten: bool) -> None:
    def made(library: Any, **options: Any) -> tuple[nn.Module, Any]:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        return model, getattr(library, name)(model.parameters(), lr=0.25, **options)

    def values(optimizer: Any) -> list[Any]:
        return [{k: float(v.sum()) for k, v in s.items()} for s in optimizer.state.values()]

    given = StateDictOptions(flatten_optimizer_state_dict=flatten)
    for source, target in (
        (made(torch.optim), made(optim, fused=False)),
        (made(optim), made(torch.optim)),
    ):
        trained(*source, 3)
        saved = get_optimizer_state_dict(*source, options=given)
        trained(*target, 1)
        set_optimizer_state_dict(*target, saved, options=given)
        # torch keeps ASGD's eta in float32
        assert values(source[1]) == [pytest.approx(each, rel=1e-6) for each in values(target[1])]
        assert source[1].param_groups[0].keys() == target[1].param_groups[0].keys()
