"""A run against the same training written out, and against itself when it is interrupted."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.race.problems import BATCH, DROPPED, LINE, ROWS, SCORED, batches, changed, near
from tests.race.problems import squared_error as loss_of
from thalweg import optim
from thalweg.race import Racer, find
from thalweg.race.protocol import TaskError
from thalweg.race.training import (
    OptimizerError,
    Training,
    evaluation_points,
    quarters,
    rounded,
)

PROBLEMS = "tests.race.problems."


def measured(model: nn.Module) -> tuple[float, float]:
    """Test loss and score of a model, plainly."""
    generator = torch.Generator()
    with torch.no_grad():
        parts = [(loss_of(model, b), near(model, b)) for b in batches("test", generator)]
    return tuple(rounded(float(sum(each) / 2)) for each in zip(*parts, strict=True))


def test_a_run_is_plain_training() -> None:
    """Written out with SGD's formula, p - lr g, it agrees in every figure."""
    seed, lr, steps = 3, 0.05, 40
    torch.manual_seed(seed)
    model = nn.Linear(3, 1)
    generator = torch.Generator().manual_seed(seed)
    evaluations, train_losses, order = [measured(model)], [], []
    for _ in range(steps):
        if not order:
            order = list(batches("train", generator))
        batch = order.pop(0)
        parameters = list(model.parameters())
        loss = loss_of(model, batch)
        train_losses.append(rounded(float(loss.detach())))
        with torch.no_grad():
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                p -= lr * g
        evaluations.append(measured(model))
    training = Training(SCORED, find("sgd"), lr, seed, steps)
    training.advance(steps)
    run = training.run
    assert run.steps == tuple(range(steps + 1))
    assert run.test_loss == tuple(loss for loss, _ in evaluations)
    assert run.score == tuple(score for _, score in evaluations)
    assert run.train_loss == tuple(train_losses)
    assert run.score[-1] > run.score[0]
    assert (run.lr, run.seed, run.diverged_at) == (lr, seed, None)
    assert list(run.seconds) == sorted(run.seconds)
    assert 0 < run.optimizer_seconds < run.seconds[-1]


def test_the_training_loss_is_the_mean_since_the_evaluation_before() -> None:
    fine = Training(LINE, find("sgd"), 0.05, 0, 40)
    coarse = Training(LINE, find("sgd"), 0.05, 0, 160)
    fine.advance(40)
    coarse.advance(40)
    assert coarse.run.steps == tuple(range(0, 41, 4))
    means = [sum(fine.run.train_loss[i : i + 4]) / 4 for i in range(0, 40, 4)]
    assert coarse.run.train_loss == pytest.approx(means, rel=1e-4)


@pytest.mark.parametrize("task", [LINE, DROPPED], ids=lambda task: task.name)
@pytest.mark.parametrize("name", ["sgd", "adam", "lbfgs"])
def test_continuing_is_one_long_run(task, name: str) -> None:
    """Bit for bit, whatever else is trained in between and draws random numbers."""
    whole, halted, other = (Training(task, find(name), 0.03, s, 40) for s in (0, 0, 1))
    whole.advance(40)
    for end in (10, 20, 40):
        halted.advance(end)
        torch.randn(5)
        other.advance(end)
    a, b = whole.run, halted.run
    assert (a.steps, a.train_loss, a.test_loss) == (b.steps, b.train_loss, b.test_loss)
    assert a.test_loss != other.run.test_loss
    for p, q in zip(whole.model.parameters(), halted.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_dropout_is_on_in_training_and_off_in_evaluation() -> None:
    modes = []

    def loss(model: nn.Module, batch):
        modes.append(model.training)
        return loss_of(model, batch)

    Training(changed(loss=loss), find("sgd"), 0.01, 0, 4).advance(2)
    assert modes == [False, False, *[True, False, False] * 2]


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    training = Training(DROPPED, find("adam"), 0.01, 0, 8)
    training.advance(8)
    training.final()
    assert torch.equal(torch.get_rng_state(), before)


def test_every_evaluated_gradient_counts() -> None:
    calls = 0

    def loss(model: nn.Module, batch):
        nonlocal calls
        calls += model.training
        return loss_of(model, batch)

    training = Training(changed(loss=loss), find("lbfgs"), 1.0, 0, 40)
    training.step()
    assert training.gradients == calls > 1
    training.advance(30)
    assert training.gradients == calls >= 30
    assert training.run.steps[-1] == calls
    assert training.run.steps[1] > 1  # evaluated between steps, not within one
    assert len(training.run.steps) == len(training.run.test_loss)


def test_lbfgs_follows_its_own_step_on_each_batch() -> None:
    training = Training(LINE, find("lbfgs"), 1.0, 0, 40)
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    own = optim.LBFGS(
        model.parameters(), lr=1.0, line_search_fn="strong_wolfe", history_size=10, max_iter=4
    )
    order = list(batches("train", torch.Generator().manual_seed(0)))
    for batch in order[:2]:

        def closure(batch=batch) -> torch.Tensor:
            own.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        own.step(closure)
        training.step()
    for p, q in zip(model.parameters(), training.model.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("lr", [1e30, 10.0])
def test_a_loss_that_is_not_finite_ends_the_run(lr: float) -> None:
    training = Training(changed(steps=400), find("sgd"), lr, 0, 400)
    training.advance(400)
    run = training.run
    assert run.diverged
    assert run.diverged_at == training.gradients < 400
    assert all(map(math.isfinite, (*run.test_loss, *run.train_loss)))
    assert len(run.train_loss) == len(run.steps) - 1
    training.advance(400)
    assert training.gradients == run.diverged_at


def test_weights_that_the_task_cannot_bear_are_divergence() -> None:
    """The task's own exception counts as such only where it fails with initial weights, too."""

    def strict(model: nn.Module, batch):
        loss = loss_of(model, batch)
        if loss.detach() > 1e3:
            raise ValueError("too large")
        return loss

    training = Training(changed(loss=strict), find("sgd"), 100.0, 0, 40)
    training.advance(40)
    assert training.run.diverged_at == 1

    seen = []

    def third(model: nn.Module, batch):
        seen.append(model.training)
        if sum(seen) > 2:
            raise KeyError("third")
        return loss_of(model, batch)

    training = Training(changed(loss=third), find("sgd"), 0.01, 0, 40)
    with pytest.raises(TaskError, match="task line: loss failed: KeyError: 'third'"):
        training.advance(40)


@pytest.mark.parametrize("part", ["loss", "score"])
def test_what_a_task_raises_once_is_not_the_optimizers_fault(part: str) -> None:
    """It is not called divergence, though the task can do with the initial weights."""
    calls = []

    def fails_once(model: nn.Module, batch):
        calls.append(1)
        if len(calls) == 9:
            raise OSError("the disk is full")
        return loss_of(model, batch)

    training = Training(changed(**{part: fails_once}), find("sgd"), 0.01, 0, 40)
    with pytest.raises(TaskError, match=f"task line: {part} failed: OSError: the disk is full"):
        training.advance(40)
    assert training.diverged_at is None


def test_an_evaluation_that_the_weights_make_fail_is_divergence() -> None:
    def strict(model: nn.Module, batch):
        value = loss_of(model, batch)
        if value > 1e3:
            raise ValueError("too large")
        return value

    training = Training(changed(score=strict), find("sgd"), 100.0, 0, 40)
    training.advance(40)
    assert training.run.diverged_at == 1


def test_an_optimizer_that_freezes_the_model_fails() -> None:
    with pytest.raises(OptimizerError, match="changes the parameters' dtype, shape or requires_gr"):
        Training(LINE, Racer("a", PROBLEMS + "Freezes", 1.0), 0.05, 0, 20).advance(20)


def test_before_the_first_step_the_test_loss_must_be_finite() -> None:
    def loss(model: nn.Module, batch):
        return loss_of(model, batch) + (0.0 if model.training else math.inf)

    with pytest.raises(TaskError, match=r"before the first step the test loss is inf \(seed 7\)"):
        Training(changed(loss=loss), find("sgd"), 0.01, 7, 40)


@pytest.mark.parametrize("name", ["NoClosure", "Scaled"])
def test_an_optimizer_without_a_closure_is_trained_as_well(name: str) -> None:
    foreign = Training(LINE, Racer("own", PROBLEMS + name, 1.0), 0.05, 0, 20)
    ours = Training(LINE, find("sgd"), 0.05, 0, 20)
    foreign.advance(20)
    ours.advance(20)
    assert foreign.gradients == 20
    assert foreign.run.test_loss == pytest.approx(ours.run.test_loss, rel=1e-4)


def test_optimizers_that_fail_are_told_from_tasks_that_fail() -> None:
    with pytest.raises(OptimizerError, match="no third step"):
        Training(LINE, Racer("a", PROBLEMS + "Fails", 1.0), 0.05, 0, 20).advance(20)
    with pytest.raises(OptimizerError, match="does not call the closure"):
        Training(LINE, Racer("a", PROBLEMS + "Deaf", 1.0), 0.05, 0, 20).advance(20)
    with pytest.raises(OptimizerError, match="SGD: momentum must be"):
        Training(LINE, Racer("a", "thalweg.optim.SGD", 1.0, {"momentum": -1.0}), 0.05, 0, 20)
    empty = changed(batches=lambda split, g: batches("test", g) if split == "test" else [])
    training = Training(empty, find("sgd"), 0.05, 0, 20)
    with pytest.raises(TaskError, match="batches gives none for 'train'"):
        training.advance(1)


@pytest.mark.parametrize("steps", [4, 5, 6, 7, 39, 40, 41, 400, 1001])
def test_evaluations_are_evenly_spaced_and_rounds_end_at_one(steps: int) -> None:
    points = evaluation_points(steps)
    assert points[0] == 0
    assert points[-1] == steps
    assert points == sorted(set(points))
    assert len(points) == min(steps, 40) + 1
    gaps = [b - a for a, b in pairwise(points)]
    assert max(gaps) - min(gaps) <= 1
    first, half, whole = quarters(steps)
    assert {first, half, whole} <= set(points)
    assert abs(first - steps / 4) <= 1
    assert abs(half - steps / 2) <= 1
    assert whole == steps


def test_passes_of_the_batches_differ_and_repeat_with_the_seed() -> None:
    per_pass = ROWS // BATCH

    def seen(seed: int) -> list[torch.Tensor]:
        found = []

        def loss(model: nn.Module, batch):
            if model.training:
                found.append(batch[0])
            return loss_of(model, batch)

        Training(changed(loss=loss), find("sgd"), 0.01, seed, 40).advance(2 * per_pass)
        return found

    first, again, other = seen(0), seen(0), seen(1)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
    assert not all(map(torch.equal, first[:per_pass], first[per_pass:]))
    whole = torch.cat(first[:per_pass]).double().sum(0)
    torch.testing.assert_close(whole, torch.cat(first[per_pass:]).double().sum(0))
