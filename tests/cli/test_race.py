"""``thalweg race``: files, tables, resuming and interrupts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import thalweg
from thalweg.cli import race as command
from thalweg.race.report.table import WIDTH
from thalweg.race.result import Result

TASK = ("--task", "mine:build", "--lrs", "2", "--seeds", "1")
BOTH = (*TASK, "--optimizers", "sgd,adam")


def load(folder: Path) -> Result:
    return Result.from_json((folder / "race.json").read_text())


def test_race_prints_a_table_and_says_where_the_page_lies(folder: Path) -> None:
    done = thalweg("race", *BOTH, "--seed", "3", "--length", "0.5")
    assert done.exit_code == 0, done.output
    assert re.search(r"^SGD ", done.stdout, re.MULTILINE)
    assert re.search(r"^Adam ", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("page: race-small/race.html\nresult: race-small/race.json\n")
    result = load(folder / "race-small")
    assert result.complete
    assert (result.settings.seed, result.settings.length, result.tasks[0].steps) == (3, 0.5, 10)
    page = (folder / "race-small" / "race.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "sums" in page


def test_json_is_the_result(folder: Path) -> None:
    done = thalweg("race", *TASK, "--optimizers", "sgd", "--json", "--no-page", "--out", "here")
    assert done.exit_code == 0, done.output
    assert Result.from_json(done.stdout) == load(folder / "here")
    assert not (folder / "here" / "race.html").exists()
    assert done.stderr.endswith("result: here/race.json\n")


def test_tasks_and_optimizers_are_given_one_by_one_or_in_lists(folder: Path) -> None:
    (folder / "other.py").write_text(
        "import mine, dataclasses\n"
        "def build():\n    return dataclasses.replace(mine.build(), name='other')\n"
        "def third():\n    return dataclasses.replace(mine.build(), name='third')\n"
    )
    done = thalweg(
        "race", "--task", "mine:build,other:build", "--task", "other:third", "--lrs", "1",
        "--seeds", "1", "--no-page",
        "--optimizers", "sgd(momentum=0.5, nesterov=True),torch.optim.SGD",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = load(folder / "race-small")
    assert [task.task for task in result.tasks] == ["sums", "other", "third"]
    assert [e.optimizer for e in result.tasks[0].entries] == [
        "thalweg.optim.SGD",
        "torch.optim.SGD",
    ]


def test_table_is_not_cut_where_the_terminal_is_narrow() -> None:
    done = thalweg("race", *BOTH, "--no-page", columns=40)
    rule = next(line for line in done.stdout.splitlines() if line.startswith("──"))
    assert 60 < len(rule) <= WIDTH


def test_text_is_as_wide_as_the_terminal() -> None:
    lines = thalweg("race", *BOTH, "--no-page", columns=60).stdout.splitlines()
    text = lines[lines.index(next(line for line in lines if line.startswith("best lr: "))) :]
    assert 40 < max(map(len, text)) <= 60


def interrupt_after(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the entry after so many is under way."""
    write = command.files.write_result
    count = 0

    def interrupted(folder: Any, result: Result) -> Path:
        nonlocal count
        path = write(folder, result)
        count += 1
        if count == entries:
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(command.files, "write_result", interrupted)


def test_an_interrupt_leaves_a_page_and_the_race_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("race", *BOTH, "--out", "here")
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        done = thalweg(*arguments)
    assert done.exit_code == 130
    assert "interrupted; what is done is kept" in done.stderr
    assert "--resume" in done.stderr
    assert "Traceback" not in done.output
    half = load(folder / "here")
    assert not half.complete
    assert [entry.name for entry in half.tasks[0].entries] == ["SGD"]
    assert "SGD" in (folder / "here" / "race.html").read_text(encoding="utf-8")

    done = thalweg(*arguments, "--resume", "--no-page")
    assert done.exit_code == 0, done.output
    whole = load(folder / "here")
    assert whole.complete
    assert whole.tasks[0].entries[0] == half.tasks[0].entries[0]
    assert [entry.name for entry in whole.tasks[0].entries] == ["SGD", "Adam"]


def test_an_interrupt_while_the_page_is_drawn_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "write_page", stopped)
    done = thalweg("race", *BOTH, "--out", "here")
    assert done.exit_code == 130
    assert "interrupted; what is done is kept" in done.stderr
    assert load(folder / "here").complete


def test_an_interrupt_before_anything_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command.racing, "race", stopped)
    done = thalweg("race", *BOTH)
    assert done.exit_code == 130
    assert done.stderr == "thalweg: interrupted\n"


def test_resuming_something_else_loses_nothing(folder: Path) -> None:
    assert thalweg("race", *BOTH, "--no-page", "--out", "here").exit_code == 0
    before = (folder / "here" / "race.json").read_bytes()
    done = thalweg("race", *BOTH, "--no-page", "--out", "here", "--resume", "--seed", "5")
    assert done.exit_code == 2, done.output
    assert "seed" in done.stderr
    assert (folder / "here" / "race.json").read_bytes() == before
    (folder / "here" / "race.json").write_text('{"format": 1, "tasks":')
    done = thalweg("race", *BOTH, "--no-page", "--out", "here", "--resume")
    assert done.exit_code == 2
    assert "race.json cannot be read" in done.stderr
    assert (folder / "here" / "race.json").read_text() == '{"format": 1, "tasks":'


def test_a_wrong_name_does_not_move_the_result_that_is_there(folder: Path) -> None:
    assert thalweg("race", *BOTH, "--no-page", "--out", "here").exit_code == 0
    for wrong in (("--optimizers", "sdg"), ("--task", "digit"), ("--length", "0")):
        assert thalweg("race", *BOTH, *wrong, "--out", "here").exit_code == 2
    assert [path.name for path in (folder / "here").iterdir()] == ["race.json"]
    assert thalweg("race", *BOTH, "--no-page", "--out", "here").exit_code == 0
    assert {path.name for path in (folder / "here").iterdir()} == {
        "race.json",
        "race.previous.json",
    }


def test_out_that_is_a_file(folder: Path) -> None:
    (folder / "file").write_text("x")
    done = thalweg("race", *BOTH, "--out", "file")
    assert done.exit_code == 1
    assert "file is a file, not a folder" in done.stderr


def test_a_diverging_and_a_refusing_optimizer_are_in_the_table() -> None:
    done = thalweg(
        "race", *TASK, "--no-page", "--optimizers", "sgd(lr=1e30),sparseadam,sgd", "--json"
    )
    assert done.exit_code == 0, done.output
    wild, refusing, tame = json.loads(done.stdout)["tasks"][0]["entries"]
    assert wild["runs"] == []
    assert "dense gradients" in refusing["failed"]
    assert tame["runs"]


def test_what_a_task_prints_does_not_get_into_the_json(folder: Path) -> None:
    (folder / "loud.py").write_text(
        "import mine\ndef build():\n    print('hello')\n    return mine.build()\n"
    )
    done = thalweg(
        "race", "--task", "loud:build", "--optimizers", "sgd", "--lrs", "1", "--json", "--no-page"
    )
    assert Result.from_json(done.stdout).complete
    assert "hello" in done.stderr


def test_a_result_that_is_moved_and_one_that_is_missing_are_told(folder: Path) -> None:
    asked = ("race", *TASK, "--optimizers", "sgd", "--no-page")
    assert "no race to go on with in race-small" in thalweg(*asked, "--resume").stderr
    done = thalweg(*asked)
    assert "the former result is now race-small/race.previous.json\n" in done.stderr
    path = folder / "race-small" / "race.json"
    path.write_text(path.read_text().replace('"complete":true', '"complete":false'))
    assert "not complete: rename it and use --resume" in thalweg(*asked).stderr
