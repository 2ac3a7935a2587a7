"""What all tasks have in common; one pass over each."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.race.problems import LINE
from thalweg.race import TASKS, Settings, Task, find_task, race
from thalweg.race.protocol import evaluate, new_model
from thalweg.race.tasks import find_all

EVERY = list(TASKS)


@pytest.fixture(scope="module", params=EVERY)
def task(request: pytest.FixtureRequest) -> Task:
    return find_task(request.param)


def test_tasks_have_their_names_and_say_what_they_are(task: Task) -> None:
    assert TASKS[task.name]().name == task.name
    assert task.description
    assert task.target is not None
    assert task.torch_loss is not None
    assert (task.score is None) == (task.metric == "loss")


def test_both_losses_are_the_same_function(task: Task) -> None:
    model, _ = new_model(task, 0)
    batch = next(iter(task.batches("train", torch.Generator().manual_seed(0))))
    ours, theirs = task.loss(model, batch), task.torch_loss(model, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert ours.requires_grad


def test_weights_follow_the_seed(task: Task) -> None:
    first, again, other = (new_model(task, seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_training_and_test_batches_are_of_one_size_each(task: Task) -> None:
    for split in ("train", "test"):
        sizes = set()
        for i, batch in enumerate(task.batches(split, torch.Generator().manual_seed(0))):
            sizes.add(tuple(part.shape for part in batch))
            if i == 50:
                break
        assert len(sizes) == 1


def test_the_initial_model_is_far_from_the_target(task: Task) -> None:
    loss, score = evaluate(task, new_model(task, 0)[0], 0)
    if score is None:
        assert loss > 1.5 * task.target
    else:
        assert score < task.target - 0.2


@pytest.mark.parametrize("name", EVERY)
def test_a_short_race_on_it_makes_progress(name: str) -> None:
    steps = TASKS[name]().steps
    result = race(Settings("own", (name,), ("sgd", "adam"), 1, 1, 0, 12 / steps))
    (part,) = result.tasks
    assert part.steps == 12
    assert part.loss_time is not None
    for entry in part.entries:
        if name == "embedding" and entry.name == "Adam":
            assert entry.failed.startswith("Adam does not support sparse gradients; use SparseAdam")
        else:
            assert entry.runs[0].test_loss[-1] < 0.95 * entry.runs[0].test_loss[0]


def test_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_race_task.py").write_text(
        "from tests.race.problems import line as build\n"
        "def wrong():\n    return 3\n"
        "def broken():\n    raise OSError('no data')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_race_task", raising=False)
    assert find_task("my_race_task:build") is LINE
    with pytest.raises(
        ValueError, match=r"my_race_task:wrong must return a thalweg.race.Task, got"
    ):
        find_task("my_race_task:wrong")
    with pytest.raises(ValueError, match="my_race_task:broken failed: OSError: no data"):
        find_task("my_race_task:broken")
    with pytest.raises(ValueError, match=r"my_race_task has no 'biuld' for .*; did you mean build"):
        find_task("my_race_task:biuld")
    monkeypatch.delitem(sys.modules, "my_race_task")


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"^race: unknown task 'digit'; did you mean digits\?"):
        find_task("digit")


def test_two_tasks_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "line", lambda: LINE)
    monkeypatch.setitem(TASKS, "other", lambda: replace(LINE, steps=80))
    with pytest.raises(ValueError, match="two tasks have the name 'line'"):
        find_all(["line", "other"])


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "diabetes"])
def test_missing_scikit_learn_says_what_to_install(name: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "thalweg\[race\]"'):
        find_task(name)
