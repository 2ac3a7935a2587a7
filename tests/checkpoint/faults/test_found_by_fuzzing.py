"""Forged files that once led to another error than they must, or to a change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoint.faults.subjects import Subject, refused
from thalweg import checkpoint
from thalweg.checkpoint import container

SCHEDULERS: dict[str, Any] = {
    "no epoch": {"_group_lrs": {}},
    "no list of rates": {"_group_lrs": {"epoch": 3, "lrs": 1}},
    "rates of three groups": {"_group_lrs": {"epoch": 3, "lrs": [1, 2, 3]}},
    "a number as rates": {"_last_lr": 3},
    "another optimizer": {"optimizer": 1},
    "another method": {"load_state_dict": "text"},
    "another class": {"_class": [[]]},
}


@pytest.mark.parametrize("changes", SCHEDULERS.values(), ids=SCHEDULERS.keys())
def test_states_that_fit_no_scheduler(tmp_path: Path, changes: dict[str, Any]) -> None:
    path, saved, subject = tmp_path / "a.safetensors", Subject(0), Subject(1)
    saved.save(path)
    forged = saved.scheduler.state_dict() | changes
    data = checkpoint.read(path) | {"scheduler": forged}
    random_states = data.pop("_random_state")
    checkpoint.save(path, rng=False, **data, random_states=random_states)
    error = refused(path, subject, subject.untouched(), ValueError, TypeError)
    assert "part 'scheduler'" in str(error)
    subject.advance()  # its scheduler still works


class Refuses:
    """Has a state, and takes none."""

    def state_dict(self) -> dict[str, Any]:
        return {"x": 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state != {"x": 1}:
            raise KeyError("x")


def test_what_a_forged_state_adds_is_taken_back(tmp_path: Path) -> None:
    # torch's schedulers take every entry for an attribute.
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    forged = scheduler.state_dict() | {"optimizer": 3, "load_state_dict": 4, "odd": 5}
    path = checkpoint.save(tmp_path / "a", scheduler=forged, last={"x": 2}, rng=False)
    before = dict(vars(scheduler))
    with pytest.raises(ValueError, match=r"a: part 'last': KeyError\('x'\)"):
        checkpoint.load(path, scheduler=scheduler, last=Refuses())
    assert vars(scheduler) == before


def with_random_states(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Save a subject with other states of the shared generators."""
    checkpoint.save(path, x=1)
    states = checkpoint.read(path)["_random_state"]
    subject = Subject(0, rng=False)
    subject.save(path)
    data = checkpoint.read(path)
    container.write(path, data | {"_random_state": change(states)})


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    # NumPy reads there, and crashes or gives other memory as numbers.
    "numpy's place": lambda s: s | {"numpy": placed(s["numpy"], 2_000_000_000)},
    "numpy's place below": lambda s: s | {"numpy": placed(s["numpy"], -5)},
    "numpy's place after": lambda s: s | {"numpy": placed(s["numpy"], 625)},
    "a tensor": lambda s: torch.ones(3),
    "a tensor of python's": lambda s: s | {"python": torch.ones(3)},
    "nothing": lambda s: {},
}


def placed(state: dict[str, Any], place: int) -> dict[str, Any]:
    return state | {"state": state["state"] | {"pos": place}}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_states_of_no_generator(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path, subject = tmp_path / "a.safetensors", Subject(1)
    with_random_states(path, change)
    error = refused(path, subject, subject.untouched(), ValueError)
    assert "the states of the random generators do not fit" in str(error)


def test_a_message_does_not_hold_all_that_is_wrong(tmp_path: Path) -> None:
    path, saved, subject = tmp_path / "a.safetensors", Subject(0), Subject(1)
    saved.save(path)
    data = checkpoint.read(path)
    data["optimizer"]["param_groups"][0]["betas"] = (0.9, list(range(10_000)))
    checkpoint.save(path, **{name: part for name, part in data.items() if name[0] != "_"})
    error = refused(path, subject, subject.untouched(), TypeError)
    assert len(str(error)) < 1000
