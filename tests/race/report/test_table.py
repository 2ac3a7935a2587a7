from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from tests.race.report.results import (
    STEP_TIME,
    diverged,
    entry,
    failed,
    result,
    task,
    usual,
)
from thalweg.race.report.table import WIDTH, headers, loss_line, notes, report, row, summary
from thalweg.race.result import LossTime, Result, StepTime


def printed(shown: Result, width: int = WIDTH) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(report(shown))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_row_has_the_medians_and_their_spread() -> None:
    one = entry("Adam", (100, 110, 160), ms=2.0)
    assert row(task(one), one) == (
        "Adam", "0.01", "120 (100–160)", "0.24 (0.20–0.32)", "100.0", "10.0", "7.5×", "8.0",
        "0.01",
    )  # fmt: skip


def test_what_was_not_measured_is_marked_as_missing() -> None:
    alone = entry(step_time=replace(STEP_TIME, torch_us=None))
    assert row(task(alone), alone)[5:8] == ("10.0", "–", "8.0")
    unmeasured = entry(step_time=None)
    assert row(task(unmeasured), unmeasured)[5:8] == ("–", "–", "–")


def test_divergence_and_failure_are_shown_as_such() -> None:
    gone, out = diverged("Adam"), failed("SparseAdam", "takes sparse gradients only")
    shown = task(entry("SGD"), gone, out)
    assert row(shown, gone)[:5] == ("Adam", "–", "diverged", "diverged", "–")
    assert row(shown, out)[:5] == ("SparseAdam", "–", "failed", "failed", "–")
    assert notes(shown) == [
        "Adam diverged at every learning rate that was tried.",
        "SparseAdam could not take part: takes sparse gradients only.",
    ]


def test_optimizers_that_fail_for_one_reason_are_told_together() -> None:
    shown = task(entry("SGD"), *(failed(n, f"{n} takes no rows.") for n in ("A", "B", "C")))
    assert notes(shown) == ["A could not take part: A takes no rows. So it is with B and C."]


def test_who_missed_the_target_is_named_with_its_note() -> None:
    shown = task(entry("SGD"), entry("Rprop", math.inf, note="trusts the sign."), entry("b", 900))
    assert notes(shown) == [
        "b and Rprop missed 95% in the median of the seeds.",
        "Rprop trusts the sign.",
    ]


def test_a_target_that_the_race_set_is_said_to_be_so() -> None:
    shown = task(entry("SGD", 200), entry("Adam", 100), entry("b", 400), goal=None)
    assert shown.target == pytest.approx(1 - 0.0499**2)  # of SGD, the median one
    assert notes(shown)[0].startswith("The task sets no target: 99.8% is")


def test_the_widest_report_fits_its_width() -> None:
    slow = StepTime(123456.7, 1234567.8, 9.9, 160.0)
    names = [f"optimizer with a long name ({i})" for i in range(12)]
    wide = [entry(n, (300, 360, math.inf), ms=9999.9, centre=3.1e-5, step_time=slow) for n in names]
    text = printed(result(task(*wide, diverged("x"), failed("y", "because " * 30))))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text.replace(" … ", "")  # nothing is cut off
    assert text.count("320 (300–∞)") + text.count("360 (300–∞)") == len(names)
    assert "160.0" in text


def test_the_report_has_a_table_and_sentences_for_each_task() -> None:
    text = printed(usual())
    assert text.count("optimizer  ") == 2
    assert text.count("first, after") == 2
    assert "Over 2 tasks Adam needed the fewest steps" in text
    assert "not complete" not in text


def test_an_unfinished_race_says_so_and_an_empty_one_can_be_printed() -> None:
    text = printed(replace(usual(), complete=False))
    assert "This race is not complete: 10 of 14 entries" in text
    assert "Nothing has been trained yet." in printed(result(complete=False))
    assert "Nothing has been trained yet." in printed(result(task()))


def test_headers_name_the_target() -> None:
    assert "steps\nto 95%" in headers(task(entry()))
    assert "final\nloss" in headers(task(entry(scored=False), scored=False, goal=0.3))
    assert "steps\nto target" in headers(task(diverged("a"), goal=None))


@pytest.mark.parametrize(
    ("saved", "expected"), [(11.2, "11 µs saved per step"), (-3.0, "3 µs lost per step")]
)
def test_line_of_the_loss(saved: float, expected: str) -> None:
    time = LossTime("cross_entropy", "Adam", 339, 251.4, 262.6, saved, 0.973, 0.971)
    line = loss_line(task(entry()), time)
    assert "97.3% and 97.1% accuracy, 251 and 263 µs" in line
    assert line.endswith(f"{expected}.")


def test_summary_counts_each_training_once() -> None:
    # Five rates, of which the best is also the first of three full runs.
    assert summary(result(task(entry()))) == "7 training runs on 1 task in 12 s."
    assert summary(result(task(failed("a")))) == "0 training runs on 1 task in 12 s."


def test_brackets_in_names_are_no_markup() -> None:
    named = replace(task(entry("SGD[v2]"), entry("Adam[/v2]")), task="mine[red]", metric="[b]")
    text = printed(result(named))
    assert all(name in text for name in ("SGD[v2]", "Adam[/v2]", "mine[red]", "[b]"))
