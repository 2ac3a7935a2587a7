import sys
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from thalweg import losses
from thalweg.race import Racer, Task, find, measure_loss, measure_steps, race, run_trial


@pytest.fixture(scope="module")
def task() -> Task:
    """Two well separated clouds: a linear layer learns them in a few steps."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(80) % 2
    x = torch.randn(80, 3, generator=generator) + 4.0 * (2.0 * y[:, None] - 1.0)
    return Task("clouds", x[:60], y[:60], x[60:], y[60:], layers=(6, 2), batch_size=25)


def test_trial_is_plain_training(task: Task) -> None:
    """The same training written out with SGD's formula, p - lr g, agrees in every figure."""
    network = task.network()
    steps_to_target, steps = None, 0
    for x, y in task.batches(2):
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(cross_entropy(network(x), y), parameters)
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p -= 0.05 * g
        steps += 1
        if steps_to_target is None and task.accuracy(network) >= task.target:
            steps_to_target = steps
    assert steps_to_target is not None
    trial = run_trial(task, find("sgd"), 0.05, epochs=2)
    assert trial.steps == steps == 6
    assert trial.steps_to_target == steps_to_target
    assert trial.accuracy == task.accuracy(network)
    assert trial.held == (trial.accuracy >= 0.95)
    assert trial.seconds_to_target is not None
    assert trial.seconds_to_target > 0


def test_trials_repeat(task: Task) -> None:
    a, b = (run_trial(task, find("adam"), 0.01, epochs=2) for _ in range(2))
    assert (a.steps_to_target, a.accuracy) == (b.steps_to_target, b.accuracy)


def test_trial_without_progress_misses_the_target(task: Task) -> None:
    trial = run_trial(task, find("sgd"), 0.0, epochs=1)
    assert trial.steps == 3
    assert trial.steps_to_target is None
    assert trial.seconds_to_target is None
    assert not trial.held
    assert trial.accuracy == task.accuracy(task.network())


def test_a_loss_that_is_not_finite_ends_the_trial(task: Task) -> None:
    trial = run_trial(task, find("sgd"), 1e38, epochs=50)
    assert trial.diverged
    assert trial.steps < 150
    assert not trial.held


def test_state_bytes_are_those_of_the_states(task: Task) -> None:
    elements, tensors = 3 * 6 + 6 + 6 * 2 + 2, 4
    assert measure_steps(task, find("sgd"), repeats=1).state_bytes == 0
    momentum = measure_steps(task, find("sgd+momentum"), repeats=1)
    assert momentum.state_bytes == 4
    adam = measure_steps(task, find("adam"), repeats=1)
    # two float32 moments per element, and a float64 step count per tensor
    assert adam.state_bytes == pytest.approx(8 + 8 * tensors / elements)


def test_step_times_are_positive_and_give_the_ratio(task: Task) -> None:
    time = measure_steps(task, find("adagrad"), repeats=3)
    assert min(time.thalweg_us, time.torch_us, time.first_step_s) > 0
    assert time.ratio == time.torch_us / time.thalweg_us


def test_both_losses_train_alike(task: Task) -> None:
    """Each as by itself, to the rounding of its gradients; the first five steps are not timed."""
    time = measure_loss(task, find("sgd"), 0.05, epochs=4)
    assert (time.loss, time.optimizer, time.steps) == ("cross_entropy", "SGD", 12 - 5)
    trial = run_trial(task, find("sgd"), 0.05, epochs=4)
    assert time.torch_accuracy == trial.accuracy
    assert time.thalweg_accuracy == pytest.approx(trial.accuracy, abs=0.051)  # one sample of 20
    assert min(time.thalweg_us, time.torch_us) > 0
    assert abs(time.saved_us) < time.thalweg_us + time.torch_us


def test_each_loss_is_of_its_library(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(name: str, function: Any) -> Any:
        def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            seen.append(name)
            return function(x, y)

        loss.__name__ = "cross_entropy"
        return loss

    for name, module in (("thalweg", losses), ("torch", sys.modules["thalweg.race.run"])):
        own = spy(name, module.cross_entropy)
        monkeypatch.setattr(module, "cross_entropy", own)
    measure_loss(task, find("adam"), 0.01, epochs=1)
    assert seen == ["torch", "thalweg", "thalweg", "torch", "torch", "thalweg"]


def test_race_runs_every_trial_once_and_restores_the_threads(task: Task) -> None:
    before = torch.get_num_threads()
    seen: list[tuple[str, float]] = []
    threads: set[int] = set()

    def listen(racer: Racer, lr: float) -> None:
        seen.append((racer.name, lr))
        threads.add(torch.get_num_threads())

    racers = [find("sgd"), find("adam")]
    result = race(task, racers, learning_rates=3, epochs=1, before_trial=listen)
    assert threads == {1}
    assert torch.get_num_threads() == before
    assert len(seen) == len(set(seen)) == 6
    assert {s.name for s in result.standings} == {"SGD", "Adam"}
    for standing in result.standings:
        rates = [trial.lr for trial in standing.trials]
        assert rates == sorted(rates) == [lr for name, lr in seen if name == standing.name]
    assert (result.tensors, result.parameters) == (4, 38)
    assert result.loss.optimizer == result.standings[0].name


@pytest.mark.parametrize("wrong", [{"learning_rates": 0}, {"epochs": 0}])
def test_race_needs_something_to_run(task: Task, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1, got"):
        race(task, [find("sgd")], **wrong)
    with pytest.raises(ValueError, match="racers is empty"):
        race(task, [])
