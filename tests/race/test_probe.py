import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.race.problems import DROPPED, LINE, SCORED, TRAIN, changed, squared_error
from thalweg.race import Task
from thalweg.race.probe import probe
from thalweg.race.protocol import TaskError, evaluate


def test_the_gradients_are_those_of_a_batch_at_the_initial_weights() -> None:
    whole = changed(batches=lambda split, generator: [TRAIN])
    found = probe(whole, seed=3, steps=40, length=1.0)
    torch.manual_seed(3)
    model = nn.Linear(3, 1)
    expected = torch.autograd.grad(squared_error(model, TRAIN), list(model.parameters()))
    first, second = found.parameters(), found.parameters()
    for p, q, at, g in zip(first, second, model.parameters(), expected, strict=True):
        assert torch.equal(p, at)
        assert torch.equal(p.grad, g)
        assert p is not q
        assert p.grad is not q.grad
    assert found.seconds > 0
    assert (found.result.parameters, found.result.tensors, found.result.entries) == (4, 2, ())


def test_a_probe_changes_nothing() -> None:
    before = torch.get_rng_state()
    probe(DROPPED, seed=0, steps=40, length=1.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_that_are_not_trained_are_left_out() -> None:
    def model() -> nn.Module:
        made = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        made[0].requires_grad_(False)
        return made

    assert probe(changed(model=model), 0, 40, 1.0).result.parameters == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": lambda: 3}, "model must return a torch.nn.Module with parameters, got int"),
        ({"model": nn.ReLU}, "model must return a torch.nn.Module with parameters, got ReLU"),
        ({"model": lambda: [][0]}, "model failed: IndexError"),
        ({"batches": lambda split, g: []}, "batches gives none for 'train'; give one"),
        ({"batches": lambda split, g: 3}, "batches failed: TypeError"),
        (
            {"batches": lambda split, g: [TRAIN] if split == "train" else []},
            "batches gives none for 'test'",
        ),
        ({"loss": lambda m, b: m(b[0])}, r"loss must return a tensor of one number, got \(8, 1\)"),
        ({"loss": lambda m, b: 1.0}, "loss must return a tensor of one number, got float"),
        ({"loss": lambda m, b: torch.ones(())}, "loss failed: RuntimeError"),
        (
            {"loss": lambda m, b: torch.ones((), requires_grad=True) * 2},
            "the loss gives no parameter a gradient",
        ),
        (
            {"loss": lambda m, b: squared_error(m, b) * math.inf},
            "before the first step the loss is inf; it must be finite",
        ),
        (
            {"loss": lambda m, b: squared_error(m, b) * (1.0 if m.training else math.nan)},
            "before the first step the test loss is nan",
        ),
        (
            {"score": lambda m, b: torch.tensor(math.nan), "metric": "luck"},
            "before the first step the luck is nan",
        ),
        ({"score": lambda m, b: m.nothing}, "score failed: AttributeError"),
    ],
)
def test_what_is_wrong_with_a_task_is_named(changes, message) -> None:
    with pytest.raises(TaskError, match=f"^race: task line: {message}"):
        probe(changed(**changes), seed=0, steps=40, length=1.0)


def test_a_run_has_four_steps_at_least() -> None:
    with pytest.raises(TaskError, match=r"at least 4 steps, got 2 \(40 times length 0.05\)"):
        probe(LINE, seed=0, steps=2, length=0.05)


def counted(task: Task) -> tuple[Task, list[int]]:
    calls = [0]

    class Counting(nn.Linear):
        def forward(self, x):
            calls[0] += 1
            return super().forward(x)

    return replace(task, model=lambda: Counting(3, 1)), calls


def test_loss_and_score_share_one_pass_through_the_model() -> None:
    task, calls = counted(SCORED)
    model = task.model()
    loss, score = evaluate(task, model, 0)
    assert calls == [2]  # test batches
    assert "forward" not in vars(model)
    assert model.training
    separately = [evaluate(replace(task, score=None), model, 0)[0], evaluate(task, model, 0)[1]]
    assert [loss, score] == separately


def test_an_output_that_was_written_to_is_computed_anew() -> None:
    def destroy(model, batch):
        model(batch[0]).zero_()
        return squared_error(model, batch)

    model = LINE.model()
    assert evaluate(changed(score=destroy), model, 0) == (evaluate(LINE, model, 0)[0],) * 2
