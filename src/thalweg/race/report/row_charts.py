"""Charts with a row for each optimizer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thalweg.page import needs, styles_of
from thalweg.race.report.formats import format_lr
from thalweg.race.training import rounded

NEUTRAL = "#80868f"  # of the marks in legends, where colours tell optimizers apart
LABELS = 6  # at most, on a logarithmic axis


def bars(names: Sequence[str], values: Sequence[float], title: str) -> Any:
    """Horizontal bars, the first on top, each in the colour of its optimizer."""
    styles = styles_of(names)
    figure = needs("plotly.graph_objects").Figure()
    figure.add_bar(
        orientation="h",
        y=list(names),
        x=short(values),
        marker={"color": [styles[name].colour for name in names]},
        showlegend=False,
    )
    figure.update_xaxes(title=title)
    figure.update_layout(bargap=0.35)
    rows(figure, names)
    return figure


def rows(figure: Any, names: Sequence[str]) -> None:
    """Names down the left side, the first on top."""
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=list(reversed(names)), ticks=""
    )


def segments(
    figure: Any, segments: Sequence[tuple[str, float, float]], meta: str, width: float
) -> None:
    """A line in the row of each name, from one value to another."""
    if segments:
        figure.add_scatter(
            y=[y for name, *_ in segments for y in (name, name, None)],
            x=[x for _, low, high in segments for x in (*short((low, high)), None)],
            mode="lines",
            meta=meta,
            line={"width": width},
            hoverinfo="skip",
            showlegend=False,
        )


def marks(
    figure: Any, label: str, symbol: str, points: Mapping[str, float], colours: Mapping[str, str],
    hover: str,
) -> None:  # fmt: skip
    """A mark in the row of each name, in the colour of its optimizer.

    Args:
        figure: gets them as one trace.
        label: names the trace in the legend, whose swatch is grey.
        symbol: in plotly's words.
        points: the values by name.
        colours: of all names.
        hover: plotly's template.
    """
    figure.add_scatter(
        y=list(points),
        x=short(points.values()),
        name=label,
        mode="markers",
        line={"color": NEUTRAL},
        marker={"size": 9, "symbol": symbol, "color": [colours[name] for name in points]},
        hovertemplate=f"{hover}<extra></extra>",
    )


def short(values: Iterable[float]) -> list[float]:
    """Five significant digits: more than a screen shows, at a third of the page's size."""
    return [rounded(value) for value in values]


def log_axis(low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis over an interval, with a little room; at most six labels.

    >>> log_axis(0.3, 25)["tickvals"]
    [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    """
    room = 0.03 * math.log10(high / low) or 0.1
    start, end = math.log10(low) - room, math.log10(high) + room
    decades = range(math.floor(start), math.ceil(end) + 1)
    ticks: list[float] = []
    for leads in ((1, 2, 5), (1,)):
        ticks = [float(f"{lead}e{k}") for k in decades for lead in leads]
        ticks = [tick for tick in ticks if start <= math.log10(tick) <= end]
        if len(ticks) <= LABELS:
            break
    labels = [format_lr(tick) for tick in ticks]
    return {"type": "log", "range": [start, end], "tickvals": ticks, "ticktext": labels}
