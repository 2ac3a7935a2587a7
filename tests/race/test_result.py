import json
from dataclasses import replace

import pytest
from rich.console import Console

from thalweg.race import LossTime, Result, Standing, StepTime, Trial
from thalweg.race.result import ranked
from thalweg.race.table import WIDTH, format_range, report


def trial(lr: float, steps: int | None, accuracy: float = 0.97) -> Trial:
    seconds = None if steps is None else steps / 1000
    return Trial(lr, 100, steps, seconds, accuracy, accuracy >= 0.95, diverged=False)


def standing(name: str, *trials: Trial, note: str = "") -> Standing:
    return Standing(name, name, {}, note, trials, StepTime(10.0, 75.0, 0.5, 8.0))


LOSS = LossTime("cross_entropy", "Adam", 339, 251.4, 262.6, 10.7, 0.973, 0.971)


def result(*standings: Standing, loss: LossTime = LOSS) -> Result:
    places = ranked(list(standings))
    return Result("digits", 0.95, 3, 32, 0, 8314, 8, {"torch": "2"}, 12.0, places, loss)


def test_best_is_the_fastest_that_holds_the_target() -> None:
    fast_but_lost, slower, slowest = trial(1.0, 10, 0.6), trial(0.1, 30), trial(0.01, 90)
    assert standing("a", slowest, slower, fast_but_lost).best is slower
    assert standing("a", trial(0.1, 20, 0.9), fast_but_lost).best is fast_but_lost
    assert standing("a", trial(0.1, None, 0.8), trial(1.0, None, 0.9)).best.lr == 1.0


def test_ranking_is_by_steps_then_seconds_then_accuracy() -> None:
    never, nearly = standing("never", trial(1, None, 0.2)), standing("nearly", trial(1, None, 0.9))
    slow, fast = standing("slow", trial(1, 50)), standing("fast", trial(1, 20))
    quick = standing("quick", Trial(1, 100, 20, 0.001, 0.97, held=True, diverged=False))
    assert [s.name for s in ranked([never, slow, fast, nearly, quick])] == [
        "quick", "fast", "slow", "nearly", "never",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([None, 9, 5, 9, None], "0.001 … 0.1"),
        ([9, 5, None, None, None], "≤1e-4 … 0.001"),
        ([None, None, None, 5, 9], "0.1 … ≥1"),
        ([None, None, 5, None, None], "0.01"),
        ([9, None, 5, 9, None], "0.01 … 0.1"),  # not across a gap
        ([None] * 5, "–"),
    ],
)
def test_range_of_learning_rates(steps: list[int | None], expected: str) -> None:
    trials = [trial(10.0 ** (i - 4), s) for i, s in enumerate(steps)]
    assert format_range(standing("a", *trials)) == expected


def test_json_holds_trials_and_what_follows_from_them() -> None:
    race = result(standing("a", trial(0.1, 20), trial(1.0, None)), standing("b", trial(1.0, None)))
    data = json.loads(race.to_json())
    assert data["task"] == "digits"
    first, second = data["standings"]
    assert first["best"]["lr"] == 0.1
    assert first["lr_range"] == [0.1, 0.1]
    assert first["step_time"]["ratio"] == 7.5
    assert [t["steps_to_target"] for t in first["trials"]] == [20, None]
    assert second["lr_range"] is None
    assert data["loss"]["saved_us"] == 10.7


def rendered(race: Result) -> list[str]:
    console = Console(width=WIDTH)
    with console.capture() as capture:
        console.print(report(race))
    return capture.get().splitlines()


def test_table_fits_its_width_and_cuts_nothing() -> None:
    widest = standing(
        "SGD+momentum",
        Trial(9.5e-5, 100, 99999, 999.999, 1.0, held=True, diverged=False),
        Trial(9.5e-4, 100, 99999, 999.999, 1.0, held=True, diverged=False),
    )
    lines = rendered(result(widest))
    assert not any("…" in line for line in lines if "SGD+momentum" not in line)
    row = next(line for line in lines if "SGD+momentum" in line)
    assert row.split() == [
        "SGD+momentum", "9.5e-5", "99999", "999.999", "100.0", "10.0", "75.0", "7.5×", "8.0",
        "≤9.5e-5", "…", "≥9.5e-4",
    ]  # fmt: skip


def test_report_says_who_won_and_who_missed() -> None:
    lines = rendered(
        result(standing("A", trial(0.1, 20)), standing("B", trial(1, None), note="is slow"))
    )
    assert lines[-1] == (
        "2 trials in 12 s: A first (20 steps, 0.02 s); median step speed-up over torch.optim 7.5×."
    )
    assert any("B did not reach 95%: it is slow." in line for line in lines)
    text = " ".join(lines)
    assert (
        "cross_entropy of thalweg.losses in place of torch's (Adam, 339 steps): 97.3% and 97.1% "
        "accuracy, 251 and 263 µs per training step, 11 µs saved per step."
    ) in text
    slower = rendered(result(standing("B", trial(1, None)), loss=replace(LOSS, saved_us=-3.0)))
    assert "3 µs lost per step." in " ".join(slower)
    nobody = rendered(result(standing("B", trial(1, None))))
    assert "nobody reached 95%" in nobody[-1]
