"""The documentation has a picture of every schedule and scheduler, and each shows what it says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from docs import pictures
from docs.pictures import COMPOSITIONS, SCHEDULERS, SCHEDULES, Picture
from thalweg import schedules
from thalweg.optim import lr_scheduler

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
EVERY = SCHEDULES | COMPOSITIONS | SCHEDULERS
LONGEST = 74  # characters of a title's line that the width has room for


def classes(module: Any, but: str) -> set[str]:
    """The names of the classes that a module exports, without their base."""
    return {name for name in module.__all__ if inspect.isclass(getattr(module, name))} - {but}


def shown() -> list[str]:
    """The names of the pictures that the pages show."""
    link = re.compile(r"!\[[^\]]+\]\(pictures/([\w-]+)\.svg\)")
    return [name for page in PAGES for name in link.findall(page.read_text(encoding="utf-8"))]


def test_every_schedule_has_a_picture() -> None:
    assert set(SCHEDULES) == classes(schedules, but="Schedule")


def test_every_scheduler_has_a_picture() -> None:
    assert set(SCHEDULERS) == classes(lr_scheduler, but="LRScheduler")


def test_every_picture_is_shown_once() -> None:
    assert sorted(shown()) == sorted(EVERY)


@pytest.mark.parametrize("module", [schedules, lr_scheduler])
def test_every_name_is_in_the_reference(module: Any) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    described = set(re.findall(rf"^::: {re.escape(module.__name__)}\.(\w+)$", text, re.MULTILINE))
    assert described == set(module.__all__)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedules_picture_is_of_it(name: str) -> None:
    for expression in SCHEDULES[name].expressions:
        assert type(pictures.schedule(expression)).__name__ == name


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedulers_picture_is_of_it(name: str) -> None:
    for expression in SCHEDULERS[name].expressions:
        assert type(pictures.scheduler(expression)).__name__ == name


@pytest.mark.parametrize("name", EVERY)
def test_every_title_fits(name: str) -> None:
    assert max(map(len, EVERY[name].title.split("\n"))) <= LONGEST


def test_lines_are_what_the_schedules_say() -> None:
    picture = Picture("Cosine(1, 0, steps={})", ("40", "100"))
    (axes,) = pictures.draw_schedule(picture).axes
    for line, steps in zip(axes.lines, (40, 100), strict=True):
        expected = schedules.Cosine(1, 0, steps=steps)
        assert [expected(float(t)) for t in line.get_xdata()] == list(line.get_ydata())


def test_lines_are_what_the_schedulers_set() -> None:
    (rate, momentum) = pictures.draw_scheduler(SCHEDULERS["OneCycleLR"]).axes
    one_cycle: Any = pictures.scheduler(SCHEDULERS["OneCycleLR"].expression)
    assert list(rate.lines[0].get_ydata()) == one_cycle.schedule().values(101)
    assert list(momentum.lines[0].get_ydata()) == one_cycle.momentum_schedule().values(101)


def test_files_are_written_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "SCHEDULES", {"Cosine": SCHEDULES["Cosine"]})
    monkeypatch.setattr(pictures, "COMPOSITIONS", {})
    monkeypatch.setattr(pictures, "SCHEDULERS", {"CyclicLR": SCHEDULERS["CyclicLR"]})
    (tmp_path / "gone.svg").write_text("of a schedule that is no more")
    pictures.main(tmp_path)
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(written) == {"Cosine.svg", "CyclicLR.svg"}
    assert "<svg" in (tmp_path / "Cosine.svg").read_text(encoding="utf-8")
    pictures.main(tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
