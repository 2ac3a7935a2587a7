"""The search against runs that are made alone, from beginning to end."""

from dataclasses import replace

import pytest

from tests.race.problems import LINE, SCORED, changed, squared_error
from thalweg.race import Entry, Racer, Run, StepTime, find, grid
from thalweg.race.protocol import TaskError
from thalweg.race.search import budget, compete, rank
from thalweg.race.training import OptimizerError, Training

STEPS = 40
TIME = StepTime(1.0, None, 1.0, 0.0)


def entered(task, racer: Racer, rates: int = 5, seeds: int = 2, **more) -> Entry:
    return compete(
        task,
        racer,
        steps=STEPS,
        learning_rates=rates,
        seed=0,
        seeds=seeds,
        step_time=lambda: TIME,
        **more,
    )


def alone(task, racer: Racer, lr: float, steps: int = STEPS, seed: int = 0) -> Run:
    training = Training(task, racer, lr, seed, STEPS)
    training.advance(steps)
    return training.run


def timeless(run: Run) -> Run:
    return replace(run, seconds=(), optimizer_seconds=0.0)


@pytest.mark.parametrize("task", [LINE, SCORED], ids=lambda task: task.name)
@pytest.mark.parametrize("name", ["sgd", "adam(lr=0.3)"])
def test_halving_keeps_the_better_half_of_each_round(task, name: str) -> None:
    racer = find(name)
    rates = grid(racer.centre, 5)
    left = rates
    expected: dict[float, int] = {}
    for end, kept in ((10, 3), (20, 2), (40, 1)):
        runs = [alone(task, racer, lr, end) for lr in left]
        for run in runs:
            expected[run.lr] = run.steps[-1]
        runs = sorted((r for r in runs if not r.diverged), key=lambda r: rank(r, task.target))
        left = [run.lr for run in runs[:kept]]
    entry = entered(task, racer)
    assert [run.lr for run in entry.search] == rates
    assert {run.lr: run.steps[-1] for run in entry.search} == expected
    assert entry.lr == left[0]
    for run in entry.search:
        assert timeless(run) == timeless(alone(task, racer, run.lr, expected[run.lr]))


def test_the_best_rate_runs_from_every_seed() -> None:
    entry = entered(LINE, find("adam"), seeds=3)
    assert entry.runs[0] in entry.search
    for seed, run in enumerate(entry.runs):
        assert timeless(run) == timeless(alone(LINE, find("adam"), entry.runs[0].lr, seed=seed))
    assert len({run.test_loss for run in entry.runs}) == 3
    assert entry.step_time is TIME
    assert entry.failed is None


@pytest.mark.parametrize(("rates", "seeds"), [(1, 1), (2, 1), (3, 2), (5, 3), (7, 3), (8, 1)])
def test_gradients_are_within_the_budget_and_told(rates: int, seeds: int) -> None:
    told: list[tuple[float, int]] = []
    racer = replace(find("adam"), centre=1e-3)  # of which none diverges
    entry = entered(LINE, racer, rates, seeds, listen=lambda lr, n: told.append((lr, n)))
    made = sum(run.steps[-1] for run in (*entry.search, *entry.runs[1:]))
    assert made == budget(STEPS, rates, seeds)
    assert [n for _, n in told] == list(range(1, made + 1))
    assert {lr for lr, _ in told} == {run.lr for run in entry.search}


def test_the_budget_is_the_documented_one() -> None:
    """7, 4 and 2 rates: 7/4 + 4/4 + 2/2 full runs, and two more seeds."""
    assert budget(400, 7, 3) == 700 + 400 + 400 + 800


def test_rates_that_diverge_leave_and_all_of_them_leave_no_run() -> None:
    entry = entered(LINE, Racer("SGD", "thalweg.optim.SGD", 10.0), rates=7)
    diverged = [run for run in entry.search if run.diverged]
    assert 0 < len(diverged) < 7
    assert entry.lr not in [run.lr for run in diverged]
    lost = entered(LINE, Racer("SGD", "thalweg.optim.SGD", 1e32), rates=3)
    assert all(run.diverged for run in lost.search)
    assert (lost.runs, lost.lr, lost.failed) == ((), None, None)


def test_the_places_of_rates_that_diverge_go_to_others() -> None:
    """Of 7 rates 4 go on and then 2, though 2 are lost in the first round, 1 in the second."""
    entry = entered(LINE, Racer("SGD", "thalweg.optim.SGD", 10.0), rates=7)
    lost = [run.diverged_at for run in entry.search if run.diverged]
    assert sorted(lost) == [7, 9, 15]
    went_on = [
        run.steps[-1] for run in entry.search if (run.diverged_at or 40) > 10 < run.steps[-1]
    ]
    assert sorted(went_on) == [14, 20, STEPS, STEPS]


def test_if_the_rest_diverges_late_the_best_of_those_that_were_out_goes_on() -> None:
    """Greater rates win the first round and are lost in the second."""
    entry = entered(LINE, Racer("Bursts", "tests.race.problems.Bursts", 1e-2), rates=5)
    assert [run.diverged for run in entry.search] == [False, False, True, True, True]
    assert [run.steps[-1] for run in entry.search][:2] == [10, STEPS]
    assert entry.lr == entry.search[1].lr
    assert timeless(entry.runs[0]) == timeless(alone(LINE, find("sgd"), entry.lr))


def run(lr: float, loss: tuple[float, ...], diverged_at: int | None = None) -> Run:
    return Run(lr, 0, tuple(range(len(loss))), loss, loss[1:], loss, (), diverged_at)


def test_rank_is_held_then_steps_then_loss() -> None:
    early, late = run(1, (9, 1, 1, 0.9)), run(2, (9, 9, 1, 0.1))
    lost, never = run(3, (9, 0.5, 1, 3)), run(4, (9, 8, 7, 2))
    worse = run(5, (9, 8, 7, 6))
    runs = [worse, never, lost, late, early]
    assert sorted(runs, key=lambda r: rank(r, 1.0)) == [early, late, lost, never, worse]
    assert sorted(runs, key=lambda r: rank(r, None)) == [late, early, never, lost, worse]


def test_failures_become_the_entrys() -> None:
    entry = entered(LINE, Racer("Fails", "tests.race.problems.Fails", 0.1))
    assert entry.failed == "no third step"
    assert (entry.search, entry.runs, entry.step_time) == ((), (), None)

    def refused() -> StepTime:
        raise OptimizerError("takes no such thing")

    entry = compete(
        LINE, find("sgd"), steps=40, learning_rates=2, seed=0, seeds=1, step_time=refused
    )
    assert entry.failed == "takes no such thing"
    assert entered(LINE, find("sparseadam")).failed.startswith("SparseAdam does not support dense")


def test_a_task_that_fails_ends_the_race() -> None:
    calls = []

    def score(model, batch):
        calls.append(1)
        if len(calls) > 9:
            raise RuntimeError("broken")
        return squared_error(model, batch)

    with pytest.raises(TaskError, match="task line: score failed: RuntimeError: broken"):
        # The first evaluation of a run fails: its weights are nobody's fault.
        entered(changed(score=score), find("sgd"), rates=7)
