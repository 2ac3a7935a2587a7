"""The picture of a range test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from thalweg.page.figures import FAINT, blank, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from thalweg.range_test.found import LRFound

LINE, MARK = "#0f7fd6", "#d95f02"  # apart for colour-blind readers, too


def write(found: LRFound, path: str | os.PathLike[str]) -> Axes:
    """Draw into a file, PNG or SVG by its suffix; see :meth:`LRFound.plot`."""
    with style():
        figure, axes = blank((7.0, 4.2))
        draw(found, axes)
    save(figure, path)
    made: Axes = axes
    return made


def draw(found: LRFound, axes: Axes) -> None:
    """Draw into axes."""
    axes.plot(found.rates, found.losses, ".", color=FAINT, markersize=3.5, label="one batch")
    axes.plot(found.rates, found.smoothed, color=LINE, linewidth=2, label="smoothed")
    low, high = _view(found)
    try:
        suggestion = found.suggestion
    except ValueError:
        title = "The loss never fell: no rate to suggest"
    else:
        axes.axvline(suggestion, color=MARK, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.annotate(
            f"{suggestion:.2g}",
            (suggestion, high),
            xytext=(-5, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            color=MARK,
            fontweight="bold",
        )
        title = f"Suggested learning rate: {suggestion:.2g}"
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xscale("log")
    axes.set_ylim(low, high)
    axes.set_xlabel("learning rate of one step, growing")
    axes.set_ylabel("training loss before it")
    axes.grid(True, which="major", color="#d9dce1", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", fontsize=9)


def _view(found: LRFound) -> tuple[float, float]:
    """Lowest and highest loss to show: what the fall takes, not the rise where it diverged."""
    lowest = min(found.losses)
    place = found.smoothed.index(min(found.smoothed))
    highest = max(*found.losses[: place + 1], found.smoothed[0])
    room = 0.08 * (highest - lowest) or 1.0
    return lowest - room, highest + 4 * room
