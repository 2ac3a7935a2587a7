"""What a page is made of: text, tables, charts and animations, as plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Text:
    """Paragraphs.

    Attributes:
        paragraphs: plain text, one entry each.
        note: set apart, for what a reader must know before the rest.
    """

    paragraphs: Sequence[str]
    note: bool = False


@dataclass(frozen=True)
class Code:
    """Lines to copy, say a command.

    Attributes:
        text: shown as it is; long lines scroll.
        caption: below it.
    """

    text: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under headers; the first column stays in view where the rest must scroll.

    Attributes:
        title: above it.
        headers: of the columns.
        rows: of as many cells as there are headers, all text.
        caption: below it.
        numeric: indices of the columns that are set to the right.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: Sequence[int] = ()

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.headers):
                raise ValueError(
                    f"Table: rows[{i}] must have {len(self.headers)} cells, one per header, "
                    f"got {len(row)}"
                )


@dataclass(frozen=True, eq=False)
class Chart:
    """A plotly figure.

    The page sets fonts, grid and background for light and dark, so leave them out of the figure.
    Traces that have a name (and not ``showlegend=False``) are listed in a legend below the
    chart, which switches them on and off, together with all traces of the same ``legendgroup``.
    A trace with ``meta="ink"``, ``"muted"`` or ``"faint"`` has that colour of the page, of which
    light and dark have each their own; so have shapes without a colour. A heatmap with
    ``meta="fill"`` and a surface with ``meta="relief"`` are shaded in the page's colours.

    Attributes:
        title: above it, set as text; leave the figure's own title out.
        figure: a ``plotly.graph_objects.Figure``.
        caption: below it: how to read it.
        height: in pixels, without title and legend.
    """

    title: str
    figure: Any
    caption: str = ""
    height: int = 420


@dataclass(frozen=True, eq=False)
class Track:
    """A path that an animation draws step by step.

    Attributes:
        name: for the legend; decides the colour.
        x: position at each step.
        y: likewise, as many.
        z: likewise for three dimensions.
        values: shown beside the name at each step, say the loss.
        note: shown beside the name, say "diverged".
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    z: Sequence[float] | None = None
    values: Sequence[float] = ()
    note: str = ""

    def __post_init__(self) -> None:
        lengths = {"y": self.y, "z": self.z, "values": self.values if len(self.values) else None}
        for name, found in lengths.items():
            if found is not None and len(found) != len(self.x):
                raise ValueError(
                    f"Track: {name} of {self.name!r} must be as long as x ({len(self.x)}), "
                    f"got {len(found)}"
                )
        if not len(self.x):
            raise ValueError(f"Track: x of {self.name!r} must not be empty; leave the track out")


@dataclass(frozen=True, eq=False)
class Animation:
    """Paths that grow over a still background, with buttons to play, pause and go to a step.

    Attributes:
        title: above it.
        figure: the background, a ``plotly.graph_objects.Figure``; as in :class:`Chart`.
        tracks: the paths, at least one; those that are shorter wait at their end.
        caption: below it.
        height: in pixels, without title, controls and legend.
        steps: the number that is shown at each position of the longest track; empty for 0, 1, 2...
    """

    title: str
    figure: Any
    tracks: Sequence[Track]
    caption: str = ""
    height: int = 520
    steps: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not self.tracks:
            raise ValueError("Animation: tracks must not be empty; use a Chart without any")
        longest = max(len(track.x) for track in self.tracks)
        if len(self.steps) not in (0, longest):
            raise ValueError(
                f"Animation: steps must be as long as the longest track ({longest}), "
                f"got {len(self.steps)}"
            )


@dataclass(frozen=True)
class Row:
    """Parts side by side where there is room, otherwise below each other.

    Attributes:
        parts: two or three of them.
    """

    parts: "Sequence[Part]"


Part = Text | Code | Table | Chart | Animation | Row


@dataclass(frozen=True)
class Section:
    """A heading and what belongs under it.

    Attributes:
        heading: also in the list of contents, where there are several.
        parts: in order.
    """

    heading: str
    parts: Sequence[Part]
