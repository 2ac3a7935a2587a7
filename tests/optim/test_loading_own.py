"""What users add: classes, states and keys of their own. What a step took, a load takes."""

from __future__ import annotations

import copy
import pickle
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.optim.exact import snapshot
from thalweg import checkpoint, optim


class Momentum(optim.Optimizer):
    """Written by hand, with states that no rule knows."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                entry = self.state[p]
                entry["count"] = entry.get("count", 0) + 1
                entry["m"] = 0.9 * entry.get("m", torch.zeros_like(p)) + p.grad
                p -= group["lr"] * entry["m"]


class Wrapper(Momentum):
    """Holds another optimizer, and takes over more than states and groups."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.base = optim.Adam(self.param_groups)
        self.fail = False

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        found = super().load_state_dict(state_dict, *args, **kwargs)
        self.base.load_state_dict(
            {**state_dict, "param_groups": self.base.state_dict()["param_groups"], "state": {}}
        )
        if self.fail:
            raise KeyError("what it needs besides")
        return found


def parameters(count: int = 2) -> list[Tensor]:
    found: list[Tensor] = [torch.nn.Parameter(torch.ones(3) * (i + 1)) for i in range(count)]
    for p in found:
        p.grad = torch.ones(3)
    return found


def stepped(optimizer: Any, steps: int = 1) -> Any:
    for _ in range(steps):
        optimizer.step()
    return optimizer


# --------------------------------------------------------------------------- classes of their own


@pytest.mark.parametrize("cls", [Momentum, Wrapper])
@pytest.mark.parametrize("how", ["load", "checkpoint", "pickle", "copy"])
def test_a_class_written_by_hand_goes_on(cls: Any, how: str, tmp_path: Path) -> None:
    first = stepped(cls(parameters()), 2)
    own = [p.detach().clone().requires_grad_() for p in first.param_groups[0]["params"]]
    for p in own:
        p.grad = torch.ones(3)
    if how == "load":
        second = cls(own)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
    elif how == "checkpoint":
        second = cls(own)
        checkpoint.save(tmp_path / "a.safetensors", optimizer=first)
        checkpoint.load(tmp_path / "a.safetensors", optimizer=second)
    elif how == "pickle":
        second = pickle.loads(pickle.dumps(first))
    else:
        second = copy.deepcopy(first)
    for p in second.param_groups[0]["params"]:
        p.grad = torch.ones(3)
    stepped(first)
    stepped(second)
    assert snapshot(first)[:2] == snapshot(second)[:2]
    assert [entry["count"] for entry in second.state.values()] == [3, 3]


def test_its_load_refuses_what_does_not_fit() -> None:
    optimizer = stepped(Momentum(parameters()))
    before = snapshot(optimizer)
    for count in (1, 3):
        with pytest.raises(ValueError, match="parameter group"):
            optimizer.load_state_dict(stepped(Momentum(parameters(count))).state_dict())
    assert snapshot(optimizer) == before


def test_hooks_are_called_once_each() -> None:
    optimizer, calls = Momentum(parameters()), []
    optimizer.register_load_state_dict_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_load_state_dict_post_hook(lambda *_: calls.append("after"))
    optimizer.load_state_dict(stepped(Momentum(parameters())).state_dict())
    assert calls == ["before", "after"]


def test_a_class_whose_own_method_fails_is_put_back(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 1)
    optimizer = stepped(Wrapper(parameters()))
    stepped(optimizer.base)
    path = checkpoint.save(
        tmp_path / "a.safetensors", model=model, optimizer=stepped(Wrapper(parameters()), 3)
    )
    before = [snapshot(each) for each in (optimizer, optimizer.base)]
    weights, base = copy.deepcopy(model.state_dict()), optimizer.base
    with torch.no_grad():
        model.weight.add_(1)
    moved = model.weight.clone()
    optimizer.fail = True
    with pytest.raises(ValueError, match="what it needs besides"):
        checkpoint.load(path, model=model, optimizer=optimizer)
    assert optimizer.base is base
    assert [snapshot(each) for each in (optimizer, optimizer.base)] == before
    assert torch.equal(model.weight, moved)
    assert not torch.equal(model.weight, weights["weight"])


# ------------------------------------------------------------------------ states and keys of theirs


def test_own_states_and_keys_survive(tmp_path: Path) -> None:
    params = parameters()
    first = stepped(optim.AdamW(params))
    first.state[params[0]] |= {
        "average": params[0].detach().clone(), "seen": torch.tensor([3], dtype=torch.int64),
        "notes": ["a", {"b": torch.ones(1, dtype=torch.bfloat16)}],
    }  # fmt: skip
    first.param_groups[0]["layer_scale"] = 0.5
    for load in ("state dict", "checkpoint"):
        second = optim.AdamW(parameters())
        if load == "state dict":
            second.load_state_dict(first.state_dict())
        else:
            path = checkpoint.save(tmp_path / "a.safetensors", optimizer=first)
            checkpoint.load(path, optimizer=second)
        entry = second.state[second.param_groups[0]["params"][0]]
        assert torch.equal(entry["average"], first.state[params[0]]["average"])
        assert entry["average"].data_ptr() != first.state[params[0]]["average"].data_ptr()
        assert entry["seen"].dtype is torch.int64
        assert entry["notes"][1]["b"].dtype is torch.float32
        assert second.param_groups[0]["layer_scale"] == 0.5
        stepped(second)


def test_own_states_that_cannot_be_read_are_refused() -> None:
    first, second = (stepped(optim.AdamW(parameters())) for _ in range(2))
    saved, before = copy.deepcopy(first.state_dict()), snapshot(second)
    saved["state"][1]["mine"] = [torch.ones(2, device="meta")]
    with pytest.raises(ValueError, match=r"state 'mine'\[0\] is on the meta device"):
        second.load_state_dict(saved)
    assert snapshot(second) == before


def test_states_of_other_optimizers_are_told() -> None:
    saved = copy.deepcopy(stepped(optim.Adam(parameters())).state_dict())
    saved["state"][0]["momentum_buffer"] = torch.ones(3)
    saved["state"][1]["momentum_buffer"] = torch.ones(3)
    optimizer = optim.Adam(parameters())
    with pytest.warns(UserWarning, match="has 'momentum_buffer', as other") as seen:
        optimizer.load_state_dict(saved)
    assert len(seen) == 1


@pytest.mark.parametrize("library", [optim, torch.optim])
def test_numbers_that_became_text_are_told(library: Any) -> None:
    saved = stepped(optim.Adam(parameters())).state_dict()
    saved["state"] = {f"{key}": entry for key, entry in saved["state"].items()}
    optimizer = library.Adam(parameters())
    with pytest.raises(ValueError, match=r"under the text '0'.*make numbers of the keys"):
        optim.state_dict.prepare(optimizer, saved)
    saved["state"] = {"mine": 3} | {int(key): entry for key, entry in saved["state"].items()}
    optim.state_dict.prepare(optimizer, saved).commit()
    assert optimizer.state["mine"] == 3


# -------------------------------------------------------------------------- what a step has taken

TAKEN: dict[str, Any] = {
    "a list": {"betas": [0.9, 0.99]},
    "an array": {"betas": np.array([0.9, 0.99])},
    "a deque": {"betas": deque([0.9, 0.99])},
    "NumPy numbers": {"lr": np.float64(0.1), "eps": np.float32(1e-8), "amsgrad": np.bool_(False)},
    "a tensor": {"lr": torch.tensor(0.1)},
    "one element": {"lr": torch.tensor([0.1])},
    "a flag as number": {"maximize": 1},
    "an own key": {"curriculum": {"stage": 2}},
    "below zero": {"lr": -0.01},
    "a key like an option": {"lrs": [0.1]},
    "out of range": {"weight_decay": -0.1},
    "not a number": {"lr": float("nan")},
    "excluding each other": {"foreach": True, "fused": True},
}
WARNED = ("below zero", "a key like an option", "out of range",
          "not a number", "excluding each other")  # fmt: skip


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam"])
@pytest.mark.parametrize("what", TAKEN)
def test_what_a_step_took_is_loaded(what: str, name: str) -> None:
    first, second = (getattr(optim, name)(parameters()) for _ in range(2))
    stepped(first)  # of a program that was traced before
    first.param_groups[0].update(TAKEN[what])
    stepped(first)
    if what in WARNED:
        with pytest.warns(UserWarning, match="group 0 takes it over as it is"):
            second.load_state_dict(first.state_dict())
    else:
        second.load_state_dict(first.state_dict())
    for key, value in TAKEN[what].items():
        own = second.param_groups[0][key]
        if isinstance(value, (deque, np.ndarray)):
            value = tuple(value)
        assert repr(own) == repr(value) or own == value
    stepped(second)


@pytest.mark.parametrize("value", ["fast", None, [0.1, 0.2], 1j, {}])
def test_what_no_step_takes_is_refused(value: Any) -> None:
    optimizer = stepped(optim.Adam(parameters()))
    saved, before = copy.deepcopy(optimizer.state_dict()), snapshot(optimizer)
    saved["param_groups"][0]["lr"] = value
    with pytest.raises((TypeError, ValueError), match="lr must be"):
        optimizer.load_state_dict(saved)
    assert snapshot(optimizer) == before


def test_a_rate_that_a_schedule_took_below_zero() -> None:
    optimizer = optim.SGD(parameters(), lr=0.1)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step)
    for _ in range(3):
        optimizer.step()
        schedule.step()
    other = optim.SGD(parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="lr must be >= 0, got -0.2"):
        other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


# ----------------------------------------------------------------------------------------- slips


@pytest.mark.parametrize(
    "key", ["wieght_decay", "weight_deca", "weigth_decay", "LR", "lrr", "beta"]
)
def test_a_key_one_letter_away_from_an_option_is_a_slip(key: str) -> None:
    with pytest.raises(TypeError, match="did you mean"):
        optim.AdamW([{"params": parameters(), key: 0.1}])


@pytest.mark.parametrize("key", ["weights", "lr_mult", "decay", "weight_decay_rate", "max_eps"])
def test_other_keys_are_the_users_own(key: str) -> None:
    assert optim.AdamW([{"params": parameters(), key: 0.1}]).param_groups[0][key] == 0.1


class InPlace(torch.optim.SGD):
    """Writes over the states that it has, and then finds something missing."""

    def load_state_dict(self, state_dict: Any) -> None:
        with torch.no_grad():
            for number, entry in enumerate(self.state.values()):
                entry["momentum_buffer"].copy_(state_dict["state"][number]["momentum_buffer"])
        raise RuntimeError("something is missing")


def test_what_another_class_wrote_in_place_is_put_back(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 1)
    first, second = (stepped(InPlace(parameters(), lr=0.1, momentum=0.9), n) for n in (3, 1))
    path = checkpoint.save(tmp_path / "a.safetensors", optimizer=first, model=model)
    states = copy.deepcopy(second.state_dict())
    with torch.no_grad():
        model.weight.add_(1)
    moved = model.weight.clone()
    with pytest.raises(RuntimeError, match="something is missing"):
        checkpoint.load(path, model=model, optimizer=second)
    assert str(second.state_dict()) == str(states)
    assert torch.equal(model.weight, moved)
