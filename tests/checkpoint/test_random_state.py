"""The shared generators go on as if nothing had been between saving and loading."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.checkpoint.same import same
from thalweg import checkpoint
from thalweg.checkpoint.random_state import RandomState, capture


def drawn() -> list[Any]:
    return [random.gauss(), random.random(), np.random.normal(), np.random.rand(), torch.rand(3)]


def test_numbers_come_again(tmp_path: Path) -> None:
    drawn()  # the second of a pair of normal numbers is kept for later
    path = checkpoint.save(tmp_path / "a", step=1)
    expected = drawn()
    assert not same(drawn(), expected)
    assert checkpoint.load(path).random_state
    assert same(drawn(), expected)


def test_saving_and_loading_draw_no_numbers(tmp_path: Path) -> None:
    before = capture()
    model = torch.nn.Linear(2, 1)
    RandomState(before).commit()
    path = checkpoint.save(tmp_path / "a", model=model)
    checkpoint.load(path, model=model, rng=False)
    assert same(capture(), before)


@pytest.mark.parametrize("saved", [True, False])
def test_generators_are_left_if_one_says_so(tmp_path: Path, saved: bool) -> None:
    path = checkpoint.save(tmp_path / "a", rng=saved, step=1)
    drawn()
    before = capture()
    assert not checkpoint.load(path, rng=not saved).random_state
    assert same(capture(), before)
    assert ("_random_state" in checkpoint.read(path)) is saved


def test_another_generator_of_numpys(tmp_path: Path) -> None:
    bits = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(3))
        path = checkpoint.save(tmp_path / "a", step=1)
        expected = drawn()
        checkpoint.load(path)
        assert same(drawn(), expected)
    finally:
        np.random.set_bit_generator(bits)
    before = capture()
    with pytest.raises(ValueError, match=r"a: the states of the random .* pass rng=False to leave"):
        checkpoint.load(path)
    assert same(capture(), before)


@pytest.mark.parametrize(
    "change",
    [
        {"python": {"version": 3, "state": np.zeros(3, np.uint32), "gauss": None}},
        {"python": {"version": 2**40, "state": np.zeros(625, np.uint32), "gauss": None}},
        {"python": 3}, {"numpy": {"bit_generator": "MT19937"}}, {"numpy": None},
        {"torch": torch.zeros(3, dtype=torch.uint8)}, {"torch": torch.zeros(3)}, {"cuda": 3},
        {"cuda": {"0": torch.zeros(16, dtype=torch.uint8)}},
    ],
    ids=lambda change: str(list(change)),
)  # fmt: skip
def test_states_that_do_not_fit_change_nothing(change: dict[str, Any]) -> None:
    before = capture()
    with pytest.raises(ValueError, match=r"^the states of the random generators do not fit"):
        RandomState({**before, **change})
    for name in before:
        with pytest.raises(ValueError, match="do not fit"):
            RandomState({key: value for key, value in before.items() if key != name})
    assert same(capture(), before)


def test_states_of_devices_that_are_not_here() -> None:
    state = {**capture(), "cuda": [torch.zeros(16, dtype=torch.uint8)] * 99}
    here = torch.cuda.device_count()
    with pytest.warns(UserWarning, match=f"of 99 CUDA generators, here are {here} devices: the la"):
        RandomState(state)
