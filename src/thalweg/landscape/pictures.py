"""Still pictures of surfaces and trajectories, and the GIF of many at once, by matplotlib."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.landscape.contours import Line, Relief
from thalweg.landscape.perspective import TALL, depth, drawn, lifted, raised, viewpoint
from thalweg.landscape.surfaces import Array, Surface
from thalweg.landscape.trajectory import Trajectory
from thalweg.landscape.valley import valley_if_known
from thalweg.page import needs, styles_of
from thalweg.page.colours import Style
from thalweg.page.figures import BACK, DASHES, FAINT, GRID, INK, MUTED, blank, save, style

__all__ = ["draw_contours", "draw_surface", "save"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = "#87919c"
LOW, HIGH = "#d9e4ee", "#ffffff"  # fill: the deeper, the darker
LEGEND: dict[str, Any] = {"fontsize": 9, "handlelength": 2.6, "labelspacing": 0.65}


def draw_contours(
    surface: Surface,
    trajectories: Sequence[Trajectory] = (),
    *,
    valley: bool = True,
    size: tuple[float, float] | None = None,
) -> "Figure":
    """A contour map: lines with their heights, minima, the valley line, and trajectories.

    Each trajectory is a line from a ring, the start, to a disc, the end; a cross in place of the
    disc if it diverged. What lies outside the region is cut off. x and y have one scale, so that
    angles are true.

    Args:
        surface: what to draw.
        trajectories: paths over it (default: none), in the order of the legend.
        valley: draw the valley line (default: True), if the surface has a minimum or a direction
            ``across`` to take it from.
        size: of the picture in inches, width and height, each > 0 (default: 8 wide, and as high as
            the map then is).

    Returns:
        A figure without any connection to ``pyplot``; see :func:`save`.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says what to install.
        ValueError: the surface is nowhere finite.
    """
    with style():
        figure, ax = blank(_fitting(surface) if size is None else size)
        draw_map(ax, Relief(surface), valley)
        draw_starts(ax, trajectories)
        styles = styles_of(trajectory.name for trajectory in trajectories)
        for trajectory in trajectories:
            line, end = draw_path(ax, trajectory, styles[trajectory.name])
            line.set_data(*trajectory.points.T)
            end.set_data(*trajectory.points[-1:].T)
        draw_legend(ax)
    return figure


def draw_surface(
    surface: Surface,
    trajectories: Sequence[Trajectory] = (),
    *,
    size: tuple[float, float] = (8.0, 6.0),
) -> "Figure":
    """The surface in three dimensions, with contour lines and trajectories on it.

    Where contour lines are equally far apart in log height, the vertical axis is log height too;
    what is lower than the lowest line by a whole interval is drawn at that height. Parts of
    trajectories outside the region are left out.

    Args:
        surface: what to draw.
        trajectories: paths over it (default: none), in the order of the legend.
        size: of the picture in inches, width and height (default: 8 by 6), each > 0.

    Returns:
        A figure without any connection to ``pyplot``; see :func:`save`.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says what to install.
        ValueError: the surface is nowhere finite.
    """
    needs("mpl_toolkits.mplot3d")  # knows the projection
    relief = Relief(surface)
    at = relief.levels
    with style():
        figure, ax = blank(size, projection="3d", computed_zorder=False)
        x, y, z = drawn(relief)
        ax.plot_surface(
            *np.meshgrid(x, y), z, rcount=len(x), ccount=len(y),
            cmap=_colormap("#8fa9c2", "#eef2f6"), linewidth=0, alpha=0.75, zorder=1,
        )  # fmt: skip
        for line in relief.lines:
            height = at.scaled(np.full(len(line.points), at.values[line.level]))
            ax.plot(
                *lifted(relief, line.points, height, 0.0).T,
                color=MUTED,
                lw=0.5,
                alpha=0.6,
                zorder=2,
            )
        styles = styles_of(trajectory.name for trajectory in trajectories)
        for i, trajectory in enumerate(trajectories):
            look = styles[trajectory.name]
            path = raised(relief, trajectory)
            ax.plot(
                *path.T, color=look.colour, ls=DASHES[look.dash], lw=1.8, label=trajectory.name,
                zorder=4 + i,
            )  # fmt: skip
            ends = path[np.isfinite(path).all(axis=1)][-1:]
            ax.plot(*ends.T, "o", color=look.colour, ms=6, mec=BACK, mew=0.8, zorder=50 + i)
        ax.set(xlabel="x", ylabel="y", zlabel="height, log scale" if at.logarithmic else "height")
        _height_ticks(ax.zaxis, relief)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.set_pane_color((1, 1, 1, 0))
            axis.line.set_color(FAINT)
            axis._axinfo["grid"].update(color=GRID, linewidth=0.6)
        turn, rise = viewpoint(relief, trajectories)
        ax.view_init(azim=turn, elev=rise)
        ax.set_box_aspect((1, depth(relief), TALL), zoom=1.0)
        _title(ax, surface, relief)
        if trajectories:
            figure.legend(loc="outside right upper", **LEGEND)
    return figure


def _fitting(surface: Surface) -> tuple[float, float]:
    """A size that a map fills: 5.5 inches are its width, the rest is for text."""
    return 8.0, min(max(5.5 * surface.ratio + 1.4, 4.5), 8.0)


def _colormap(low: str, high: str) -> Any:
    return needs("matplotlib.colors").LinearSegmentedColormap.from_list("fill", [low, high])


def _title(ax: Any, surface: Surface, relief: Relief) -> None:
    width = ax.figure.get_size_inches()[0]
    formula = textwrap.wrap(surface.formula, round(10 * width), subsequent_indent="      ")
    texts = (
        ax.set_title(surface.name, loc="left", pad=11 + 13 * len(formula)),
        ax.annotate(
            "\n".join(formula), (0, 1), (0, 8), xycoords="axes fraction",
            textcoords="offset points", color=MUTED, linespacing=1.3,
        ),
    )  # fmt: skip
    for text in texts[1:]:
        text.set_in_layout(False)  # The title makes room for it; sideways it may go on.
    ax.figure.supxlabel(textwrap.fill(relief.levels.rule, round(14 * width)), size=8.5, color=MUTED)


def draw_map(ax: "Axes", relief: Relief, valley: bool) -> None:
    """Everything but the trajectories."""
    surface, at = relief.surface, relief.levels
    left, right, bottom, top = surface.region
    halo = [needs("matplotlib.patheffects").withStroke(linewidth=2, foreground=BACK)]
    ax.imshow(
        relief.scaled, extent=surface.region, origin="lower", interpolation="bilinear",
        cmap=_colormap(LOW, HIGH), aspect="auto", zorder=0,
    )  # fmt: skip
    labelled = _to_label(relief)
    for carry in (False, True):
        segments: list[list[Array]] = [[] for _ in at.values]
        for line in relief.lines:
            if (line in labelled) == carry:
                segments[line.level].append(line.points)
        if not any(segments):
            continue  # all lines carry their height, or none does
        drawn = needs("matplotlib.contour").ContourSet(
            ax, list(at.values), segments, colors=[LINES], linestyles="solid", zorder=1,
            linewidths=[1.0 if i in at.labelled else 0.5 for i in range(len(at.values))],
        )  # fmt: skip
        if carry:
            names = {value: at.label(i) for i, value in enumerate(at.values)}
            heights = [value for value, found in zip(at.values, segments, strict=True) if found]
            for text in ax.clabel(
                drawn, heights, fmt=names, fontsize=8, colors=MUTED, inline_spacing=3
            ):
                text.set_path_effects(halo)
    for i, points in enumerate(valley_if_known(surface) if valley else ()):
        name = "valley line" if i == 0 else None
        ax.plot(*points.T, color=INK, lw=1.1, label=name, zorder=2)
    if surface.minima:
        name = "minimum" if len(surface.minima) == 1 else "minima"
        ax.plot(
            *np.array(surface.minima).T, "*", color=INK, mec=BACK, mew=0.6, ms=11, ls="",
            label=name, zorder=60,
        )  # fmt: skip
    ax.set(xlim=(left, right), ylim=(bottom, top), xlabel="x", ylabel="y")
    # Ticks that do not depend on the size: the layout would not know how wide their labels get.
    ax.locator_params(nbins=6)
    ax.set_aspect("equal" if surface.one_scale else "auto")
    _title(ax, surface, relief)


def _to_label(relief: Relief) -> set[Line]:
    """The longest two pieces of each line that carries its height, if there is room on them."""
    left, right, _, _ = relief.surface.region
    found: set[Line] = set()
    for index in relief.levels.labelled:
        pieces = sorted(
            (line for line in relief.lines if line.level == index), key=lambda p: p.length
        )
        found |= {line for line in pieces[-2:] if line.length > 0.25 * (right - left)}
    return found


def draw_path(ax: "Axes", trajectory: Trajectory, look: Style) -> tuple[Any, Any]:
    """The still empty line of a trajectory, and the mark at its end."""
    casing = needs("matplotlib.patheffects").withStroke(linewidth=3, foreground=BACK, alpha=0.7)
    name = f"{trajectory.name} (diverged)" if trajectory.diverged else trajectory.name
    (line,) = ax.plot(
        [], [], color=look.colour, ls=DASHES[look.dash], lw=1.7, label=name, zorder=5,
        path_effects=[casing, needs("matplotlib.patheffects").Normal()],
    )  # fmt: skip
    mark = "X" if trajectory.diverged else "o"
    (end,) = ax.plot([], [], mark, color=look.colour, ms=7.5, mec=BACK, mew=0.9, zorder=70)
    return line, end


def draw_starts(ax: "Axes", trajectories: Sequence[Trajectory]) -> None:
    starts = {tuple(trajectory.points[0]) for trajectory in trajectories}
    if starts:
        ax.plot(
            *np.array(sorted(starts)).T, "o", color="none", mec=INK, mew=1.3, ms=9, ls="",
            label="start", zorder=65,
        )  # fmt: skip


def draw_legend(ax: "Axes") -> None:
    """To the right of the map, never on it."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=1.2, **LEGEND)


def _height_ticks(axis: Any, relief: Relief) -> None:
    """Ticks at the heights that the lines carry."""
    at = relief.levels
    shown = at.labelled[:: max(1, -(-len(at.labelled) // 5))]
    places = at.scaled(np.array([at.values[i] for i in shown]))
    axis.set_ticks(places, [at.label(i) for i in shown])
