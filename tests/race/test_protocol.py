from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.race.problems import LINE, SCORED, changed, near, squared_error
from thalweg.race.protocol import TaskError, evaluate, new_model


def test_the_mean_is_that_of_the_test_batches() -> None:
    model, _ = new_model(SCORED, 3)
    with torch.no_grad():
        batches = list(SCORED.batches("test", torch.Generator()))
        losses = [float(squared_error(model, b)) for b in batches]
        scores = [float(near(model, b)) for b in batches]
    assert evaluate(SCORED, model, 3) == (sum(losses) / 2, sum(scores) / 2)
    assert evaluate(LINE, model, 3)[1] is None
    assert model.training


@pytest.mark.parametrize("part", ["loss", "score"])
@pytest.mark.parametrize(
    ("value", "got"),
    [(torch.zeros(2), r"\(2,\)"), (None, "NoneType"), ("1.0", "str"), ([1.0], "list")],
    ids=["vector", "none", "text", "list"],
)
def test_what_is_no_number_is_the_tasks_error(part: str, value: object, got: str) -> None:
    task = changed(**{"score": near, part: lambda model, batch: value})
    model, _ = new_model(task, 0)
    with pytest.raises(TaskError, match=f"task line: {part} must return one number, got {got}"):
        evaluate(task, model, 0)


def test_a_forward_of_the_models_own_instance_stays() -> None:
    model, _ = new_model(LINE, 0)
    expected = evaluate(LINE, model, 0)
    inner = model.forward
    model.forward = lambda x: inner(x) + 0.0
    own = model.forward
    assert evaluate(LINE, model, 0) == expected
    assert model.forward is own


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_of_torchscript_is_evaluated() -> None:
    plain, _ = new_model(LINE, 0)
    traced = torch.jit.trace(plain, torch.zeros(1, 3))
    assert evaluate(LINE, traced, 0) == pytest.approx(evaluate(LINE, plain, 0))


def test_parameters_that_are_not_made_yet_are_refused() -> None:
    with pytest.raises(TaskError, match=r"made by its first call; call it once on a batch"):
        new_model(changed(model=lambda: nn.LazyLinear(1)), 0)
