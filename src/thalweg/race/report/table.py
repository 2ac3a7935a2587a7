"""A race's result as tables, for the terminal and for the page; the terminal's need rich."""

import math
from typing import Any

from thalweg.page import needs
from thalweg.race.report.formats import (
    MISSING,
    counted,
    format_lr,
    format_multiple,
    format_range,
    format_target,
    format_value,
    is_share,
    join,
    seconds_spread,
    steps_spread,
)
from thalweg.race.report.overall import Overall
from thalweg.race.report.words import NOTHING, incomplete, outcome, sentences, task_sentences
from thalweg.race.result import WORKS, Entry, LossTime, Result, TaskResult

WIDTH = 100  # columns that hold a table with its longest numbers

MEANINGS = (
    "best lr: the learning rate that was run in full, with every seed.",
    "steps, seconds: median over the seeds until the target is first reached, and in parentheses "
    "the fewest and the most; ∞ where a seed missed it. A step is one gradient. Seconds count "
    "gradients and updates, not evaluation or compiling.",
    "step µs: median time of the optimizer's own step; × torch: how many of them fit into one step "
    "of torch's class of the same name. B per param: bytes of state per parameter.",
    "rates that work: neighbours of the best one that, in as many steps as every rate got, lower "
    f"the test loss by {100 * WORKS:.0f}% of what the best one does. ≤ ≥: end of the tried range.",
)


def headers(task: TaskResult) -> tuple[str, ...]:
    """Of the columns, in two lines each."""
    target = format_target(task) if any(entry.runs for entry in task.entries) else "target"
    return (
        "\noptimizer",
        "best\nlr",
        f"steps\nto {target}",
        f"seconds\nto {target}",
        "final\n%" if is_share(task) else f"final\n{task.metric}",
        "step\nµs",
        "×\ntorch",
        "B per\nparam",
        "rates\nthat work",
    )


def row(task: TaskResult, entry: Entry) -> tuple[str, ...]:
    """An entry's cells under these headers."""
    time = entry.step_time
    costs = (
        MISSING if time is None else f"{time.own_us:.1f}",
        format_multiple(None if time is None else time.ratio),
        MISSING if time is None else f"{time.state_bytes:.1f}",
    )
    if not entry.runs:
        word = "diverged" if entry.failed is None else "failed"
        return entry.name, MISSING, word, word, MISSING, *costs, format_range(entry)
    return (
        entry.name,
        MISSING if entry.lr is None else format_lr(entry.lr),
        f"{steps_spread(entry, task.target):steps}",
        f"{seconds_spread(entry, task.target):seconds}",
        format_value(task, entry.final).removesuffix("%"),
        *costs,
        format_range(entry),
    )


def notes(task: TaskResult) -> list[str]:
    """Who missed the target, diverged or failed, and why; and where the target comes from."""
    lines = []
    if task.goal is None and any(entry.runs for entry in task.entries):
        lines.append(
            f"The task sets no target: {format_target(task)} is what the median of the optimizers "
            "ended at."
        )
    missed = [e for e in task.standings if e.runs and e.steps_to(task.target) == math.inf]
    if missed:
        names = join([entry.name for entry in missed], limit=len(missed))
        lines.append(f"{names} missed {format_target(task)} in the median of the seeds.")
    lines += [
        f"{entry.name} {entry.note.rstrip('.')}."
        for entry in task.standings
        if entry.note and entry.failed is None and (entry in missed or not entry.runs)
    ]
    excused: dict[str, list[Entry]] = {}
    for entry in task.standings:
        if (why := outcome(entry)) is not None:
            # Optimizers that refuse the same begin with their own names.
            name = entry.optimizer.rpartition(".")[2]
            excused.setdefault(why.replace(f": {name} ", ": ", 1), []).append(entry)
    for first, *others in excused.values():
        said = f"{first.name} {(outcome(first) or '').rstrip('.')}."
        names = join([entry.name for entry in others], limit=len(others))
        lines.append(f"{said} So it is with {names}." if others else said)
    return lines


OVERALL_HEADERS = ("optimizer", "targets reached", "steps", "time", "B/param", "rates", "× torch")
OVERALL_MEANING = (
    "Steps and time to the target are multiples of the best optimizer's on the same task. B/param: "
    "bytes of state per parameter. Rates: the factor from the lowest to the highest learning rate "
    f"that works, that is, lowers the test loss by {100 * WORKS:.0f}% of what the best rate does "
    "in as many steps; 1×: a single rate of those tried; ≥: the tried range ended first. × torch: "
    "how many steps fit into one of torch's class of the same name. All are medians over the tasks "
    "that an optimizer took part in; those that took part in half of the tasks or fewer are listed "
    "last. ∞: half of the targets or more were missed."
)


def overall_row(one: Overall) -> tuple[str, ...]:
    """An optimizer's cells over all tasks."""
    decades = None if one.decades is None else 10**one.decades
    return (
        one.name,
        f"{one.reached} of {one.tasks}",
        format_multiple(one.steps if one.reached else None),
        format_multiple(one.seconds if one.reached else None),
        MISSING if one.state_bytes is None else f"{one.state_bytes:.1f}",
        f"{'' if one.bounded or decades is None else '≥ '}{format_multiple(decades)}",
        format_multiple(one.step_ratio),
    )


def title(task: TaskResult) -> str:
    """What was trained, in one line."""
    what = f"{task.task}: {task.description}" if task.description else task.task
    return (
        f"{what}; {counted(task.parameters, 'parameter')} in {counted(task.tensors, 'tensor')}, "
        f"{counted(task.steps, 'step')}"
    )


def loss_line(task: TaskResult, time: LossTime) -> str:
    """The winner's training with thalweg's loss and with torch's, in one line or two."""
    saved = f"{abs(time.saved_us):.0f} µs {'saved' if time.saved_us >= 0 else 'lost'} per step"
    ends = " and ".join(format_value(task, v) for v in (time.thalweg_score, time.torch_score))
    return (
        f"{time.loss} of thalweg.losses in place of torch's ({time.optimizer}, {time.steps} "
        f"steps): {ends} {task.metric}, {time.thalweg_us:.0f} and {time.torch_us:.0f} µs per "
        f"training step, {saved}."
    )


def summary(result: Result) -> str:
    """How much was run, in one line."""
    entries = [entry for task in result.tasks for entry in task.entries]
    trials = sum(len(entry.search) + max(0, len(entry.runs) - 1) for entry in entries)
    runs, tasks = counted(trials, "training run"), counted(len(result.tasks), "task")
    return f"{runs} on {tasks} in {result.seconds:.0f} s."


def report(result: Result) -> Any:
    """A table per task, what it means, and what the columns are; a ``rich.console.Group``.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """
    text = needs("rich.text").Text
    parts: list[Any] = []
    if (missing := incomplete(result)) is not None:
        parts += [text(""), text(missing, style="bold")]
    for task in result.tasks:
        parts += [text(""), table(task), *(text(note, style="dim") for note in notes(task))]
        parts += [text(loss_line(task, task.loss_time))] if task.loss_time else []
        if len(result.tasks) > 1:
            parts += [text(line) for line in task_sentences(task)]
    if result.tasks:
        parts += [text(""), *(text(meaning, style="dim") for meaning in MEANINGS)]
    parts += [text(""), *(text(line, style="bold") for line in sentences(result) or [NOTHING])]
    return needs("rich.console").Group(*parts, text(summary(result)))


def table(task: TaskResult) -> Any:
    """One row per optimizer, best first; a ``rich.table.Table``."""
    text = needs("rich.text").Text  # names may hold what rich takes for markup
    made = needs("rich.table").Table(
        title=text(title(task)),
        title_justify="left",
        title_style="bold",
        box=needs("rich.box").SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    first, *rest = headers(task)
    made.add_column(text(first), overflow="fold", max_width=20)
    for header in rest:
        made.add_column(text(header), justify="right", no_wrap=True)
    for entry in task.standings:
        reached = entry.steps_to(task.target) < math.inf
        made.add_row(*map(text, row(task, entry)), style=None if reached else "dim")
    return made
