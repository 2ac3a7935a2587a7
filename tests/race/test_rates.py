"""``lr_find`` on digits beside the rates that the race kept in docs/ found to work there."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from benchmarks import rates
from tests.race.report import results
from thalweg.race.racers import find
from thalweg.race.rates import find_rate
from thalweg.race.report.formats import format_range
from thalweg.race.result import Entry, Result
from thalweg.range_test import LRFound

DOCS = Path(__file__).parents[2] / "docs"


def raced() -> dict[str, Entry]:
    """The optimizers of the race on digits."""
    result = Result.from_json((DOCS / "choosing.json").read_text(encoding="utf-8"))
    (digits,) = (task for task in result.tasks if task.task == "digits")
    return {entry.name: entry for entry in digits.entries}


@pytest.mark.parametrize("name", ["SGD", "SGD+momentum", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_on_digits_the_suggestion_is_a_rate_that_works(name: str) -> None:
    pytest.importorskip("sklearn")
    from thalweg.race.tasks import find_task

    one, task = raced()[name], find_task("digits")
    working = [run.lr for run in one.working]
    for seed in range(3):
        suggestion = find_rate(task, find(name), seed).suggestion
        assert min(working) <= suggestion <= max(working), f"seed {seed}"


def test_the_page_names_the_rates_that_work() -> None:
    page = (DOCS / "lr-find.md").read_text(encoding="utf-8")
    table = page[page.index("| digits | rates that work") :].partition("\n\n")[0]
    named = dict(re.findall(r"^\| \*?([^|*]+?)\*? \| ([^|]+?) \|", table, re.MULTILINE)[1:])
    assert named == {name: format_range(one) for name, one in raced().items() if one.working}


# ---------------------------------------------------------------------- what the tables are made of


def found(suggestion: float | None) -> LRFound:
    """A range test with this suggestion, which is also where its curve is steepest."""
    first = suggestion or 1.0
    curve = (4.0, 4.0, 1.0) if suggestion else (1.0, 1.0, 1.0)
    return LRFound((first, 2 * first, 5 * first), curve, curve, False)


def entry(name: str) -> Entry:
    """An optimizer for which 0.01 and √10 times as much work."""
    return results.entry(name, rates=(math.inf, 400, 100, 100, None))


def row(name: str, *suggestions: float | None) -> rates.Row:
    return rates.Row(entry(name), tuple(map(found, suggestions)))


def test_a_row_has_what_was_suggested_and_how_far_off_it_is() -> None:
    made = row("Adam", 0.02, 0.005, 0.1, None)
    low, high = 0.01, 0.1**1.5
    assert [run.lr for run in made.entry.working] == pytest.approx([low, high])
    assert made.rates() == [0.02, 0.005, 0.1, None]
    assert made.rates(rates.steepest) == [0.04, 0.01, 0.2, None]
    assert made.rates(rates.tenth_of_lowest) == pytest.approx([0.01, 0.0025, 0.05, None])
    assert made.factors() == pytest.approx([1, 0.005 / low, 0.1 / high])
    assert str(made) == "| Adam | 0.01 … 0.032 | 0.02, 0.005, 0.1, none |"
    assert str(row("LBFGS", 0.02)) == "| *LBFGS* | 0.01 … 0.032 | 0.02 |"


def test_a_summary_counts_and_leaves_out_what_stands_apart() -> None:
    rows = [row("Adam", 0.02, 0.004, None), row("SGD", 0.008, 0.02, 0.1), row("Rprop", 9.0)]
    assert rates.summary("digits", rows) == (
        "| digits | 2 of 6 | 2 too low, by a factor of 2.5 at most; "
        "1 too high, by a factor of 3.2 at most; 1 without a suggestion | 1 of 6 | 2 of 6 |"
    )
    assert "| none |" in rates.summary("digits", [row("Adam", 0.02)])


def test_a_race_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    kept = tmp_path / "race.json"
    race = results.result(results.task(entry("Adam"), results.failed("SparseAdam")))
    kept.write_text(race.to_json(), encoding="utf-8")
    rates.main([str(kept), "--seeds", "1"])
    printed = capsys.readouterr().out.splitlines()
    (line,) = (line for line in printed if line.startswith("| Adam |"))
    assert line.startswith("| Adam | 0.01 … 0.032 | 0.005")
    assert printed[-1].startswith("| digits | 0 of 1 | 1 too low, by a factor of ")
