"""What all pictures of the documentation share: their looks, their titles, and their files."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SIZE = (4.4, 2.5)  # inches
INK, LINES = "#4d4d4d", ("#1b6e8c", "#cc7a29", "#7d6ba0")
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "savefig.facecolor": "#fcfcfc",  # the page's
    "axes.facecolor": "#fcfcfc",
    "axes.edgecolor": "#9a9a9a",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.5,
    "svg.hashsalt": "thalweg",  # the same picture is the same file
}
ABOVE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
LEGEND: dict[str, Any] = {"ncols": 3, "handlelength": 1.4, "columnspacing": 1.4}


def titled(title: str) -> Figure:
    """An empty figure with the expression that it shows above it."""
    figure = Figure(figsize=SIZE, layout="constrained")
    looks = {"fontfamily": "DejaVu Sans Mono", "fontsize": 7, "color": "#222222"}
    figure.suptitle(title, x=0.01, horizontalalignment="left", **looks)
    return figure


def legend(axes: Axes) -> None:
    """Name the lines, above the panel."""
    axes.legend(**ABOVE, **LEGEND)


def write(figures: Iterable[tuple[str, Figure]], folder: Path) -> None:
    """Draw figures into a folder; a file that is right already is left alone, others go."""
    folder.mkdir(exist_ok=True)
    kept = set()
    with matplotlib.rc_context(STYLE):
        for name, figure in figures:
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            path = folder / f"{name}.svg"
            # `mkdocs serve` builds again when a file changes.
            if not path.exists() or path.read_text(encoding="utf-8") != text.getvalue():
                path.write_text(text.getvalue(), encoding="utf-8")
            kept.add(path)
    for path in set(folder.glob("*.svg")) - kept:
        path.unlink()
