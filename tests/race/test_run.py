"""Whole races: what is run, what is saved, what they go on from."""

import subprocess
import sys
import warnings
from dataclasses import fields, replace

import pytest
import torch

from tests.race.problems import LINE, SCORED, changed
from tests.race.problems import squared_error as loss_of
from thalweg.race import TASKS, Result, Run, Settings, Stage, find, grid, race, settings
from thalweg.race.protocol import TaskError

SMALL = Settings("small", ("line", "scored"), ("sgd", "adam"), 3, 2, 0, 1.0)


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "line", lambda: LINE)
    monkeypatch.setitem(TASKS, "scored", lambda: SCORED)


def timeless(result: Result) -> Result:
    """Without what differs from one run to the next."""

    def of_run(run: Run) -> Run:
        return replace(run, seconds=tuple(0.0 for _ in run.seconds), optimizer_seconds=0.0)

    tasks = tuple(
        replace(
            task,
            loss_time=None,
            entries=tuple(
                replace(
                    entry,
                    search=tuple(map(of_run, entry.search)),
                    runs=tuple(map(of_run, entry.runs)),
                    step_time=None,
                )
                for entry in task.entries
            ),
        )
        for task in result.tasks
    )
    return replace(result, seconds=0.0, tasks=tasks)


def test_every_optimizer_runs_on_every_task() -> None:
    result = race(SMALL)
    assert result.complete
    assert result.settings == SMALL
    assert [task.task for task in result.tasks] == ["line", "scored"]
    for task, made in zip(result.tasks, (LINE, SCORED), strict=True):
        assert [entry.name for entry in task.entries] == ["SGD", "Adam"]
        assert (task.goal, task.steps, task.parameters, task.tensors) == (made.target, 40, 4, 2)
        assert (task.description, task.metric) == (made.description, made.metric)
        assert task.scored == (made.score is not None)
        for entry in task.entries:
            assert len(entry.search) == 3
            assert [run.seed for run in entry.runs] == [0, 1]
            assert entry.step_time is not None
            assert entry.step_time.own_us > 0
    assert result.versions["torch"] == torch.__version__
    assert result.versions["threads"] == "1"
    assert set(result.versions) == {"thalweg", "python", "torch", "llvmlite", "threads", "machine"}


def test_races_repeat_and_seeds_matter() -> None:
    again = [timeless(race(replace(SMALL, tasks=("line",)))) for _ in range(2)]
    assert again[0] == again[1]
    other = timeless(race(replace(SMALL, tasks=("line",), seed=1)))
    entries = [each.tasks[0].entries[0] for each in (again[0], other)]
    assert entries[0].runs[1].test_loss[0] == entries[1].runs[0].test_loss[0]
    assert entries[0].runs[0] != entries[1].runs[0]


def test_length_is_a_factor_on_the_steps() -> None:
    result = race(replace(SMALL, tasks=("line",), optimizers=("sgd",), length=0.5))
    (task,) = result.tasks
    assert task.steps == 20
    assert task.entries[0].runs[0].steps[-1] == 20


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_an_interrupted_race_goes_on_as_if_it_had_not_been(stop: int) -> None:
    saved: list[Result] = []

    def progress(stage: Stage) -> None:
        entries = sum(len(task.entries) for task in saved[-1].tasks) if saved else 0
        if entries == stop and stage.lr is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race(SMALL, progress=progress, save=saved.append)
    so_far = Result.from_json(saved[-1].to_json())
    assert not so_far.complete
    assert sum(len(task.entries) for task in so_far.tasks) == stop
    ran: list[tuple[str, str]] = []
    result = race(
        SMALL,
        done=so_far,
        progress=lambda stage: ran.append((stage.task, stage.racer)),
        save=saved.append,
    )
    assert timeless(result) == timeless(race(SMALL))
    assert saved[-1] == result
    assert result.seconds > so_far.seconds
    before = {(task.task, entry.name) for task in so_far.tasks for entry in task.entries}
    assert before.isdisjoint(ran)
    assert len(set(ran)) == 4 - stop


def test_a_complete_result_is_given_back_as_it_is() -> None:
    result = race(replace(SMALL, tasks=("line",)))
    assert race(result.settings, done=result) is result


def test_every_entry_is_saved_and_so_is_the_end() -> None:
    saved: list[Result] = []
    result = race(SMALL, save=saved.append)
    counts = [sum(len(task.entries) for task in each.tasks) for each in saved]
    assert counts == [1, 2, 3, 4, 4]
    assert [each.complete for each in saved] == [False] * 4 + [True]
    assert saved[-1] is result


def test_progress_rises_from_0_to_1() -> None:
    stages: list[Stage] = []
    race(SMALL, progress=stages.append)
    parts = [stage.fraction for stage in stages]
    assert parts[0] == 0
    assert parts == sorted(parts)
    assert parts[-1] == pytest.approx(1)
    names = list(dict.fromkeys((stage.task, stage.racer) for stage in stages))
    assert names == [(t, r) for t in ("line", "scored") for r in ("SGD", "Adam")]
    first = [stage for stage in stages if (stage.task, stage.racer) == names[0]]
    assert first[0].lr is None
    assert {stage.lr for stage in first[1:]} == set(grid(find("sgd").centre, 3))


@pytest.mark.parametrize("field", [field.name for field in fields(Settings)])
def test_other_settings_do_not_go_on(field: str) -> None:
    done = race(replace(SMALL, tasks=("line",), optimizers=("sgd",), learning_rates=1))
    done = replace(done, complete=False)
    other = {
        "preset": "full",
        "tasks": ("scored",),
        "optimizers": ("adam",),
        "learning_rates": 2,
        "seeds": 1,
        "seed": 4,
        "length": 2.0,
    }
    with pytest.raises(ValueError, match=f"race: {field} must be as in the race to go on from"):
        race(replace(done.settings, **{field: other[field]}), done=done)


def test_another_version_or_another_task_does_not_go_on(monkeypatch) -> None:
    done = race(replace(SMALL, tasks=("line",), optimizers=("sgd",), learning_rates=1))
    done = replace(done, complete=False)
    elsewhere = replace(done, versions={**done.versions, "torch": "1.0"})
    with pytest.raises(ValueError, match=r"race: torch was 1\.0 in the race to go on from and is"):
        race(done.settings, done=elsewhere)
    monkeypatch.setitem(TASKS, "line", lambda: changed(steps=80))
    with pytest.raises(ValueError, match=r"steps of task line was 40 .* and is 80 now"):
        race(done.settings, done=done)


def test_failed_and_diverged_optimizers_do_not_stop_the_race() -> None:
    optimizers = ("sparseadam", "sgd(lr=1e34)", "tests.race.problems:Fails", "sgd")
    result = race(replace(SMALL, tasks=("line",), optimizers=optimizers))
    (task,) = result.tasks
    refused, diverged, failed, works = task.entries
    assert refused.failed.startswith("SparseAdam does not support dense gradients")
    assert diverged.failed is None
    assert diverged.runs == ()
    assert diverged.step_time is not None
    assert failed.failed == "no third step"
    assert works.runs
    assert [e.name for e in task.standings[:2]] == ["SGD", "SGD (lr 1e+34)"]
    assert Result.from_json(result.to_json()) == result


def test_classes_of_torch_and_of_others_race() -> None:
    optimizers = ("sgd", "torch.optim.SGD", "tests.race.problems:NoClosure")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = race(replace(SMALL, tasks=("line",), optimizers=optimizers, learning_rates=1))
    ours, torchs, own = result.tasks[0].entries
    assert [e.name for e in (ours, torchs, own)] == ["SGD", "SGD (torch)", "NoClosure"]
    assert torchs.optimizer == "torch.optim.SGD"
    assert ours.step_time.torch_us > 0
    assert torchs.step_time.torch_us is None
    assert own.step_time.torch_us is None
    assert torchs.runs[0].test_loss == pytest.approx(ours.runs[0].test_loss, rel=1e-4)
    assert own.runs[0].lr == 0.5


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (changed(loss=lambda m, b: loss_of(m, b) * torch.nan), "before the first step the loss is"),
        (changed(loss=lambda m, b: m.absent), "loss failed: AttributeError"),
        (changed(model=lambda: 1 / 0), "model failed: ZeroDivisionError"),
        (changed(steps=3), "at least 4 steps, got 3"),
    ],
    ids=["nan", "loss", "model", "steps"],
)
def test_a_bad_task_is_found_before_anything_is_trained(monkeypatch, task, message) -> None:
    monkeypatch.setitem(TASKS, "scored", lambda: task)
    saved: list[Result] = []
    with pytest.raises(ValueError, match=f"race: task line: .*{message}"):
        race(replace(SMALL, tasks=("scored",)), save=saved.append)
    assert not saved


def test_a_task_that_fails_late_leaves_what_is_done(monkeypatch) -> None:
    made = []

    def batches(split, generator):
        made.append(split)
        if len(made) > 150:
            raise OSError("gone")
        return LINE.batches(split, generator)

    monkeypatch.setitem(TASKS, "line", lambda: changed(batches=batches))
    saved: list[Result] = []
    with pytest.raises(TaskError, match="task line: batches failed: OSError: gone"):
        race(replace(SMALL, tasks=("scored", "line")), save=saved.append)
    assert [len(task.entries) for task in saved[-1].tasks] == [2, 0]
    assert not saved[-1].complete


def test_threads_and_random_state_are_left_as_they_were() -> None:
    before, state, threads = torch.get_num_threads(), torch.get_rng_state(), set()
    torch.set_num_threads(2)
    try:
        race(
            replace(SMALL, tasks=("line",)),
            progress=lambda stage: threads.add(torch.get_num_threads()),
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == {1}
    assert torch.equal(torch.get_rng_state(), state)


def test_the_winners_loss_is_timed_where_torch_has_it(monkeypatch) -> None:
    task = changed(torch_loss=loss_of, loss_name="squared_error")
    monkeypatch.setitem(TASKS, "line", lambda: task)
    result = race(replace(SMALL, tasks=("line",)))
    (part,) = result.tasks
    assert part.loss_time.loss == "squared_error"
    assert part.loss_time.optimizer == part.standings[0].name
    assert part.loss_time.thalweg_score == part.standings[0].runs[0].test_loss[-1]
    assert race(replace(SMALL, tasks=("scored",))).tasks[0].loss_time is None


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"race: learning_rates must be .* got 0"):
        race(replace(SMALL, learning_rates=0))
    with pytest.raises(ValueError, match="unknown optimizer 'adem'; did you mean Adam"):
        race(replace(SMALL, optimizers=("adem",)))
    with pytest.raises(ValueError, match="unknown task 'lime'; did you mean line"):
        race(replace(SMALL, tasks=("lime",)))


def test_own_settings_are_checked_like_the_presets() -> None:
    asked = settings("small", tasks=["line"], optimizers=["sgd"], learning_rates=1, seeds=1)
    assert race(asked).tasks[0].entries[0].lr == find("sgd").centre


def test_importing_races_loads_nothing_heavy() -> None:
    code = (
        "import sys, torch, torch.optim\n"
        "before = set(sys.modules)\n"
        "import thalweg.race\n"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "thalweg" in loaded
    heavy = {"llvmlite", "typer", "rich", "sklearn", "matplotlib", "plotly", "pydoc_data"}
    assert loaded.isdisjoint(heavy)
