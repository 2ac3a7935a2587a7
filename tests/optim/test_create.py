"""Optimizers by name."""

from __future__ import annotations

import pytest
import torch

import thalweg.optim as optim
from thalweg.optim.catalogue import classes
from thalweg.transforms import averaged, cautious

PARAMETERS = [torch.nn.Parameter(torch.ones(3))]


@pytest.mark.parametrize("name", list(classes()))
def test_every_optimizer_has_its_name(name: str) -> None:
    for spelt in (name, name.lower(), name.upper()):
        assert type(optim.create(spelt, PARAMETERS)) is getattr(optim, name)


def test_options_are_handed_on() -> None:
    optimizer = optim.create("adamw", PARAMETERS, lr=0.25, transforms=[averaged(0.5)])
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert [each.name for each in optimizer.added_transforms] == ["averaged"]


def test_cautious_is_the_transform() -> None:
    ends = []
    for make in (
        lambda p: optim.create("Cautious-AdamW", [p], lr=0.1, transforms=[averaged()]),
        lambda p: optim.AdamW([p], lr=0.1, transforms=[cautious(), averaged()]),
        lambda p: optim.AdamW([p], lr=0.1, transforms=[averaged()]),
    ):
        p = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        optimizer = make(p)
        for g in ([1.0, -1.0, 1.0], [-0.1, -1.0, 1.0]):
            p.grad = torch.tensor(g)
            optimizer.step()
        ends.append(p.tolist())
    assert ends[0] == ends[1] != ends[2]


def test_what_is_unknown_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown optimizer 'admw'; did you mean AdamW"):
        optim.create("admw", PARAMETERS)
    with pytest.raises(ValueError, match="unknown optimizer 'careless-adamw'"):
        optim.create("careless-adamw", PARAMETERS)
    with pytest.raises(TypeError, match="momentun"):
        optim.create("sgd", PARAMETERS, momentun=0.9)
