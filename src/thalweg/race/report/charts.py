"""How the optimizers of a race learnt, as plotly figures; fonts and grids are the page's."""

import math
import statistics
from collections.abc import Iterable
from typing import Any, Literal

from thalweg.page import needs, styles_of
from thalweg.race.report.formats import (
    Spread,
    format_value,
    is_share,
    seconds_spread,
    seeds_of,
    steps_spread,
)
from thalweg.race.report.row_charts import bars, log_axis, segments, short
from thalweg.race.result import Entry, Run, TaskResult

Axis = Literal["steps", "seconds"]
Curve = Literal["score", "test_loss"]
AXES: dict[Axis, str] = {"steps": "steps", "seconds": "training time in seconds"}

WIDE = 10.0  # losses that spread over more than this factor are drawn on a logarithmic axis
FOCUS = 6  # optimizers that are seen at once at first; the legend shows the others
REST = 8.0  # of a share, what the axis shows: so many times what the target leaves to 100%
BAND = 0.14  # opacity of the area between the lowest and the highest seed


def curves(task: TaskResult, what: Curve, axis: Axis) -> Any:
    """Score or test loss of every optimizer's full runs: median over the seeds, and a band.

    Args:
        task: the race.
        what: the attribute of :class:`thalweg.race.result.Run` to draw.
        axis: against ``"steps"`` or ``"seconds"`` of training.

    Returns:
        A ``plotly.graph_objects.Figure``.
    """
    go = needs("plotly.graph_objects")
    figure = go.Figure()
    raced = [entry for entry in task.standings if entry.runs]
    styles = styles_of(entry.name for entry in raced)
    scale = 100 if what == "score" and is_share(task) else 1
    seen: list[float] = []
    ends: list[float] = []
    for place, entry in enumerate(raced):
        style, visible = styles[entry.name], place < FOCUS or "legendonly"
        x, middle, low, high = _band(entry, what, axis, scale)
        seen += middle
        ends += middle[-1:] if place < FOCUS else []
        if low != high:
            figure.add_scatter(
                x=[*x, *reversed(x)],
                y=[*high, *reversed(low)],
                fill="toself",
                fillcolor=_faded(style.colour),
                line={"width": 0},
                mode="lines",
                legendgroup=entry.name,
                visible=visible,
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_scatter(
            x=x,
            y=middle,
            name=entry.name,
            legendgroup=entry.name,
            visible=visible,
            line={"color": style.colour, "dash": style.dash, "width": 2},
            mode="lines",
            hovertemplate=f"{entry.name}: %{{y:.4g}}<extra></extra>",
        )
    decides = (what == "score") == task.scored
    if decides and raced and math.isfinite(task.target):
        figure.add_hline(y=scale * task.target, line={"dash": "dot", "width": 1})
    figure.update_xaxes(title=AXES[axis], rangemode="tozero")
    figure.update_layout(hovermode="closest")
    if what == "score":
        figure.update_yaxes(title=task.metric + (" in %" if scale == 100 else ""))
        if scale == 100:  # the end decides, not the way up from chance
            figure.update_yaxes(range=[_lowest_share(task, ends), 100.5])
    else:
        start = max((run.test_loss[0] for entry in raced for run in entry.runs), default=1.0)
        figure.update_yaxes(title="test loss", **_loss_axis(seen, start))
    return figure


def to_target(task: TaskResult, axis: Axis) -> Any:
    """Steps or training time to the target: bars of the medians, lines from seed to seed."""
    raced = [entry for entry in task.standings if entry.runs]
    spread = steps_spread if axis == "steps" else seconds_spread
    found = [spread(entry, task.target) for entry in raced]
    ends = [end for s in found for end in (s.low, s.median, s.high) if end < math.inf]
    longest = max(ends, default=1.0)
    finite = [s.median if s.median < math.inf else 0.0 for s in found]
    figure = bars([entry.name for entry in raced], finite, AXES[axis])
    figure.update_traces(
        marker_opacity=0.6,  # the lines on the bars must be seen
        hovertext=[_spread_in_words(e, s, axis) for e, s in zip(raced, found, strict=True)],
        hoverinfo="text",
    )
    spreads = [
        (entry.name, s.low, min(s.high, longest))
        for entry, s in zip(raced, found, strict=True)
        if s.low < s.high and s.low < math.inf
    ]
    segments(figure, spreads, meta="ink", width=1.5)
    said = [_missed(task, entry) for entry in raced]
    figure.add_scatter(
        y=[entry.name for entry in raced],
        x=[min(s.high, longest) if s.low < math.inf else 0 for s in found],
        text=said,
        mode="text",
        textposition="middle right",
        meta="ink",
        hoverinfo="skip",
        showlegend=False,
    )
    # What is said of a bar stands at the end of its line, and so may need room.
    room = any(text and s.low < math.inf for text, s in zip(said, found, strict=True))
    figure.update_xaxes(range=[0, (1.8 if room else 1.05) * longest])
    return figure


def sensitivity(task: TaskResult) -> Any:
    """Test loss after the first round against the learning rate.

    A filled point is a rate that works, an open one a rate that does not. Crosses at the upper
    edge, the loss before training, stand for rates that diverged or ended above it.
    """
    go = needs("plotly.graph_objects")
    figure = go.Figure()
    searched = [entry for entry in task.standings if entry.search]
    styles = styles_of(entry.name for entry in searched)
    edge = max((run.test_loss[0] for entry in searched for run in entry.search), default=1.0)
    kept: list[float] = []
    for place, entry in enumerate(searched):
        style, visible = styles[entry.name], place < FOCUS or "legendonly"
        rates = [run.lr for run in entry.search]
        losses = [_after(run, entry.first_round) for run in entry.search]
        kept += [loss for loss in losses if loss <= edge]
        working = {run.lr for run in entry.working}
        figure.add_scatter(
            x=short(rates),
            y=[loss if loss <= edge else None for loss in short(losses)],
            name=entry.name,
            legendgroup=entry.name,
            visible=visible,
            mode="lines+markers",
            line={"color": style.colour, "dash": style.dash, "width": 2},
            marker={
                "size": 8,
                "color": style.colour,
                "symbol": ["circle" if lr in working else "circle-open" for lr in rates],
            },
            hovertemplate=f"{entry.name}: %{{y:.4g}} at rate %{{x:.2g}}<extra></extra>",
        )
        lost = [lr for lr, loss in zip(rates, losses, strict=True) if loss > edge]
        if lost:
            figure.add_scatter(
                x=short(lost),
                y=[edge] * len(lost),
                legendgroup=entry.name,
                visible=visible,
                showlegend=False,
                mode="markers",
                marker={
                    "size": 8,
                    "color": style.colour,
                    "symbol": "x-thin",
                    "line": {"width": 2, "color": style.colour},
                },
                hovertemplate=f"{entry.name}: lost at rate %{{x:.2g}}<extra></extra>",
            )
    tried = [run.lr for entry in searched for run in entry.search]
    figure.update_xaxes(title="learning rate")
    if tried:
        figure.update_xaxes(**log_axis(min(tried), max(tried)))
    figure.update_yaxes(title="test loss after the first round", **_loss_axis(kept, edge))
    return figure


def _band(
    entry: Entry, what: str, axis: Axis, scale: float
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Of each evaluation: position, and median, lowest and highest value over the seeds.

    A run that diverged counts as long as it lasted.
    """
    x, middle, low, high = [], [], [], []
    for i in range(max(len(run.steps) for run in entry.runs)):
        there = [run for run in entry.runs if i < len(run.steps)]
        values = [scale * getattr(run, what)[i] for run in there]
        x.append(statistics.median(getattr(run, axis)[i] for run in there))
        middle.append(statistics.median(values))
        low.append(min(values))
        high.append(max(values))
    return short(x), short(middle), short(low), short(high)


def _after(run: Run, steps: int) -> float:
    """The test loss after so many steps or a few more; inf for a run that diverged."""
    if run.diverged:
        return math.inf
    return next(loss for done, loss in zip(run.steps, run.test_loss, strict=True) if done >= steps)


def _lowest_share(task: TaskResult, ends: Iterable[float]) -> float:
    """Where the axis of a share in percent begins: below all that is seen at the end."""
    end = 100 * task.target if math.isfinite(task.target) else 0.0
    return max(0.0, min(100 - REST * (100 - end), 100 - REST, *(last - 1 for last in ends)))


def _loss_axis(losses: Iterable[float], start: float) -> dict[str, Any]:
    """The range from the lowest loss to the one before training; what lies above is cut off."""
    shown = [loss for loss in losses if loss <= start]
    low = min(shown, default=start)
    if 0 < WIDE * low < start:
        return log_axis(low, start)
    room = 0.05 * (start - low) or 1.0
    return {"range": [low - room, start + room]}


def _missed(task: TaskResult, entry: Entry) -> str:
    """What a bar alone does not say."""
    missed = sum(one.steps_to(task.target) == math.inf for one in seeds_of(entry))
    if missed == len(entry.runs):
        return f" missed, ended at {format_value(task, entry.final)}"
    return f" {missed} of {len(entry.runs)} missed it" if missed else ""


def _spread_in_words(entry: Entry, spread: Spread, axis: Axis) -> str:
    return f"{entry.name}: {format(spread, axis)}{'' if axis == 'steps' else ' s'}"


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{BAND})"
