import pytest
import torch

from tests.race.problems import LINE, SCORED, changed, squared_error
from thalweg.race import find, measure_loss
from thalweg.race.training import Training


def test_both_train_as_by_themselves_and_in_turn() -> None:
    seen: list[str] = []

    def spy(name: str, factor: float):
        def loss(model, batch):
            if model.training:
                seen.append(name)
            return factor * squared_error(model, batch)

        return loss

    task = changed(loss=spy("thalweg", 1.0), torch_loss=spy("torch", 0.5), loss_name="error")
    time = measure_loss(task, find("sgd"), 0.05, seed=1, steps=8)
    assert seen[:4] == ["torch", "thalweg", "thalweg", "torch"]
    assert seen.count("torch") == seen.count("thalweg") == 8
    assert (time.loss, time.optimizer, time.steps) == ("error", "SGD", 8 - 5)
    for score, lr, factor in ((time.thalweg_score, 0.05, 1.0), (time.torch_score, 0.025, 0.5)):
        run = Training(LINE, find("sgd"), lr, 1, 8)
        run.advance(8)
        assert score == pytest.approx(factor * run.run.test_loss[-1], rel=1e-4)
    assert min(time.thalweg_us, time.torch_us) > 0
    assert abs(time.saved_us) < time.thalweg_us + time.torch_us


def test_a_score_is_reported_where_there_is_one() -> None:
    from dataclasses import replace

    time = measure_loss(replace(SCORED, torch_loss=squared_error), find("adam"), 0.1, 0, 8)
    assert 0 <= time.thalweg_score == time.torch_score <= 1


def test_nothing_is_measured_without_torchs_loss_or_if_a_run_diverges() -> None:
    assert measure_loss(LINE, find("sgd"), 0.05, 0, 8) is None
    task = changed(torch_loss=lambda m, b: squared_error(m, b) * torch.tensor(1e30))
    assert measure_loss(task, find("sgd"), 0.05, 0, 8) is None
