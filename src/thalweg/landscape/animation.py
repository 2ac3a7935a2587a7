"""Trajectories that move over a surface, for the interactive page."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.engine.explain import count_of
from thalweg.landscape.contours import Line, Relief
from thalweg.landscape.perspective import TALL, depth, drawn, lifted, raised, viewpoint
from thalweg.landscape.surfaces import Array, Surface
from thalweg.landscape.trajectory import Trajectory
from thalweg.landscape.valley import valley_if_known
from thalweg.page import Animation, Page, Section, Track, needs

MOST_FRAMES = 600  # more positions than that along one path are not seen, but slow the page down


def contour_animation(
    surface: Surface, trajectories: Sequence[Trajectory], title: str = "", caption: str = ""
) -> Animation:
    """Trajectories over the contour map, as a part of a page.

    What lies outside the region is cut off by the frame; zooming out shows it.

    Args:
        surface: what to draw.
        trajectories: paths over it, at least one.
        title: above the picture (default: the surface's name).
        caption: below it, before the rule of the lines (default: none).

    Raises:
        ModuleNotFoundError: plotly is not installed; the message says what to install.
        ValueError: there are no trajectories, or the surface is nowhere finite.
    """
    go = needs("plotly.graph_objects")
    relief = Relief(surface)
    left, right, bottom, top = surface.region
    figure = go.Figure(
        go.Heatmap(
            x=relief.x, y=relief.y, z=_short(relief.scaled), zsmooth="best", showscale=False,
            hoverinfo="skip", meta="fill",
        )
    )  # fmt: skip
    labelled = set(relief.levels.labelled)
    valley = valley_if_known(surface)
    labels = _labels(relief, valley)
    for marked, width in ((False, 0.6), (True, 1.2)):
        chosen = [line for line in relief.lines if (line.level in labelled) == marked]
        pieces = [_broken(line, labels, surface) for line in chosen]
        figure.add_scatter(**_joined(pieces), line_width=width, meta="faint", **STILL)
    if valley:
        figure.add_scatter(**_joined(valley), line_width=1.5, meta="ink", **STILL)
    places = np.array([label.place for label in labels]).reshape(-1, 2)
    figure.add_scatter(
        x=places[:, 0], y=places[:, 1], text=[label.text for label in labels], mode="text",
        meta="muted", hoverinfo="skip", textfont_size=12,
    )  # fmt: skip
    if surface.minima:
        x, y = np.array(surface.minima).T
        figure.add_scatter(
            x=x, y=y, mode="markers", meta="ink", marker={"symbol": "star", "size": 13},
            hovertext=["minimum"] * len(x), hoverinfo="text",
        )  # fmt: skip
    start = trajectories[0].points[0] if trajectories else surface.start
    figure.add_scatter(
        x=[start[0]], y=[start[1]], mode="markers", meta="ink", hovertext="start",
        hoverinfo="text", marker={"symbol": "circle-open", "size": 15, "line": {"width": 2}},
    )  # fmt: skip
    figure.update_layout(
        xaxis={"range": [left, right], "title": {"text": "x"}, "showgrid": False},
        yaxis={"range": [bottom, top], "title": {"text": "y"}, "showgrid": False},
    )
    if surface.one_scale:
        figure.update_layout(yaxis={"scaleanchor": "x", "constrain": "domain"})
        figure.update_layout(xaxis={"constrain": "domain"})
    minima = {0: "", 1: " the star the minimum,"}.get(len(surface.minima), " the stars the minima,")
    line = " the strong line the valley line," if valley else ""
    marks = f"The ring is the start,{minima}{line} each disc where an optimizer is."
    return _animation(
        surface, trajectories, figure, title, f"{caption} {marks} {relief.levels.rule}", None
    )


def surface_animation(
    surface: Surface, trajectories: Sequence[Trajectory], title: str = "", caption: str = ""
) -> Animation:
    """Trajectories over the surface in three dimensions, which can be turned, as a part of a page.

    Heights are on the scale on which contour lines are equally far apart: mostly log height. Parts
    of trajectories outside the region are left out.

    Args:
        surface: what to draw.
        trajectories: paths over it, at least one.
        title: above the picture (default: the surface's name).
        caption: below it, before the rule of the lines (default: none).

    Raises:
        ModuleNotFoundError: plotly is not installed; the message says what to install.
        ValueError: there are no trajectories, or the surface is nowhere finite.
    """
    go = needs("plotly.graph_objects")
    relief = Relief(surface)
    at = relief.levels
    x, y, z = drawn(relief)
    figure = go.Figure(
        go.Surface(
            x=x, y=y, z=_short(z), showscale=False, hoverinfo="skip", meta="relief", opacity=0.92,
            lighting={"ambient": 0.75, "diffuse": 0.45, "specular": 0.05, "roughness": 0.9},
            contours={axis: {"highlight": False} for axis in "xyz"},
        )
    )  # fmt: skip
    lines = [_raised(line, relief) for line in relief.lines]
    figure.add_scatter3d(**_joined(lines), line_width=1.5, meta="faint", **STILL)
    shown = at.labelled[:: max(1, -(-len(at.labelled) // 5))]
    turn, rise = np.deg2rad(viewpoint(relief, trajectories))
    eye = np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)])
    figure.update_layout(
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        scene={
            "xaxis": {"title": {"text": "x"}},
            "yaxis": {"title": {"text": "y"}},
            "zaxis": {
                "title": {"text": "height"},
                "tickvals": at.scaled(np.array([at.values[i] for i in shown])).tolist(),
                "ticktext": [at.label(i) for i in shown],
            },
            "aspectmode": "manual",
            "aspectratio": {"x": 1.2, "y": 1.2 * depth(relief), "z": 1.2 * TALL},
            "camera": {
                "eye": dict(zip("xyz", (2.1 * eye).tolist(), strict=True)),
                "center": {"x": 0, "y": 0, "z": -0.1},
            },
        },
    )
    height = "Upwards: the height, as its logarithm." if at.logarithmic else "Upwards: the height."
    return _animation(surface, trajectories, figure, title, f"{caption} {height} {at.rule}", relief)


def write_page(
    path: str | os.PathLike[str],
    surface: Surface,
    trajectories: Sequence[Trajectory],
    title: str = "",
    text: str = "",
) -> Path:
    """Write a page with both animations that works on its own, and give its path.

    Args:
        path: of the HTML file.
        surface: what to draw.
        trajectories: paths over it, at least one.
        title: of the page (default: "Paths over" and the surface's name).
        text: a paragraph below it, as on the learning rates (default: none).

    Raises:
        ModuleNotFoundError: plotly is not installed; the message says what to install.
        OSError: it cannot be written there; the message names the folder.
        ValueError: there are no trajectories, or the surface is nowhere finite.
    """
    parts = [
        contour_animation(surface, trajectories, "Contour map"),
        surface_animation(surface, trajectories, "In three dimensions"),
    ]
    source = f"{surface.formula}." + (f" Source: {surface.source}." if surface.source else "")
    heading = title or f"Paths over {surface.name}"
    lead = [_outcome(trajectories), *([text] if text else []), source]
    page = Page(heading, lead, [Section(surface.name, parts)])
    return page.write(path)


STILL: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip"}


def _animation(
    surface: Surface,
    trajectories: Sequence[Trajectory],
    figure: Any,
    title: str,
    caption: str,
    relief: Relief | None,
) -> Animation:
    """With a track per trajectory, over the relief if there is one."""
    last = max((len(trajectory.points) for trajectory in trajectories), default=1) - 1
    steps = np.unique(np.linspace(0, last, min(last + 1, MOST_FRAMES)).round().astype(int))
    tracks = []
    for trajectory in trajectories:
        # One that ends between two frames is at its end in the later one.
        end = len(trajectory.points) - 1
        rows = np.minimum(steps[: int(np.searchsorted(steps, end)) + 1], end)
        places = (trajectory.points if relief is None else raised(relief, trajectory))[rows]
        x, y, *z = places.T
        note = "diverged" if trajectory.diverged else ""
        values = trajectory.values[rows]
        tracks.append(Track(trajectory.name, x, y, z[0] if z else None, values, note))
    return Animation(
        title or surface.name, figure, tracks, caption.strip(), height=560, steps=steps.tolist()
    )


def _outcome(trajectories: Sequence[Trajectory]) -> str:
    """Who ended lowest, in a sentence."""
    steps = max((len(trajectory.points) for trajectory in trajectories), default=1) - 1
    going = sorted((t for t in trajectories if not t.diverged), key=lambda t: float(t.values[-1]))
    lost = [t.name for t in trajectories if t.diverged]
    text = f"After {count_of(steps, 'step')} from one start, "
    if going:
        lowest = " lowest," if len(going) > 1 else ""
        text += f"{going[0].name} is{lowest} at {_number(going[0])}"
        if len(going) > 1:
            text += f", and {going[-1].name} highest, at {_number(going[-1])}"
        text += f"; diverged: {', '.join(lost)}." if lost else "."
    else:
        text += "all have diverged."
    return text


def _number(trajectory: Trajectory) -> str:
    return f"{trajectory.values[-1]:.3g}".replace("-", "−")


def _short(values: Array) -> Array:
    """Half as long in the file: nobody sees the other digits."""
    return values.astype(np.float32)


def _joined(pieces: Iterable[Array]) -> dict[str, Array]:
    """Separate lines as one trace, with gaps between them."""
    listed = list(pieces)
    width = listed[0].shape[1] if listed else 2
    gap = np.full((1, width), np.nan)
    rows = np.concatenate([part for piece in listed for part in (piece, gap)] or [gap])
    return dict(zip("xyz", rows.astype(np.float32).T, strict=False))


def _raised(line: Line, relief: Relief) -> Array:
    """A contour line just above the drawn surface."""
    height = relief.levels.scaled(np.full(len(line.points), relief.levels.values[line.level]))
    return lifted(relief, line.points, height, 0.004)


@dataclass(frozen=True)
class _Label:
    """The number on a contour line: which line, where, and what it says."""

    level: int
    place: Array
    text: str


def _labels(relief: Relief, valley: Sequence[Array]) -> list[_Label]:
    """One per line that carries its height, on its longest piece; none where there is no room.

    They stay apart from each other, from the start, the minima and the valley line.
    """
    left, right, bottom, top = relief.surface.region
    size = np.array([right - left, top - bottom])
    middle = np.array([left, bottom]) + size / 2
    taken = [np.asarray(relief.surface.start), *map(np.asarray, relief.surface.minima)]
    found = []
    for index in relief.levels.labelled:
        pieces = [line for line in relief.lines if line.level == index]
        points = max(pieces, key=lambda line: line.length).points if pieces else np.empty((0, 2))
        points = points[(np.abs(points - middle) < 0.46 * size).all(axis=1)]
        if not len(points):
            continue
        apart = _distances(points / size, np.array(taken) / size)
        clear = _distances(points / size, np.concatenate([*valley, [[np.inf] * 2]]) / size)
        room = np.minimum(apart, 0.25) + 3 * np.minimum(clear, 0.06)
        best = int(np.argmax(room))
        if apart[best] > 0.045 and clear[best] > 0.018:
            taken.append(points[best])
            found.append(_Label(index, points[best], relief.levels.label(index)))
    return found


def _distances(points: Array, others: Array) -> Array:
    """From each point to the nearest of others."""
    nearest: Array = np.min([np.hypot(*(points - other).T) for other in others], axis=0)
    return nearest


def _broken(line: Line, labels: Sequence[_Label], surface: Surface) -> Array:
    """A contour line with a gap where its number stands."""
    left, right, bottom, top = surface.region
    room = np.array([right - left, top - bottom]) * [0.03, 0.022]
    points = line.points.copy()
    for label in labels:
        if label.level == line.level:
            points[np.hypot(*((points - label.place) / room).T) < 1] = np.nan
    return points
