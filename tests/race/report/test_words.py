from __future__ import annotations

import math
import shlex
from dataclasses import replace

import pytest

from tests.race.report.results import STEP_TIME, diverged, entry, failed, result, task, usual
from thalweg.race.presets import PRESETS, settings
from thalweg.race.report.words import command, incomplete, outcome, sentences, task_sentences
from thalweg.race.result import Entry, Result

NARROW = (math.inf, math.inf, 100, math.inf, math.inf)
WIDE = (math.inf, 100, 100, 110, math.inf)


def first(*entries: Entry) -> str:
    return task_sentences(task(*entries))[0]


def test_first_by_steps_and_by_time() -> None:
    same = first(entry("a", 100), entry("b", 120), entry("c", 200))
    assert same == (
        "a reached 95% accuracy first, after 100 steps (next: b, 1.2 times as many); a was also "
        "first by time, in 0.10 s."
    )
    other = first(entry("a", 100, ms=5.0), entry("b", 120))
    assert other.endswith("; by time b was first, in 0.12 s (a: 4.2 times as long).")


def test_ties_are_named_together() -> None:
    said = first(entry("a", 100), entry("b", 100, ms=0.5), entry("c", 150))
    assert said.startswith("b and a reached 95% accuracy first, after 100 steps (next: c, 1.6 ")
    assert said.endswith("; b was also first by time, in 0.050 s.")
    everyone = first(entry("a", 100), entry("b", 100))
    assert "next" not in everyone


def test_those_who_missed_the_target_are_counted() -> None:
    said = first(entry("a", 100), entry("b", 1000), entry("c", 2000), diverged("d"), failed("e"))
    assert said.endswith("; 2 of 3 missed it.")


def test_nobody_reached_the_target() -> None:
    assert first(entry("a", 1000), entry("b", 2000)) == (
        "None of the 2 reached 95% accuracy within 400 steps; a came nearest, with 69.9%."
    )
    assert first(entry("a", 1000)).startswith("a did not reach 95% accuracy within 400 steps")


def test_a_target_that_is_reached_before_the_first_step() -> None:
    started = replace(task(entry("a", 100), entry("b", 100, ms=2.0)), goal=0.0)
    assert task_sentences(started)[0] == (
        "The target, 0% accuracy, is met before the first step, and so says nothing of the "
        "optimizers."
    )
    assert all(map(str, sentences(result(started, started))))


def test_one_step_is_one() -> None:
    one = task(entry("a", 20), entry("b", 100))
    runs = [replace(run, steps=tuple(s // 20 for s in run.steps)) for run in one.entries[0].runs]
    quick = replace(one.entries[0], runs=tuple(runs))
    assert "after 1 step (next: b, 100 times as many)" in first(quick, one.entries[1])


def test_one_optimizer_alone() -> None:
    alone = task_sentences(task(entry("a", 100, rates=WIDE)))
    assert alone == (
        "a reached 95% accuracy after 100 steps, in 0.10 s.",
        "The learning rates that work for a span a factor of 10.",
        "a keeps 8 bytes of state per parameter; the median step is 7.5 times as fast as torch's.",
    )


def test_sensitivity_names_the_widest_and_the_narrowest() -> None:
    said = task_sentences(task(entry("a", rates=WIDE), entry("b", rates=NARROW)))[1]
    assert said == (
        "The learning rate matters least to a (the rates that work span a factor of 10), and most "
        "to b (no more than one of those tried)."
    )


def test_a_range_that_the_grid_cut_off_is_not_called_narrow() -> None:
    cut = entry("b", rates=(100, math.inf, None))
    said = task_sentences(task(entry("a", rates=WIDE), cut))[1]
    assert "least to a" in said
    assert said.endswith("to whom it matters most the rates tried do not tell: they end too soon.")
    wider = entry("c", rates=(100, 100, 100, 100, 100))
    said = task_sentences(task(entry("a", rates=WIDE), cut, wider))[1]
    assert "least to c (the rates that work span at least a factor of 100)" in said
    assert said.endswith(
        "most, among those whose range ends within the rates tried, to a (a factor of 10)."
    )


def test_ranges_that_are_alike() -> None:
    said = task_sentences(task(entry("a", rates=WIDE), entry("b", rates=WIDE)))[1]
    assert said == "The learning rates that work for a and b span a factor of 10."


def test_sensitivity_needs_two_rates_that_learn() -> None:
    for rates in ((100,), (math.inf, math.inf)):
        said = task_sentences(task(entry("a", rates=rates), entry("b", rates=rates)))[1]
        assert said.startswith("The race does not tell how much the learning rate matters")


def test_memory_compares_the_first_with_the_leanest_that_reached() -> None:
    lean, none = replace(STEP_TIME, state_bytes=4.0), replace(STEP_TIME, state_bytes=0.0)
    said = task_sentences(
        task(
            entry("a", 100),
            entry("b", 200, step_time=lean),
            entry("c", 5000, step_time=none),
        )
    )[2]
    assert said == (
        "a keeps 8 bytes of state per parameter; b, which keeps 4 bytes, took 2 times as many "
        "steps; the median step is 7.5 times as fast as torch's."
    )
    said = task_sentences(task(entry("a", 100, step_time=none), entry("b", 200)))[2]
    assert said.startswith("a keeps 0 bytes of state per parameter, no more than any other that")


def test_memory_that_is_printed_alike_is_alike() -> None:
    less = replace(STEP_TIME, state_bytes=7.99)  # a counter of 4 bytes instead of 8 per tensor
    for steps in (100, 200):
        said = task_sentences(task(entry("a", 100), entry("b", steps, step_time=less)))[2]
        assert said.startswith("a keeps 8 bytes of state per parameter, no more than any other")


def test_memory_where_nobody_reached_the_target() -> None:
    lean = replace(STEP_TIME, state_bytes=4.0)
    said = task_sentences(task(entry("a", 5000), entry("b", 5000, step_time=lean)))[2]
    assert said.startswith("States take from 4 bytes per parameter (b) to 8 bytes (a);")


@pytest.mark.parametrize(
    ("torch_us", "expected"),
    [
        (None, "."),
        (20.0, "; the median step is 2 times as fast as torch's."),
        (5.0, "; the median step is 2 times as slow as torch's."),
        (10.1, "; the median step is about as fast as torch's."),
    ],
)
def test_step_time_beside_torch(torch_us: float | None, expected: str) -> None:
    said = task_sentences(task(entry("a", step_time=replace(STEP_TIME, torch_us=torch_us))))[2]
    assert said == f"a keeps 8 bytes of state per parameter{expected}"


def test_without_measured_steps_there_is_nothing_to_say_of_memory() -> None:
    assert len(task_sentences(task(entry("a", step_time=None)))) == 2


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ((), "Nothing has been trained yet."),
        (
            (diverged("a"), diverged("b")),
            "Nothing could be trained: a and b diverged at every learning rate that was tried.",
        ),
        (
            (diverged("a"), failed("b")),
            "Nothing could be trained: a diverged at every learning rate that was tried, and b "
            "could not take part.",
        ),
        ((failed("b"),), "Nothing could be trained: b could not take part."),
    ],
)
def test_nothing_was_trained(entries: tuple[Entry, ...], expected: str) -> None:
    assert task_sentences(task(*entries)) == (expected,)
    assert sentences(result(task(*entries))) == (expected,)
    assert sentences(result(task(*entries), task(*entries))) == (expected,)


def test_several_tasks_are_summed_up() -> None:
    lean = replace(STEP_TIME, state_bytes=4.0)
    one = task(entry("a", 100, rates=WIDE), entry("b", 200, rates=NARROW, ms=0.1, step_time=lean))
    assert sentences(result(one, one)) == (
        "Over 2 tasks a needed the fewest steps to the target: in the median task about as many as "
        "the best of that task; the least time took b, about as long as the best (a: 5 times as "
        "long).",
        "The learning rate matters least to a (the rates that work span a factor of 10 in the "
        "median task), and most to b (no more than one of those tried).",
        "a keeps 8 bytes of state per parameter; b, which keeps 4 bytes, took 2 times as many "
        "steps; the median step is 7.5 times as fast as torch's.",
    )


def test_targets_that_nobody_reached_on_most_tasks() -> None:
    missed = task(entry("a", 5000))
    assert sentences(result(missed, missed))[0] == (
        "No optimizer reached the target of more than half of the 2 tasks."
    )


def test_one_task_is_said_as_it_is_and_a_race_of_everything_has_three_sentences() -> None:
    race = usual()
    assert len(sentences(race)) == 3
    assert all(said.endswith(".") for said in sentences(race))
    assert sentences(replace(race, tasks=race.tasks[:1])) == task_sentences(race.tasks[0])


def test_incomplete() -> None:
    assert incomplete(usual()) is None
    assert "10 of 14 entries are done" in str(incomplete(replace(usual(), complete=False)))


def test_outcome_is_of_those_without_runs() -> None:
    assert outcome(entry()) is None
    assert outcome(diverged("a")) == "diverged at every learning rate that was tried"
    assert outcome(failed("a", "no")) == "could not take part: no"


def test_command_gives_what_differs_from_the_preset() -> None:
    def of(asked: Result) -> list[str]:
        return shlex.split(command(asked.settings))

    plain = replace(usual(), settings=PRESETS["full"])
    assert of(plain) == ["thalweg", "race", "--preset", "full"]
    changed = settings("small", optimizers=["sgd(momentum=0.9)", "adam"], length=0.25, seeds=1)
    assert of(replace(plain, settings=changed))[4:] == [
        "--optimizers", "sgd(momentum=0.9),adam", "--seeds", "1", "--length", "0.25",
    ]  # fmt: skip


def test_command_gives_every_digit() -> None:
    asked = settings("small", seed=12_345_678, length=1 / 3)
    words = shlex.split(command(asked))
    assert int(words[words.index("--seed") + 1]) == asked.seed
    assert float(words[words.index("--length") + 1]) == asked.length


def several(*entries: tuple[Entry, ...]) -> Result:
    tasks = [replace(task(*each), task=f"task {i}") for i, each in enumerate(entries)]
    return result(*tasks)


def test_who_ties_over_several_tasks_is_named() -> None:
    alike = (entry("a", 100), entry("b", 100, ms=2.0), entry("c", 200))
    assert sentences(several(alike, alike, alike))[0] == (
        "Over 3 tasks a and b needed the fewest steps to the target: in the median task about as "
        "many as the best of that task, and a the least time, too."
    )


def test_tasks_that_nobody_finished_are_said() -> None:
    missed, made = (entry("a", 5000), entry("b", 5000)), (entry("a", 100), entry("b", 200))
    said = sentences(several(missed, made, made))[0]
    assert said.startswith("Over 3 tasks, of which nobody reached the target of 1, a needed the ")
    said = sentences(several(missed, missed, made))[0]
    assert said == "No optimizer reached the target of more than half of the 3 tasks."


def test_a_range_that_the_grid_cut_off_may_be_the_widest() -> None:
    wide = entry("a", rates=(math.inf, 100, 100, 100, 100, math.inf, math.inf))
    cut = entry("b", rates=(math.inf, math.inf, math.inf, math.inf, 100, 100, 100))
    said = task_sentences(task(wide, cut))[1]
    assert said.startswith("As far as the rates tried tell, the learning rate matters least to a (")
    seen = entry("b", rates=(math.inf, math.inf, math.inf, 100, 100, math.inf, math.inf))
    assert task_sentences(task(wide, seen))[1].startswith("The learning rate matters least to a (")


def test_equal_states_are_said_once() -> None:
    said = task_sentences(task(entry("a", math.inf), entry("b", math.inf)))[2]
    assert said.startswith("All keep 8 bytes of state per parameter;")


def test_where_all_diverge_with_most_seeds_nobody_is_first() -> None:
    one = entry("a", 100)
    lost = replace(one, runs=tuple(replace(run, diverged_at=300) for run in one.runs))
    assert task_sentences(task(lost, goal=None))[0] == (
        "The task sets no target, and a diverged with half of the seeds or more: none can be "
        "called first."
    )
