from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.race.problems import changed


def test_numbers_become_plain_ones_that_a_file_holds() -> None:
    task = changed(target=np.float32(0.5), steps=np.int64(40))
    assert (type(task.target), task.target, type(task.steps)) == (float, 0.5, int)
    assert changed(target=torch.tensor(0.25)).target == 0.25
    assert changed(target=None).target is None


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target": math.inf}, ValueError, "target must be finite, got inf"),
        ({"target": math.nan}, ValueError, "target must be finite, got nan"),
        ({"target": "0.9"}, TypeError, "target must be a number, got str '0.9'"),
        ({"steps": 8.5}, TypeError, "steps must be an integer, got float 8.5"),
        ({"steps": True}, TypeError, "steps must be an integer, got bool True"),
        ({"name": 5}, TypeError, "name must be a string, got int 5"),
        ({"name": " "}, ValueError, "name must not be empty"),
        ({"name": "a\ud800"}, ValueError, "name must be text that a file can hold"),
        ({"metric": None}, TypeError, "metric must be a string, got NoneType None"),
        ({"model": torch.zeros(1)}, TypeError, "model must be a function"),
        ({"loss": None}, TypeError, "loss must be a function, got None"),
        ({"score": 0.5}, TypeError, "score must be a function, got 0.5"),
    ],
    ids=lambda value: None if isinstance(value, str) else value.__class__.__name__,
)
def test_what_no_race_could_use_is_refused(changes: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=f"^Task: {message}"):
        changed(**changes)
