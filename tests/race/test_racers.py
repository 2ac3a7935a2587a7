import math
from itertools import pairwise

import pytest
import torch

from thalweg import optim
from thalweg.race import RACERS, find, grid

DENSE = {
    "SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam",
    "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD",
}  # fmt: skip


def test_every_dense_optimizer_races() -> None:
    assert {racer.optimizer for racer in RACERS} == DENSE
    assert len({racer.name for racer in RACERS}) == len(RACERS) == 12


@pytest.mark.parametrize("racer", RACERS, ids=lambda racer: racer.name)
def test_make_builds_that_class_of_either_library(racer) -> None:
    for library in (optim, torch.optim):
        made = racer.make([torch.nn.Parameter(torch.ones(2))], 0.5, library=library)
        assert type(made) is getattr(library, racer.optimizer)
        assert made.param_groups[0]["lr"] == 0.5
        for option, value in racer.options.items():
            assert made.param_groups[0][option] == value


def test_find_ignores_case() -> None:
    assert find("sgd+MOMENTUM").options == {"momentum": 0.9}


@pytest.mark.parametrize(("name", "suggestion"), [("nadem", "NAdam"), ("RMSporp", "RMSprop")])
def test_find_suggests_the_nearest_name(name: str, suggestion: str) -> None:
    with pytest.raises(ValueError, match=f"unknown optimizer '{name}'; did you mean {suggestion}"):
        find(name)


def test_find_lists_the_names_when_nothing_is_near() -> None:
    with pytest.raises(ValueError, match=r"unknown optimizer 'zzz'\. There are: SGD, .*ASGD\."):
        find("zzz")


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_grid_is_centred_and_even_in_the_logarithm(count: int) -> None:
    rates = grid(0.02, count)
    assert len(rates) == count
    assert math.prod(rates) ** (1 / count) == pytest.approx(0.02)
    for low, high in pairwise(rates):
        assert high / low == pytest.approx(10**0.5)


def test_grid_needs_a_count() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        grid(0.1, 0)
