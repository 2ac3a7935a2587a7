"""What the optimizers of a race cost, as plotly figures; fonts and grids are the page's."""

import itertools
import statistics
from typing import Any

from thalweg.page import colours_of, needs
from thalweg.race.report.overall import overall
from thalweg.race.report.row_charts import bars, log_axis, marks, rows, segments
from thalweg.race.result import Result, TaskResult

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "hexagon")  # per task


def step_times(task: TaskResult) -> Any:
    """Median time of a step, beside torch's class of that name."""
    timed = [
        (entry.name, entry.step_time)
        for entry in sorted(task.standings, key=lambda e: e.step_time.own_us if e.step_time else 0)
        if entry.step_time is not None
    ]
    colours = colours_of(name for name, _ in timed)
    figure = needs("plotly.graph_objects").Figure()
    segments(
        figure,
        [(name, t.own_us, t.torch_us) for name, t in timed if t.torch_us is not None],
        meta="faint",
        width=2,
    )
    for label, symbol, points in (
        ("in this race", "circle", {name: t.own_us for name, t in timed}),
        ("torch.optim", "circle-open", {name: t.torch_us for name, t in timed if t.torch_us}),
    ):
        hover = f"%{{y}}, {label}: %{{x:.3g}} µs"
        marks(figure, label, symbol, points, colours, hover)
    spent = [us for _, t in timed for us in (t.own_us, t.torch_us) if us]
    figure.update_xaxes(title="microseconds per step")
    if spent:
        figure.update_xaxes(**log_axis(min(spent), max(spent)))
    rows(figure, [name for name, _ in timed])
    return figure


def memory(result: Result) -> Any:
    """Bytes of state per parameter element, the median over the tasks."""
    kept = sorted(
        ((one.name, one.state_bytes) for one in overall(result) if one.state_bytes is not None),
        key=lambda found: found[1],
    )
    figure = bars(
        [name for name, _ in kept], [count for _, count in kept], "bytes of state per parameter"
    )
    figure.update_traces(
        text=[f"{count:.1f}".removesuffix(".0") for _, count in kept],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure.update_xaxes(range=[0, 1.25 * max((count for _, count in kept), default=1) or 1])
    return figure


def shares(result: Result) -> Any:
    """The optimizer's share of the training time, in percent, on every task."""
    go = needs("plotly.graph_objects")
    figure = go.Figure()
    found = {
        task.task: {e.name: 100 * e.optimizer_share for e in task.entries if e.runs}
        for task in result.tasks
    }
    names = dict.fromkeys(name for shares in found.values() for name in shares)
    colours = colours_of(names)
    middle = {n: statistics.median(s[n] for s in found.values() if n in s) for n in names}
    for (task, points), symbol in zip(found.items(), itertools.cycle(SYMBOLS), strict=False):
        if points:
            marks(figure, task, symbol, points, colours, f"%{{y}} on {task}: %{{x:.3g}}%")
    figure.update_xaxes(title="% of the training time", rangemode="tozero")
    rows(figure, sorted(names, key=lambda name: middle[name]))
    return figure
