import json
import math
from dataclasses import replace

import pytest

from thalweg.race import Entry, LossTime, Result, Run, Settings, StepTime, TaskResult

TIME = StepTime(10.0, 75.0, 0.5, 8.0)


def entry(name: str, *ends: tuple[int | None, float], scored: bool = True, **more) -> Entry:
    """An entry whose seeds reach 0.9 after so many steps and end at so much."""
    runs = []
    for seed, (steps, end) in enumerate(ends):
        values = (0.0, *[0.0 if steps is None or at < steps else 0.9 for at in (10, 20, 30)], end)
        values = values if scored else tuple(1.8 - v for v in values)
        at = (0, 10, 20, 30, 40)
        runs.append(
            Run(
                0.1,
                seed,
                at,
                tuple(s / 1000 for s in at),
                (1.0,) * 4,
                tuple(1.0 - v for v in values) if scored else values,
                values if scored else (),
            )
        )
    made = Entry(name, name, {"betas": (0.9, 0.99)}, "", tuple(runs[:1]), tuple(runs), TIME)
    return replace(made, **more)


def task(*entries: Entry, goal: float | None = 0.9, scored: bool = True) -> TaskResult:
    metric = "accuracy" if scored else "loss"
    loss = LossTime("cross_entropy", "a", 339, 251.4, 262.6, 10.7, 0.973, 0.971)
    return TaskResult("t", "something", metric, scored, goal, 8314, 8, 40, entries, loss)


def whole(*tasks: TaskResult, complete: bool = True) -> Result:
    asked = Settings("small", ("t",), ("a",), 5, 3, 0, 0.5)
    return Result(asked, {"torch": "2", "machine": 'a "good" {"lr": 1} one'}, 12.5, tasks, complete)


@pytest.mark.parametrize("scored", [True, False], ids=["score", "loss"])
def test_standings_are_by_steps_then_seconds_then_how_far(scored: bool) -> None:
    def made(name: str, steps: int | None, end: float, **more) -> Entry:
        return entry(name, (steps, end), scored=scored, **more)

    slow, fast = made("slow", 30, 0.95), made("fast", 10, 0.91)
    quick = made("quick", 10, 0.91)
    (run,) = quick.runs
    quick = replace(quick, runs=(replace(run, seconds=tuple(s / 2 for s in run.seconds)),))
    never, nearly = made("never", None, 0.2), made("nearly", None, 0.8)
    diverged = replace(made("diverged", 10, 0.9), runs=())
    failed = replace(diverged, name="failed", search=(), step_time=None, failed="no")
    every = [failed, never, slow, diverged, fast, nearly, quick]
    ranked = task(*every, scored=scored, goal=0.9).standings
    assert [e.name for e in ranked] == [
        "quick", "fast", "slow", "nearly", "never", "diverged", "failed",
    ]  # fmt: skip


def test_without_a_goal_the_target_is_what_the_median_ends_at() -> None:
    entries = [entry(str(end), (None, end)) for end in (0.1, 0.5, 0.8)]
    lost = replace(entry("lost", (None, 0.9)), runs=())
    assert task(*entries, lost, goal=None).target == 0.5
    assert task(*entries, goal=0.7).target == 0.7
    assert task(goal=None).target == math.inf


def test_json_gives_the_same_back() -> None:
    failed = entry("b", failed="no", search=(), runs=(), step_time=None)
    result = whole(task(entry("a", (10, 0.91), (20, 0.92)), failed), task(goal=None))
    text = result.to_json()
    again = Result.from_json(text)
    assert again == result
    assert again.to_json() == text
    assert again.tasks[0].entries[0].options == {"betas": (0.9, 0.99)}
    data = json.loads(text)
    assert data["tasks"][0]["entries"][0]["runs"][1]["steps"] == [0, 10, 20, 30, 40]
    lines = text.splitlines()
    assert sum(line.startswith('{"lr":') for line in lines) == 3  # each run on its own
    assert Result.from_json(whole(complete=False).to_json()) == whole(complete=False)


def edited(edit) -> str:
    data = json.loads(whole(task(entry("a", (10, 0.91)))).to_json())
    edit(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON: "),
        (whole(task(entry("a", (10, 0.9)))).to_json()[:-30], "not JSON: "),
        ("[1]", "not the result of a race"),
        ("{}", "there is no 'format'"),
        (edited(lambda d: d.update(format=0)), "another version of thalweg: its format is not 1"),
        (edited(lambda d: d.pop("seconds")), "result lacks the field 'seconds'"),
        (edited(lambda d: d.update(more=1)), "result has an unknown field 'more'"),
        (
            edited(lambda d: d.update(seconds="1")),
            "result.seconds must be a finite number, got '1'",
        ),
        (edited(lambda d: d.update(complete=1)), "result.complete must be of type bool, got 1"),
        (edited(lambda d: d.update(tasks={})), r"result.tasks must be a list, got \{\}"),
        (edited(lambda d: d.update(settings=3)), "result.settings must be an object, got 3"),
        (edited(lambda d: d.update(versions=[])), "result.versions must be an object"),
        (
            edited(lambda d: d["tasks"][0]["entries"][0]["runs"][0]["steps"].append(1.5)),
            r"result.tasks\[0\].entries\[0\].runs\[0\].steps\[5\] must be of type int, got 1.5",
        ),
        (
            edited(lambda d: d["tasks"][0]["entries"][0]["runs"][0].update(seconds=[math.nan])),
            r"seconds\[0\] must be a finite number, got nan",
        ),
    ],
    ids=lambda value: "text" if value.startswith(("{", "[", "\n")) else value[:30],
)
def test_what_is_no_result_is_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Result.from_json(text)


def test_step_time_ratio() -> None:
    assert TIME.ratio == 7.5
    assert StepTime(10.0, None, 0.5, 8.0).ratio is None
