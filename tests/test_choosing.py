"""The page on choosing an optimizer says what the race beside it says."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import choosing
import pytest

from tests.race.report.results import STEP_TIME, diverged, entry, failed, result, task, usual
from thalweg.race.racers import RACERS
from thalweg.race.report.overall import Overall, overall
from thalweg.race.result import Result

DOCS = Path(__file__).parent.parent / "docs"
WIDE = (math.inf, 100, 100, 110, math.inf)
LEAN = replace(STEP_TIME, state_bytes=0.0)
ONE = Overall("a", 1, 1, True, 1.0, 1.0, 8.0, 1.0, 1.0, True)


def race() -> Result:
    return Result.from_json((DOCS / "choosing.json").read_text(encoding="utf-8"))


def test_the_page_is_what_the_race_gives(tmp_path: Path) -> None:
    (tmp_path / "choosing.json").write_bytes((DOCS / "choosing.json").read_bytes())
    choosing.main(tmp_path)
    written = (tmp_path / "choosing.md").read_text(encoding="utf-8")
    assert written == (DOCS / "choosing.md").read_text(encoding="utf-8")


def test_the_race_is_complete_and_of_everyone() -> None:
    kept = race()
    assert kept.complete
    assert set(kept.settings.optimizers) <= {racer.name for racer in RACERS}


def test_the_folklore_is_of_optimizers_that_race() -> None:
    assert set(choosing.FOLKLORE) <= {racer.name for racer in RACERS}
    for said in choosing.FOLKLORE.values():
        assert said.speed in ("fast", "medium", "slow", "")
        assert {said.memory, said.sensitivity} <= {"low", "medium", "high", ""}
        assert said.advice


@pytest.mark.parametrize(
    ("changes", "measure", "expected"),
    [
        ({"steps": 1.5}, "speed", "fast"),
        ({"steps": 1.6}, "speed", "medium"),
        ({"steps": 3.1}, "speed", "slow"),
        ({"steps": math.inf}, "speed", "slow"),
        ({"state_bytes": 0.0}, "memory", "low"),
        ({"state_bytes": 4.0}, "memory", "medium"),
        ({"state_bytes": 8.1}, "memory", "medium"),
        ({"state_bytes": 12.0}, "memory", "high"),
        ({"state_bytes": None}, "memory", ""),
        ({"decades": 1.5}, "sensitivity", "low"),
        ({"decades": 1.0}, "sensitivity", "medium"),
        ({"decades": 0.5}, "sensitivity", "high"),
        ({"decades": None}, "sensitivity", ""),
        ({"decades": 0.5, "bounded": False}, "sensitivity", ""),  # it may be wider
        ({"decades": 1.5, "bounded": False}, "sensitivity", "low"),
    ],
)
def test_words_for_numbers(changes: dict[str, float], measure: str, expected: str) -> None:
    assert choosing.MEASURES[measure](replace(ONE, **changes)) == expected


def advice(made: Result) -> dict[str, str]:
    """What is advised, by the words between the name and the colon."""
    lines = list(choosing.advice(made))
    return {line.partition("** ")[2].partition(":")[0]: line for line in lines}


def test_advice_follows_its_rules() -> None:
    one = task(
        entry("fewest", 100, ms=9.0, rates=(math.inf, 100, math.inf)),
        entry("quickest", 120, ms=0.1, rates=(math.inf, 100, math.inf)),
        entry("easiest", 160, rates=WIDE),
        entry("slow but easy", 280, rates=(math.inf, 100, 100, 100, 100, math.inf)),
        entry("leanest", 300, step_time=LEAN, rates=(math.inf, 100, math.inf)),
        entry("never", math.inf),
    )
    found = advice(result(one, one))
    assert found["for the fewest steps"].startswith("**fewest**")
    quick = found["for the shortest training, where a step costs what it costs here"]
    assert quick.startswith("**quickest**")
    easy = found["where the learning rate cannot be searched for"]
    assert easy.startswith("**easiest**")
    assert "rates within a factor of 10 work" in easy
    lean = found["where memory is short"]
    assert lean.startswith("**leanest**")
    assert lean.endswith("at 3 times the steps of fewest.")
    assert list(choosing.advice(result(one, one)))[-1].startswith("Not never: the target")


def test_who_is_advised_against_may_have_been_first_somewhere() -> None:
    both = [entry("steady", 100), entry("b", math.inf)]
    won = task(entry("steady", 100), entry("b", 50), name="small")
    last = list(choosing.advice(result(task(*both), task(*both), won)))[-1]
    assert last == (
        "Not b: the target was missed on half of the tasks or more, though b was first on small."
    )


def test_sparse_gradients_are_a_choice_of_their_own() -> None:
    sparse = task(entry("a", 200), entry("b", 100), failed("c"), failed("d"), failed("e"))
    found = advice(result(task(entry("a"), entry("b")), sparse))
    line = found["for sparse gradients, as on digits, which 3 optimizers cannot take"]
    assert line == (
        "**b** for sparse gradients, as on digits, which 3 optimizers cannot take: first by steps "
        "of the 2 that can."
    )
    dense = task(entry("a"), entry("b"), failed("c"))
    assert not any("sparse" in line for line in choosing.advice(result(dense)))


def test_without_a_winner_there_is_no_advice() -> None:
    for made in (result(), result(task(diverged("a"))), result(task(entry("a", math.inf)))):
        assert list(choosing.advice(made)) == [
            "No optimizer reached more than half of the targets: this race gives no advice."
        ]
        assert choosing.text(made).startswith("<!-- Written by")


def test_what_is_said_is_set_beside_what_was_measured() -> None:
    everyone = overall(usual())
    table = choosing.compared(everyone)
    row = next(line for line in table.splitlines() if line.startswith("| Adam "))
    assert row.split(" | ")[1:3] == ["fast / fast", "medium / medium"]
    lines = list(choosing.verdicts(everyone))
    speed = next(line for line in lines if line.startswith("Speed"))
    assert "SGD (medium, not slow)" in speed


def test_a_bar_within_a_cell_does_no_harm() -> None:
    assert choosing.markdown(("a", "b"), [("x|y", "z")]).endswith("| x\\|y | z |")


def test_targets_that_nobody_reached_are_missed_all_the_same() -> None:
    missed, made = (entry("a", 5000), entry("b", 5000)), (entry("a", 100), entry("b", 200))
    tasks = [replace(task(*each), task=f"t{i}") for i, each in enumerate((missed, missed, made))]
    (said,) = [line for line in choosing.advice(result(*tasks)) if not line.startswith("Not ")]
    assert said.startswith("No optimizer reached more than half of the targets")
