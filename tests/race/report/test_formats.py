from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.race.report.results import diverged, entry, task
from thalweg.race.report import formats
from thalweg.race.report.formats import (
    Spread,
    format_goal,
    format_range,
    format_target,
    format_value,
    seconds_spread,
    steps_spread,
)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((math.inf, 100, 110, 100, math.inf), "0.0032 … 0.032"),
        ((100, 110, math.inf, math.inf, math.inf), "≤0.001 … 0.0032"),
        ((math.inf, math.inf, math.inf, 110, 100), "0.032 … ≥0.1"),
        ((math.inf, math.inf, 100, math.inf, math.inf), "0.01"),
        ((100, math.inf, 90, 100, math.inf), "0.01 … 0.032"),  # not across a gap
        ((math.inf,) * 5, "–"),
        ((None,) * 5, "–"),
        ((100, math.inf), "≤0.0056"),
        ((math.inf, 100), "≥0.018"),
        ((100,), "0.01"),
    ],
)
def test_range_of_learning_rates(rates: tuple[float | None, ...], expected: str) -> None:
    assert format_range(entry(rates=rates)) == expected


def test_an_accuracy_is_printed_in_percent_and_nothing_else_is() -> None:
    digits, diabetes = task(entry()), task(entry(scored=False), scored=False, goal=0.31)
    other = replace(task(entry()), metric="F1", goal=0.8)
    assert [format_value(t, 0.5) for t in (digits, diabetes, other)] == ["50.0%", "0.5", "0.5"]
    assert [format_target(t) for t in (digits, diabetes, other)] == ["95%", "0.31", "0.8"]
    assert format_goal(digits) == "95% accuracy"
    assert format_goal(diabetes) == "a test loss of 0.31"
    assert format_goal(other) == "F1 0.8"


def test_spread_over_seeds_is_the_median_and_both_ends() -> None:
    one = entry(reach=(100, 200, 140), ms=2.0)
    assert steps_spread(one, 0.95) == Spread(140, 100, 200)
    assert seconds_spread(one, 0.95) == Spread(0.28, 0.2, 0.4)
    assert f"{steps_spread(one, 0.95):steps}" == "140 (100–200)"


@pytest.mark.parametrize(
    ("reach", "expected"),
    [
        ((100, 100, 100), "100"),
        ((100, 120, math.inf), "120 (100–∞)"),
        ((100, math.inf, math.inf), "∞ (100–∞)"),
        ((math.inf,) * 3, "–"),
    ],
)
def test_seeds_that_miss_the_target_are_seen(reach: tuple[float, ...], expected: str) -> None:
    assert f"{steps_spread(entry(reach=reach), 0.95):steps}" == expected


def test_without_runs_the_spread_is_empty() -> None:
    assert f"{seconds_spread(diverged('Adam'), 0.95):seconds}" == formats.MISSING
