from __future__ import annotations

import math
from typing import Any

import pytest

from tests.race.report.results import diverged, entry, failed, run, task, usual
from thalweg.page import styles_of
from thalweg.race.report import charts
from thalweg.race.result import Entry, TaskResult


def line(figure: Any, name: str) -> Any:
    """The trace that the legend lists under that name."""
    return next(t for t in figure.data if t.name == name)


def others(figure: Any, name: str) -> list[Any]:
    return [t for t in figure.data if t.legendgroup == name and t.name is None]


@pytest.mark.parametrize("axis", charts.AXES)
def test_curves_are_medians_and_bands_of_the_runs(axis: charts.Axis) -> None:
    one = entry("Adam", (100, 200, 150), ms=2.0)
    figure = charts.curves(task(one), "score", axis)
    low, middle, high = (one.runs[i].score for i in (1, 2, 0))
    drawn = line(figure, "Adam")
    assert list(drawn.x) == pytest.approx(list(getattr(one.runs[0], axis)))
    assert list(drawn.y) == pytest.approx([100 * value for value in middle], rel=1e-4)
    (band,) = others(figure, "Adam")
    assert list(band.y) == pytest.approx([100 * v for v in [*high, *reversed(low)]], rel=1e-4)
    assert list(band.x) == [*drawn.x, *reversed(drawn.x)]


def test_without_spread_there_is_no_band() -> None:
    assert len(charts.curves(task(entry("Adam")), "test_loss", "steps").data) == 1


def test_a_run_that_diverged_counts_as_long_as_it_lasted() -> None:
    whole = entry("Adam")
    lost = run(0.01, 1, reach=50, upto=40, diverged=True)
    figure = charts.curves(
        task(Entry("Adam", "", {}, "", whole.search, (*whole.runs[:1], lost), None)),
        "test_loss",
        "steps",
    )
    drawn = line(figure, "Adam")
    assert len(drawn.x) == len(whole.runs[0].steps)
    assert list(drawn.y[3:]) == pytest.approx(list(whole.runs[0].test_loss[3:]), rel=1e-4)


def test_the_target_is_drawn_where_it_decides() -> None:
    digits, diabetes = usual().tasks
    (target,) = charts.curves(digits, "score", "steps").layout.shapes
    assert target.y0 == target.y1 == 95.0
    assert not charts.curves(digits, "test_loss", "steps").layout.shapes
    (target,) = charts.curves(diabetes, "test_loss", "steps").layout.shapes
    assert target.y0 == 0.3


def test_losses_above_the_start_are_cut_off() -> None:
    figure = charts.curves(task(entry("Adam"), entry("SGD", -300)), "test_loss", "steps")
    assert max(line(figure, "SGD").y) > 50
    low, high = figure.layout.yaxis.range
    assert figure.layout.yaxis.type == "log"
    assert 10**low < 0.2
    assert 2.2 < 10**high < 3


def test_every_optimizer_has_its_colour() -> None:
    race = usual().tasks[0]
    styles = styles_of(e.name for e in race.entries)
    figure = charts.curves(race, "score", "steps")
    for name in ("SGD", "Adam", "RMSprop"):
        assert line(figure, name).line.color == styles[name].colour
    bars = charts.to_target(race, "steps").data[0]
    colours = dict(zip(bars.y, bars.marker.color, strict=True))
    assert colours["Adam"] == line(figure, "Adam").line.color


def test_bars_are_medians_with_the_spread_and_misses_said() -> None:
    shown = task(
        entry("a", (100, 120, 160)),
        entry("b", (200, 300, math.inf)),
        entry("c", (300, math.inf, math.inf)),
        entry("d", 5000),
        diverged("e"),
        failed("f"),
    )
    figure = charts.to_target(shown, "steps")
    bars, spread, said = figure.data
    assert dict(zip(bars.y, bars.x, strict=True)) == {"a": 120, "b": 300, "c": 0, "d": 0}
    text = dict(zip(said.y, map(str.strip, said.text), strict=True))
    assert text == {
        "a": "",
        "b": "1 of 3 missed it",
        "c": "2 of 3 missed it",
        "d": "missed, ended at 21.3%",
    }
    assert dict(zip(said.y, said.x, strict=True)) == {"a": 160, "b": 300, "c": 300, "d": 0}
    assert list(spread.y) == ["a", "a", None, "b", "b", None, "c", "c", None]
    assert list(spread.x) == [100, 160, None, 200, 300, None, 300, 300, None]
    assert list(figure.layout.yaxis.categoryarray) == ["c", "d", "b", "a"]  # from below


def test_seconds_to_the_target() -> None:
    bars = charts.to_target(task(entry("a", 100, ms=3.0)), "seconds").data[0]
    assert list(bars.x) == [0.3]


def test_sensitivity_shows_each_rate_and_whether_it_works() -> None:
    one = entry("Adam", rates=(math.inf, 120, 100, 130, 400, None))
    figure = charts.sensitivity(task(one))
    drawn = line(figure, "Adam")
    assert list(drawn.x) == pytest.approx([r.lr for r in one.search], rel=1e-4)
    expected = [r.test_loss[-1] for r in one.search[:-1]]
    assert list(drawn.y[:-1]) == pytest.approx(expected, rel=1e-4)
    assert drawn.y[-1] is None
    works = [symbol == "circle" for symbol in drawn.marker.symbol]
    assert works == [False, True, True, True, False, False]
    (lost,) = others(figure, "Adam")
    assert list(lost.x) == pytest.approx([one.search[-1].lr], rel=1e-4)
    assert list(lost.y) == [one.search[0].test_loss[0]]


def test_a_loss_above_the_start_is_at_the_edge() -> None:
    figure = charts.sensitivity(task(entry("Adam", rates=(100, -100))))
    assert line(figure, "Adam").y[1] is None
    assert len(others(figure, "Adam")[0].x) == 1


@pytest.mark.parametrize(
    "shown",
    [task(), task(diverged("a"), failed("b")), task(entry("a", 5000, rates=()))],
    ids=["empty", "untrained", "missed"],
)
def test_what_is_missing_is_left_out(shown: TaskResult) -> None:
    for axis in charts.AXES:
        for what in ("score", "test_loss"):
            charts.curves(shown, what, axis).to_json()  # type: ignore[arg-type]
        charts.to_target(shown, axis).to_json()
    charts.sensitivity(shown).to_json()


@pytest.mark.parametrize("goal", [0.95, 0.5, 0.0, 1.0, 1.5, None])
def test_the_axis_of_a_share_shows_where_the_first_end(goal: float | None) -> None:
    shown = task(entry("a", 100), entry("b", 1000), goal=goal)
    low, high = charts.curves(shown, "score", "steps").layout.yaxis.range
    ends = [100 * run.score[-1] for one in shown.entries for run in one.runs]
    assert 0 <= low < min(ends)
    assert high == 100.5
