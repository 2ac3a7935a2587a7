"""Still pictures by matplotlib: one style for all of them, and writing them to a file."""

import io
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.files import write_whole
from thalweg.page.extras import needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, FAINT, GRID, BACK = "#1d2127", "#5a626d", "#a3abb5", "#e2e6ea", "#ffffff"
# matplotlib's words for the dashes of thalweg.page.colours.
DASHES = {"solid": "-", "dash": (0, (4, 2)), "dot": (0, (1, 1.2)), "dashdot": (0, (5, 1.5, 1, 1.5))}
SUFFIXES = (".png", ".svg")
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same text everywhere
    "font.size": 9.0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "text.color": INK,
    "svg.hashsalt": "thalweg",  # for the ids in the file, which are random otherwise
}


def style() -> AbstractContextManager[None]:
    """Within it, figures are made in the style of all pictures; matplotlib's own settings return.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says what to install.
    """
    context: AbstractContextManager[None] = needs("matplotlib").rc_context(STYLE)
    return context


def blank(size: tuple[float, float], **subplot: Any) -> tuple["Figure", Any]:
    """An empty figure and its axes, without any connection to ``pyplot``.

    Args:
        size: width and height in inches.
        **subplot: for ``Figure.add_subplot``.
    """
    figure = needs("matplotlib.figure").Figure(figsize=size, layout="constrained")
    needs("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure, figure.add_subplot(**subplot)


def save(figure: "Figure", path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG or SVG, by the suffix, and give its path.

    The same figure gives the same bytes.

    Args:
        figure: of matplotlib.
        path: ends in ``.png`` (150 dots per inch) or ``.svg``.

    Raises:
        OSError: it cannot be written there; the message names the folder.
        ValueError: another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"save: path must end in one of {', '.join(SUFFIXES)}, got {os.fspath(path)!r}"
        )
    metadata = {"Date": None, "Creator": None} if suffix == ".svg" else {"Software": None}
    whole = io.BytesIO()
    with style():
        figure.savefig(whole, format=suffix[1:], dpi=150, metadata=metadata)
    return write_whole(path, whole.getvalue())
