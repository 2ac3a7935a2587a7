"""``thalweg.doctor`` finds planted faults, says nothing of sound set-ups, and changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import thalweg
import thalweg.optim as optim
from tests.optim.exact import snapshot
from thalweg.diagnosis import CHECKS


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.LayerNorm(4)).to(dtype)


def backward(model: nn.Module) -> None:
    model(torch.tensor([1, 5])).square().sum().backward()


def without_a_norm() -> Any:
    model = network()
    return model, optim.AdamW(optim.groups(model[:2]))


def twice() -> Any:
    model = network()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        return model, torch.optim.SGD([*model.parameters(), model[1].weight], lr=0.1)


def copied_afterwards() -> Any:
    model = network()
    return copy.deepcopy(model), torch.optim.AdamW(optim.groups(model))


def partly_frozen() -> Any:
    model = network()
    optimizer = optim.SGD(model.parameters())
    model[0].weight.requires_grad_(False)
    return model, optimizer


def decayed_biases() -> Any:
    model = network()
    return model, optim.AdamW(model.parameters(), weight_decay=0.1)


def embedding_under_muon() -> Any:
    model = network()
    return nn.Sequential(model[0]), torch.optim.Muon([model[0].weight])


def of_16_bits() -> Any:
    model = network(torch.bfloat16)
    return model, optim.AdamW(optim.groups(model))


def too_small_a_rate() -> Any:
    model = network(torch.bfloat16)
    backward(model)
    return model, optim.AdamW(optim.groups(model), lr=1e-6)


def stepped_in_backward() -> Any:
    model = network()
    optimizer = optim.AdamW(optim.groups(model))
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: None)
    return model, optimizer


def scheduled_elsewhere() -> Any:
    model = network()
    first, second = (optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
    return model, second, optim.lr_scheduler.ExponentialLR(first, 0.9)


def scheduled_for_each_process() -> Any:
    model = network()
    optimizer = optim.AdamW(optim.groups(model))
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for _ in range(5):
        backward(model)
        optimizer.step()
        optimizer.zero_grad()
        for _ in range(4):
            scheduler.step()
    return model, optimizer, scheduler


PLANTED: dict[Callable[[], Any], tuple[str, bool, str]] = {
    without_a_norm: ("left_out", True, "2 of 5 trainable parameters (2.weight, 2.bias)"),
    twice: ("repeated", True, "the groups hold 1 parameter more than once (1.weight)"),
    copied_afterwards: ("strangers", True, "holds 5 parameters that the model does not"),
    partly_frozen: ("frozen", False, "hold 1 parameter without requires_grad (0.weight)"),
    decayed_biases: ("decayed", False, "of 0.1 acts on 4 biases, norms or embeddings"),
    embedding_under_muon: ("embeddings", True, "Muon is for the matrices of layers"),
    of_16_bits: (
        "narrow_states",
        False,
        "5 parameters and their states have 16 bits, torch.bfloat16",
    ),
    too_small_a_rate: ("lost_updates", True, "updates of 4 parameters"),
    stepped_in_backward: ("used_in_backward", False, "hooks of 5 parameters"),
    scheduled_elsewhere: ("scheduler_of_another", True, "the rates of another optimizer"),
    scheduled_for_each_process: ("scheduler_ahead", True, "4 times as often"),
}


@pytest.mark.parametrize("plant", list(PLANTED), ids=lambda f: f.__name__)
@pytest.mark.whole
def test_a_planted_fault_is_found(plant: Callable[[], Any]) -> None:
    check, wrong, words = PLANTED[plant]
    setup = plant()
    before = snapshot(setup[1])
    diagnosis = thalweg.doctor(*setup)
    assert snapshot(setup[1]) == before
    (found,) = (finding for finding in diagnosis if finding.check == check)
    assert found.wrong is wrong
    assert words in found.text
    assert ";" in found.text or ":" in found.text, "it says what to do"
    assert diagnosis.healthy is not any(finding.wrong for finding in diagnosis)
    if wrong:
        assert not diagnosis.healthy
        assert f"wrong: {found.text}" in str(diagnosis)


def test_every_check_has_a_fault() -> None:
    assert {check for check, _, _ in PLANTED.values()} == {check.__name__ for check in CHECKS}


def before_training() -> Any:
    model = network()
    return model, optim.AdamW(optim.groups(model, weight_decay=0.1))


def of_torch() -> Any:
    model = network()
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def in_training() -> Any:
    model = network()
    optimizer = optim.AdamW(optim.groups(model, weight_decay=0.1))
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for _ in range(3):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def tied() -> Any:
    model = nn.ModuleDict({"e": nn.Embedding(7, 4), "head": nn.Linear(4, 7, bias=False)})
    model["head"].weight = model["e"].weight
    return model, optim.AdamW(optim.groups(model, weight_decay=0.1))


def feature_extraction() -> Any:
    model = network()
    model[0].requires_grad_(False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    return model, optim.SGD(trainable, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("make", [before_training, of_torch, in_training, tied, feature_extraction])
@pytest.mark.whole
def test_nothing_is_found_where_all_is_well(make: Callable[[], Any]) -> None:
    diagnosis = thalweg.doctor(*make())
    assert not diagnosis, str(diagnosis)
    assert diagnosis.healthy
    assert str(diagnosis) == "nothing to complain of"


def test_what_is_no_set_up_is_refused() -> None:
    model = network()
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got generator"):
        thalweg.doctor(model.parameters(), optim.SGD(model.parameters()))
    with pytest.raises(TypeError, match="optimizer must be an optimizer of torch's kind"):
        thalweg.doctor(model, model)
