"""The state's dicts: ordinary dicts that count what is done to them."""

from __future__ import annotations

import copy
import pickle
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch

import thalweg.optim as optim
from thalweg.engine.state import Access, OptimizerState, ParameterState


def stepped() -> tuple[torch.nn.Parameter, optim.Adam]:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = optim.Adam([p])
    optimizer.step()
    return p, optimizer


INNER: list[Callable[[dict], object]] = [
    lambda d: d.__setitem__("a", 1),
    lambda d: d.__delitem__("x"),
    lambda d: d.pop("x"),
    lambda d: d.pop("nothing", None),
    lambda d: d.popitem(),
    lambda d: d.clear(),
    lambda d: d.update(a=1),
    lambda d: d.setdefault("a", 1),
    lambda d: d.__ior__({"a": 1}),
]


@pytest.mark.parametrize("change", INNER)
def test_a_parameters_state_counts_and_does_what_a_dict_does(change) -> None:
    access = Access()
    ours, plain = ParameterState(access, {"x": 0, "y": 1}), {"x": 0, "y": 1}
    assert change(ours) == change(plain)
    assert ours == plain
    assert access.changes == 1


def test_the_engine_sets_without_counting() -> None:
    access = Access()
    state = ParameterState(access)
    state.put("x", 1)
    assert state == {"x": 1}
    assert access.changes == 0


OUTER: list[Callable[[dict], object]] = [
    lambda d: d.__setitem__("k", {"a": 1}),
    lambda d: d.__delitem__("x"),
    lambda d: d.pop("x"),
    lambda d: d.popitem(),
    lambda d: d.clear(),
    lambda d: d.update({"k": {"a": 1}}),
    lambda d: d.update(k={"a": 1}),
    lambda d: d.setdefault("k", {"a": 1}),
    lambda d: d.__ior__({"k": {"a": 1}}),
]


@pytest.mark.parametrize("change", OUTER)
def test_the_optimizers_state_counts_and_does_what_a_dict_does(change) -> None:
    ours, plain = OptimizerState({"x": {"b": 2}}), defaultdict(dict, {"x": {"b": 2}})
    before = ours.access.changes
    assert change(ours) == change(plain)
    assert ours == plain
    assert ours.access.changes > before
    for value in ours.values():
        assert type(value) is ParameterState
        count = ours.access.changes
        value["new"] = 1
        assert ours.access.changes == count + 1


def test_a_missing_state_is_empty_and_only_reading_it_counts_nothing() -> None:
    state = OptimizerState()
    assert state["k"] == {}
    assert list(state) == ["k"]
    assert state.access.changes == 0
    assert state.get("other") is None
    assert state.setdefault("k", 5) == {}


def test_values_that_are_no_dicts_are_kept() -> None:
    state = OptimizerState({"global": 5})
    assert state["global"] == 5


def test_copies_are_plain() -> None:
    p, optimizer = stepped()
    state = optimizer.state
    for copied in (state.copy(), copy.copy(state), state | {}, dict(state)):
        assert type(copied) in (defaultdict, dict)
        assert copied.keys() == state.keys()
        assert copied[p] is state[p]
    for copied in (copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert type(copied) is defaultdict
        (entry,) = copied.values()
        assert type(entry) is dict
        assert entry.keys() == state[p].keys()
        assert entry["exp_avg"].data_ptr() != state[p]["exp_avg"].data_ptr()
    assert copied["missing"] == {}
    for copied in (copy.copy(state[p]), copy.deepcopy(state[p]), state[p].copy(), state[p] | {}):
        assert type(copied) is dict
    assert type(pickle.loads(pickle.dumps(state[p]))) is dict
    before = state.access.changes
    state.copy()[p] = {}
    assert state.access.changes == before


def test_scalar_states_are_views_of_one_tensor() -> None:
    p, optimizer = stepped()
    step = optimizer.state[p]["step"]
    assert step.dtype is torch.float64
    assert step.dim() == 0
    optimizer.step()
    assert step.item() == 2
    step.fill_(9)
    optimizer.step()
    assert optimizer.state[p]["step"].item() == 10
    assert optimizer.step_count == 10


def test_counts_beyond_float32() -> None:
    p, optimizer = stepped()
    optimizer.state[p]["step"].fill_(2.0**24)
    optimizer.step()
    assert optimizer.state[p]["step"].item() == 2**24 + 1


@pytest.mark.parametrize("value", [5, 5.0, torch.tensor(5.0), torch.tensor([5.0]).double()])
def test_a_step_may_be_set_to_anything_that_is_a_number(value) -> None:
    p, optimizer = stepped()
    optimizer.state[p]["step"] = value
    optimizer.step()
    assert optimizer.state[p]["step"].item() == 6


def test_replacing_the_state_again_and_again() -> None:
    """The engine notices a new state even where the old one's address is used anew."""
    for _ in range(30):
        p, optimizer = stepped()
        optimizer.state = {}
        optimizer.state = {}
        optimizer.step()
        assert optimizer.state[p]["step"].item() == 1
