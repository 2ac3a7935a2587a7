"""A race as one self-contained HTML page; needs plotly."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

from thalweg.landscape.animation import contour_animation, surface_animation
from thalweg.landscape.scenes import SCENES
from thalweg.page import Animation, Chart, Code, Page, Part, Row, Section, Table, Text
from thalweg.race.report import charts, cost_charts, table
from thalweg.race.report.formats import counted, format_goal, join
from thalweg.race.report.overall import overall
from thalweg.race.report.words import command, incomplete, sentences, task_sentences
from thalweg.race.result import Result, Settings, TaskResult

ROW = 26  # pixels per optimizer in charts with a row for each
AROUND = 70  # pixels for their axis
AGAINST: dict[charts.Axis, str] = {"steps": "steps", "seconds": "training time"}

BAND = "Lines: median over the seeds. Shaded: from the lowest to the highest."
SENSITIVITY = (
    "A filled point is a rate that works, an open one a rate that does not. Crosses at the upper "
    "edge, the loss before training, diverged or ended above it."
)
PROTOCOL = (
    "Every optimizer gets the same weights, the same batches and the same budget: all learning "
    "rates of its grid, √10 apart, train for a quarter of the steps, the better half of them, "
    "rounded up, goes on to half of the steps, and the better half of these to the end. The best "
    "rate is then trained in full with the other seeds.",
    "The learning rate is chosen by the same test set that decides the race. The race compares "
    "optimizers; it does not estimate how well the networks generalise. Times are of one machine.",
)


def write_page(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write the page of a race, complete or not.

    Args:
        result: the race; one with nothing in it yet makes a page that says so.
        path: of the file; an existing one is replaced, at once and as a whole.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: plotly is not installed.
        OSError: the file cannot be written; the message names the folder.
    """
    return page(result).write(path)


def page(result: Result) -> Page:
    """The page of a race."""
    names = dict.fromkeys(entry.name for task in result.tasks for entry in task.entries)
    tasks = [task.task for task in result.tasks]
    title = f"{counted(len(names), 'optimizer')} on {join(tasks)}" if tasks else "A race"
    missing = incomplete(result)
    several = len(result.tasks) > 1
    sections = [
        *([_all_tasks(result)] if several else []),
        *(_task(task, result) for task in result.tasks if task.entries),
        *_costs(result),
        *_scenes(names),
        _how(result),
    ]
    return Page(title, [*([missing] if missing else []), *sentences(result)], sections)


def _all_tasks(result: Result) -> Section:
    """One row per optimizer: what it did over all tasks."""
    rows = [table.overall_row(one) for one in overall(result)]
    title, headers, meaning = "Over all tasks", table.OVERALL_HEADERS, table.OVERALL_MEANING
    return Section("All tasks", [Table(title, headers, rows, meaning, range(1, len(headers)))])


def _task(task: TaskResult, result: Result) -> Section:
    """Table and charts of one task; its sentences, unless they are those of the race."""
    alone = len(result.tasks) == 1
    text = [f"{table.title(task)}."] + ([] if alone else list(task_sentences(task)))
    headers = [" ".join(header.split()) for header in table.headers(task)]
    rows = [table.row(task, entry) for entry in task.standings]
    first = next(t for t in result.tasks if t.entries)
    meaning = " ".join(table.MEANINGS) if task is first else f"Columns as for {first.task}."
    parts: list[Part] = [Text(text), Table("Standings", headers, rows, meaning, range(1, 9))]
    notes = [" ".join(table.notes(task))]
    notes += [table.loss_line(task, task.loss_time)] if task.loss_time else []
    parts += [Text(list(filter(None, notes)))] if any(notes) else []
    raced = sum(bool(entry.runs) for entry in task.entries)
    if raced:
        decides = f"until {format_goal(task)}"
        if task.scored:
            parts.append(_curves(task, "score", task.metric[:1].upper() + task.metric[1:], raced))
        parts.append(_curves(task, "test_loss", "Test loss", raced))
        parts.append(
            Row(
                [
                    Chart(
                        f"{axis.capitalize()} {decides}",
                        charts.to_target(task, axis),
                        "Bars: median over the seeds. Lines: from the fewest to the most.",
                        ROW * raced + AROUND,
                    )
                    for axis in charts.AXES
                ]
            )
        )
    searched = sum(bool(entry.search) for entry in task.entries)
    if any(len(entry.search) > 1 for entry in task.entries):
        figure, caption = charts.sensitivity(task), " ".join([SENSITIVITY, *_focus(searched)])
        parts.append(Chart("Sensitivity to the learning rate", figure, caption))
    return Section(task.task, parts)


def _curves(task: TaskResult, what: charts.Curve, title: str, raced: int) -> Row:
    decides = (what == "score") == task.scored
    caption = " ".join([BAND, *(["Dotted: the target."] if decides else []), *_focus(raced)])
    return Row(
        [
            Chart(f"{title} against {AGAINST[axis]}", charts.curves(task, what, axis), caption)
            for axis in charts.AXES
        ]
    )


def _focus(count: int) -> list[str]:
    if count <= charts.FOCUS:
        return []
    return [f"The first {charts.FOCUS} are shown; the names switch the others on."]


def _costs(result: Result) -> Iterator[Section]:
    """Memory, share of the training time, and step times beside torch's."""
    parts: list[Part] = []
    timed = [one for one in overall(result) if one.state_bytes is not None]
    if timed:
        caption = "What the optimizer keeps, beside 4 bytes for the weight and 4 for its gradient."
        height = ROW * len(timed) + AROUND
        parts.append(Chart("Memory per parameter", cost_charts.memory(result), caption, height))
    trained = {e.name for task in result.tasks for e in task.entries if e.runs}
    if trained:
        caption = "The rest is the forward and the backward pass. Median over the seeds."
        height = ROW * len(trained) + AROUND
        title = "Optimizer's share of the training time"
        parts.append(Chart(title, cost_charts.shares(result), caption, height))
    parts = [Row(parts)] if len(parts) > 1 else parts
    for task in result.tasks:
        count = sum(entry.step_time is not None for entry in task.entries)
        if count:
            caption = (
                "Median time of one step of the optimizer alone on the parameters of this task, "
                "and, measured in turn with it, of torch's class of the same name with the same "
                "options."
            )
            figure = cost_charts.step_times(task)
            parts.append(
                Chart(f"Time of a step: {task.task}", figure, caption, ROW * count + AROUND)
            )
    if parts:
        yield Section("Cost", parts)


def _scenes(names: Iterable[str]) -> Iterator[Section]:
    """The optimizers of the race on surfaces, where a scene has them."""
    parts = [part for key in SCENES if (part := _scene(key, tuple(names))) is not None]
    if parts:
        yield Section("On surfaces", parts)


@cache  # seconds of steps, and the same for each page of an unfinished race
def _scene(key: str, names: tuple[str, ...]) -> Animation | None:
    scene = SCENES[key]()
    known = {name: scene.optimizers[name] for name in names if name in scene.optimizers}
    if not known:
        return None
    scene = replace(scene, optimizers=known)
    # What has a lowest point is read best as a map; a saddle in space.
    draw = contour_animation if scene.surface.minima else surface_animation
    return draw(scene.surface, scene.run(), scene.name, scene.caption)


def _how(result: Result) -> Section:
    """Settings, versions, and the command for another such race."""
    asked = {field.name: getattr(result.settings, field.name) for field in fields(Settings)}
    lists = [
        f"{name.capitalize()}: {', '.join(asked.pop(name))}." for name in ("tasks", "optimizers")
    ]
    rows = [(name.replace("_", " "), str(value)) for name, value in asked.items()]
    return Section(
        "How it was run",
        [
            Text([*PROTOCOL, *lists, table.summary(result)]),
            Row(
                [
                    Table("Settings", ("setting", "value"), rows),
                    Table("Versions", ("of", "version"), list(result.versions.items())),
                ]
            ),
            Code(command(result.settings), "Runs the same race; times differ with the machine."),
        ],
    )
