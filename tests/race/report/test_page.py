from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.browser import (
    NARROW,
    WIDE,
    assert_charts_have_data,
    assert_layout_holds,
    assert_plays,
    assert_quiet,
    browser,
    opened,
)
from tests.race.report.results import diverged, entry, failed, result, task, usual
from thalweg.page import Animation, Chart, Code, Page, Row, Table, Text
from thalweg.race.report.page import page, write_page
from thalweg.race.report.words import sentences
from thalweg.race.result import Result

__all__ = ["browser"]  # the fixture

NEVER_KNOWN = ("mine", "yours")  # in no scene


def parts(made: Page, heading: str | None = None) -> list[Any]:
    """All parts, or those of one section; rows are taken apart."""
    sections = [s for s in made.sections if heading in (None, s.heading)]
    flat = [part for section in sections for part in section.parts]
    return [p for part in flat for p in (part.parts if isinstance(part, Row) else [part])]


def titles(made: Page, kind: type = Chart) -> list[str]:
    return [part.title for part in parts(made) if isinstance(part, kind)]


def test_sections_in_order_and_the_sentences_first() -> None:
    made = page(usual())
    assert made.title == "7 optimizers on digits and diabetes"
    assert list(made.lead) == list(sentences(usual()))
    assert [section.heading for section in made.sections] == [
        "All tasks", "digits", "diabetes", "Cost", "On surfaces", "How it was run",
    ]  # fmt: skip


def test_a_task_has_its_table_and_charts() -> None:
    made = page(usual())
    digits, diabetes = (parts(made, name) for name in ("digits", "diabetes"))
    assert [p.title for p in digits if isinstance(p, Chart)] == [
        "Accuracy against steps",
        "Accuracy against training time",
        "Test loss against steps",
        "Test loss against training time",
        "Steps until 95% accuracy",
        "Seconds until 95% accuracy",
        "Sensitivity to the learning rate",
    ]
    assert "Accuracy against steps" not in [p.title for p in diabetes if isinstance(p, Chart)]
    (standings,) = (p for p in digits if isinstance(p, Table))
    assert [row[0] for row in standings.rows] == [e.name for e in usual().tasks[0].standings]
    assert "steps to 95%" in standings.headers
    text = " ".join(line for p in digits if isinstance(p, Text) for line in p.paragraphs)
    assert "SparseAdam could not take part" in text
    assert "Adadelta diverged at every learning rate" in text
    assert "cross_entropy of thalweg.losses in place of torch's" in text


def test_one_task_alone_has_no_table_over_tasks_and_says_things_once() -> None:
    race = replace(usual(), tasks=usual().tasks[:1])
    made = page(race)
    assert made.sections[0].heading == "digits"
    text = [line for p in parts(made) if isinstance(p, Text) for line in p.paragraphs]
    assert not set(text) & set(made.lead)


def test_costs_and_scenes_are_of_the_optimizers_that_race() -> None:
    made = page(usual())
    costs = {"Memory per parameter", "Optimizer's share of the training time"}
    times = {"Time of a step: digits", "Time of a step: diabetes"}
    assert costs | times <= set(titles(made))
    ravine, saddle = (p for p in parts(made) if isinstance(p, Animation))
    for animation in (ravine, saddle):
        assert {track.name for track in animation.tracks} <= {
            "SGD", "SGD+momentum", "Adam", "RMSprop", "Rprop", "Adadelta",
        }  # fmt: skip
        assert "Adam" in {track.name for track in animation.tracks}
        assert "Learning rates: " in animation.caption
    assert saddle.tracks[0].z is not None


def test_optimizers_that_no_scene_has_are_not_animated() -> None:
    made = page(result(task(*(entry(name) for name in NEVER_KNOWN))))
    assert not titles(made, Animation)
    assert "On surfaces" not in [section.heading for section in made.sections]


def test_settings_and_command_are_there() -> None:
    how = parts(page(usual()), "How it was run")
    tables = {p.title: dict(p.rows) for p in how if isinstance(p, Table)}
    assert tables["Settings"]["learning rates"] == "5"
    assert tables["Versions"]["torch"] == "2.13.0"
    (code,) = (p for p in how if isinstance(p, Code))
    assert code.text.startswith("thalweg race --preset small --task digits,diabetes --optimizers ")


def test_the_first_are_seen_and_the_caption_says_so() -> None:
    many = page(result(task(*(entry(f"o{i}", 100 + 20 * i) for i in range(8)))))
    chart = next(p for p in parts(many) if isinstance(p, Chart))
    assert chart.caption.endswith("The first 6 are shown; the names switch the others on.")
    shown = [trace.name for trace in chart.figure.data if trace.visible is True]
    assert shown == [f"o{i}" for i in range(6)]
    few = page(usual())
    assert not any("are shown" in p.caption for p in parts(few) if isinstance(p, Chart))


def test_an_unfinished_race_says_so_first() -> None:
    made = page(replace(usual(), complete=False))
    assert made.lead[0].startswith("This race is not complete: 10 of 14 entries are done.")


@pytest.mark.parametrize(
    "race",
    [
        result(),
        result(complete=False),
        result(task()),
        result(task(diverged("Adam"), failed("SparseAdam"))),
        result(task(entry("mine", math.inf)), task()),
        result(task(entry("mine", step_time=None, rates=()), goal=None)),
    ],
    ids=["empty", "begun", "no entry", "nobody trained", "missed", "bare"],
)
def test_whatever_is_missing_the_page_is_valid(race: Result, tmp_path: Path) -> None:
    text = write_page(race, tmp_path / "race.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert text.rstrip().endswith("</html>")


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    evil = "</script><b>x"
    made = write_page(result(task(entry(evil), failed(evil + "2", "<i>no"))), tmp_path / "r.html")
    text = made.read_text(encoding="utf-8")
    assert evil not in text
    assert "<i>no" not in text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_page(result(), tmp_path / "file" / "race.html")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(usual(), tmp_path_factory.mktemp("race") / "race.html")


def test_in_a_browser(browser: Any, written: Path) -> None:
    with opened(browser, written) as shown:
        assert_charts_have_data(shown)
        assert_layout_holds(shown, WIDE)
        assert_plays(shown)
        assert_quiet(shown)


def test_on_a_dark_phone(browser: Any, written: Path) -> None:
    with opened(browser, written, width=NARROW, scheme="dark") as shown:
        assert_layout_holds(shown, NARROW)
        assert_charts_have_data(shown)
        assert_quiet(shown)


def test_an_empty_race_in_a_browser(browser: Any, tmp_path: Path) -> None:
    with opened(browser, write_page(result(complete=False), tmp_path / "race.html")) as shown:
        assert_layout_holds(shown, NARROW)
        assert "Nothing has been trained yet." in shown.tab.inner_text("header")
        assert_quiet(shown)
