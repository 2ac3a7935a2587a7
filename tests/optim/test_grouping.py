"""``optim.groups``: each parameter once, with the options that its place in the model asks for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import thalweg.optim as optim
from thalweg.optim.grouping import parameters_of


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)


class Small(nn.Module):
    """Embedding, blocks, a norm and a head that is tied to the embedding."""

    def __init__(self, layers: int = 2, width: int = 4, tied: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 11, bias=False)
        if tied:
            self.head.weight = self.embedding.weight


def options_by_name(groups: Any) -> dict[str, dict[str, Any]]:
    return {
        name: {k: v for k, v in group.items() if k != "params"}
        for group in groups
        for name, _ in group["params"]
    }


def test_matrices_of_layers_alone_are_decayed() -> None:
    found = options_by_name(optim.groups(Small(tied=False), weight_decay=0.1))
    decayed = {name for name, options in found.items() if options["weight_decay"] == 0.1}
    assert decayed == {
        *(f"blocks.{k}.{layer}.weight" for k in range(2) for layer in ("up", "down")),
        "head.weight",
    }
    assert len(found) == len(list(Small(tied=False).parameters()))


def test_tied_parameters_stand_once_and_match_by_each_name() -> None:
    found = options_by_name(optim.groups(Small(), optim.having(names="head.*", weight_decay=0.5)))
    assert "head.weight" not in found
    assert found["embedding.weight"] == {"weight_decay": 0.5}
    # By default it counts as the embedding that it is, too.
    assert options_by_name(optim.groups(Small()))["embedding.weight"] == {"weight_decay": 0.0}


def test_the_first_selection_that_matches_counts() -> None:
    groups = optim.groups(
        Small(),
        optim.having(modules=nn.LayerNorm, lr=0.3),
        optim.having(dims=1, lr=0.2),
        optim.having(names=["blocks.0.*", "blocks.1.up.weight"], lr=0.1),
        lr=1.0,
    )
    found = {name: options["lr"] for name, options in options_by_name(groups).items()}
    assert found["norm.bias"] == found["blocks.1.norm.weight"] == 0.3
    assert found["blocks.0.up.bias"] == 0.2
    assert found["blocks.0.up.weight"] == found["blocks.1.up.weight"] == 0.1
    assert found["blocks.1.down.weight"] == found["embedding.weight"] == 1.0
    assert len(groups) == 4


@pytest.mark.parametrize("library", [optim, torch.optim], ids=["ours", "torch"])
def test_any_optimizer_takes_them(library: Any) -> None:
    model = Small()
    optimizer = library.AdamW(optim.groups(model, weight_decay=0.1), lr=1e-2)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.1]
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    begun = copy.deepcopy(model.state_dict())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, value in model.state_dict().items():  # with gradients of 0 the decay alone is seen
        is_decayed = value.ndim == 2 and not name.startswith(("embedding", "head"))
        assert torch.equal(value, begun[name]) is not is_decayed, name


def test_factors_multiply_lr_and_stand_beside_it() -> None:
    model = Small(layers=3, tied=False)
    groups = optim.groups(
        model,
        multipliers=[optim.layer_decay(0.5, "blocks.*"), optim.lr_multipliers({"*.bias": 2.0})],
        lr=0.8,
    )
    found = {n: (o["lr"], o["lr_scale"]) for n, o in options_by_name(groups).items()}
    assert found["embedding.weight"] == pytest.approx((0.05, 0.0625))
    assert found["blocks.0.up.weight"] == pytest.approx((0.1, 0.125))
    assert found["blocks.2.up.bias"] == pytest.approx((0.8, 1.0))
    assert found["head.weight"] == (0.8, 1.0)
    optimizer = optim.AdamW(groups)
    scheduler = optim.lr_scheduler.LinearLR(optimizer, 0.5, 1.0, total_iters=2)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.4 * group["lr_scale"])
    optimizer.step()
    scheduler.step()
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.6 * group["lr_scale"])


def test_rates_by_fan_in() -> None:
    model = nn.Sequential(nn.Embedding(9, 64), nn.Linear(64, 3), nn.Conv2d(4, 2, 4))
    found = options_by_name(optim.groups(model, multipliers=[optim.by_fan_in(32)], lr=1.0))
    factors = {name: options["lr_scale"] for name, options in found.items()}
    assert factors == {
        **{"0.weight": 1.0, "1.weight": 0.5, "1.bias": 1.0},
        **{"2.weight": 0.5, "2.bias": 1.0},
    }


PATTERNS = ["*", "blocks.*", "*.bias", "*norm*", "blocks.1.up.*", "head.weight"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from(PATTERNS), st.sampled_from([0.0, 0.1])), max_size=4),
    st.booleans(),
)
def test_every_parameter_is_in_one_group(chosen: list[tuple[str, float]], tied: bool) -> None:
    model = Small(tied=tied)
    selections = [optim.having(names=name, weight_decay=decay) for name, decay in chosen]
    everything = parameters_of(model)
    shadowed = [
        all(any(f.named(n) for n, _ in chosen[:i]) for f in everything if f.named(name))
        for i, (name, _) in enumerate(chosen)
    ]
    if any(shadowed):
        with pytest.raises(ValueError, match="taken by selections in front of it"):
            optim.groups(model, *selections)
        return
    groups = optim.groups(model, *selections)
    held = [id(p) for group in groups for _, p in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    for group in groups:
        for _, p in group["params"]:
            found = next(f for f in everything if f.parameter is p)
            first = next((d for name, d in chosen if found.named(name)), None)
            if chosen:
                assert group.get("weight_decay") == first


def test_the_table_shows_all_groups() -> None:
    groups = optim.groups(Small(), weight_decay=0.1)
    lines = str(groups).splitlines()
    assert lines[0].split() == ["parameters", "elements", "options"]
    assert lines[1].split()[:3] == ["11", "92", "weight_decay=0"]
    assert lines[2].split()[:3] == ["4", "128", "weight_decay=0.1"]
    optim.SGD(groups, lr=0.1)
    torch.optim.SGD(groups, lr=0.1)  # which write into the dicts that they are given
    assert "11        92  weight_decay=0" in str(groups)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda m: optim.groups(m, optim.having(names="blokcs.*")), ValueError, "is called"),
        (lambda m: optim.groups(m, optim.having(modules=nn.Conv2d)), ValueError, "no Conv2d"),
        (lambda m: optim.groups(m, optim.having(dims=5)), ValueError, "all conditions"),
        (
            lambda m: optim.groups(m, optim.having(names="*"), optim.having(dims=1)),
            ValueError,
            "in front of it",
        ),
        (lambda m: optim.groups(nn.ReLU()), ValueError, "has no parameters"),
        (lambda m: optim.groups(m.parameters()), TypeError, "must be a torch.nn.Module"),
        (lambda m: optim.having(lr=0.1), TypeError, "give names, modules or dims"),
        (lambda m: optim.groups(m, multipliers=[optim.by_fan_in(8)]), ValueError, "give it"),
        (
            lambda m: optim.groups(m, multipliers=[optim.lr_multipliers({"hed.*": 2.0})], lr=1.0),
            ValueError,
            "is called",
        ),
        (
            lambda m: optim.groups(m, multipliers=[optim.layer_decay(0.5, "layer.*")], lr=1.0),
            ValueError,
            "in a layer",
        ),
        (lambda m: optim.layer_decay(0.0, "blocks.*"), ValueError, "rate must be"),
        (lambda m: optim.layer_decay(0.5, "blocks"), ValueError, "one [*]"),
        (lambda m: optim.lr_multipliers({"a": -1.0}), ValueError, "a must be"),
        (lambda m: optim.by_fan_in(0), ValueError, "base must be"),
    ],
)
@pytest.mark.whole
def test_what_cannot_be_meant_is_refused(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call(Small())
