from __future__ import annotations

import math

import pytest

from tests.race.report.results import STEP_TIME, diverged, entry, failed, result, task
from thalweg.race.report.overall import overall, width
from thalweg.race.result import StepTime


def test_each_is_compared_with_the_best_of_each_task() -> None:
    made = overall(
        result(
            task(entry("a", 100), entry("b", 200, ms=0.25)),
            task(entry("a", 200), entry("b", 100)),
            task(entry("a", 100), entry("b", 300)),
        )
    )
    a, b = made
    assert (a.name, b.name) == ("a", "b")
    assert (a.steps, b.steps) == (1.0, 2.0)  # medians of 1, 2, 1 and of 2, 1, 3
    # Times: 100 and 50 ms, then 200 and 100, then 100 and 300.
    assert (a.seconds, b.seconds) == (2.0, 1.0)
    assert (a.tasks, a.reached, a.broad) == (3, 3, True)


def test_a_missed_target_counts_as_never() -> None:
    first = task(entry("a", 100), entry("b", 200))
    missed = task(entry("a", 100), entry("b", math.inf))
    a, b = overall(result(first, missed, missed))
    assert (a.steps, b.steps, b.reached, b.tasks) == (1.0, math.inf, 1, 3)
    a, b = overall(result(first, first, missed))
    assert b.steps == 2.0


def test_a_task_that_nobody_finished_counts_for_nobody() -> None:
    nobody = task(entry("a", math.inf), entry("b", math.inf))
    a, b = overall(result(task(entry("a", 100), entry("b", 200)), nobody, nobody))
    assert (a.steps, b.steps, a.reached) == (1.0, 2.0, 1)
    assert [one.steps for one in overall(result(nobody))] == [math.inf, math.inf]


def test_who_ran_on_few_tasks_comes_last_and_who_failed_everywhere_not_at_all() -> None:
    made = overall(
        result(
            task(entry("a", 300), failed("b"), failed("c")),
            task(entry("a", 300), entry("b", 100), failed("c")),
        )
    )
    assert [one.name for one in made] == ["a", "b"]
    assert [one.broad for one in made] == [True, False]


def test_costs_are_medians_and_unknown_where_nothing_was_measured() -> None:
    tasks = [
        task(entry("a", step_time=StepTime(10.0, torch, 0.1, state)), entry("b", step_time=None))
        for torch, state in ((10.0, 4.0), (20.0, 8.0), (None, 5.0))
    ]
    a, b = overall(result(*tasks))
    assert a.state_bytes == 5.0
    assert a.step_ratio == pytest.approx(math.sqrt(2.0))  # of 1 and 2
    assert (b.state_bytes, b.step_ratio) == (None, None)


def test_divergence_everywhere_is_taking_part_without_reaching() -> None:
    _, b = overall(result(task(entry("a"), diverged("b"))))
    assert (b.tasks, b.reached, b.steps, b.decades) == (1, 0, math.inf, None)
    assert b.state_bytes == STEP_TIME.state_bytes


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((math.inf, 100, 110, 100, None), (1.0, True)),
        ((100, 110, 100, 100, 110), (2.0, False)),
        ((math.inf, 100, math.inf), (0.0, True)),
        ((100, math.inf, None), (0.0, False)),
        ((100,), None),
        ((None, None), None),
    ],
)
def test_width_of_the_rates_that_work(
    rates: tuple[float | None, ...], expected: tuple[float, bool] | None
) -> None:
    found = width(entry(rates=rates))
    if expected is None or found is None:
        assert found is expected
    else:
        assert found == (pytest.approx(expected[0], abs=1e-9), expected[1])


def test_the_overall_width_is_the_median_and_bounded_only_if_all_are() -> None:
    narrow = task(entry("a", rates=(math.inf, 100, math.inf)))
    wide = task(entry("a", rates=(100, 100, 100)))
    (one,) = overall(result(narrow, wide, wide))
    assert one.decades == pytest.approx(1.0)
    assert not one.bounded
    (one,) = overall(result(narrow, narrow))
    assert (one.decades, one.bounded) == (0.0, True)
