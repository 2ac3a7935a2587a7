"""Each part of a page as HTML."""

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from thalweg.page.colours import PALETTE, styles_of
from thalweg.page.parts import Animation, Chart, Code, Part, Row, Table, Text, Track


def paragraphs(texts: Iterable[str]) -> str:
    """Each text as a paragraph."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


class Renderer:
    """Turns parts into HTML and numbers what has to be found by its name."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def part(self, part: Part) -> str:
        """One part; what it contains is escaped."""
        match part:
            case Text():
                kind = ' class="text note" role="note"' if part.note else ' class="text"'
                return f"<div{kind}>{paragraphs(part.paragraphs)}</div>\n"
            case Code():
                return (
                    f'<figure class="code"><pre tabindex="0"><code>{escape(part.text)}</code></pre>'
                    f"{_caption(part.caption)}</figure>\n"
                )
            case Row():
                return f'<div class="row">{"".join(map(self.part, part.parts))}</div>\n'
            case Table():
                return self._table(part)
            case Chart():
                data = _figure(part.figure)
                return self._drawn(part, "chart", data, controls="")
            case Animation():
                data = _figure(part.figure)
                styles = styles_of(track.name for track in part.tracks)
                data["tracks"] = [_track(track) | vars(styles[track.name]) for track in part.tracks]
                data["steps"] = [int(step) for step in part.steps]
                return self._drawn(part, "chart animation", data, _controls(part))
        raise TypeError(f"Page: a part must be one of thalweg.page's, got {type(part).__name__}")

    def _table(self, table: Table) -> str:
        name = f"t{next(self._numbers)}"
        numeric = set(table.numeric)

        def cell(text: str, i: int, tag: str, scope: str = "") -> str:
            where = f' scope="{scope}"' if scope else ""
            right = ' class="number"' if i in numeric else ""
            return f"<{tag}{where}{right}>{escape(text)}</{tag}>"

        def body(row: Sequence[str]) -> str:
            rest = "".join(cell(text, i, "td") for i, text in enumerate(row) if i)
            return f"<tr>{cell(row[0], 0, 'th', 'row')}{rest}</tr>\n"

        head = "".join(cell(text, i, "th", "col") for i, text in enumerate(table.headers))
        rows = "".join(map(body, table.rows))
        return (
            f'<figure class="table"><h3 id="{name}">{escape(table.title)}</h3>'
            f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">'
            f"<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
            f"{_caption(table.caption)}</figure>\n"
        )

    def _drawn(self, part: Chart | Animation, kind: str, data: Any, controls: str) -> str:
        data["colours"] = PALETTE
        label = escape(f"{part.title}. {part.caption}".strip(), quote=True)
        # "<" as \u003c: no text inside can end the script element.
        text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        return (
            f'<figure class="{kind}"><h3>{escape(part.title)}</h3>'
            f'<div class="plot" role="img" aria-label="{label}" style="height:{part.height:d}px">'
            f'</div>{controls}<ul class="legend" hidden></ul>{_caption(part.caption)}'
            f'<script type="application/json">{text}</script></figure>\n'
        )


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""


def _controls(part: Animation) -> str:
    last = max(len(track.x) for track in part.tracks) - 1
    shown = part.steps[last] if part.steps else last
    speeds = "".join(
        f'<option value="{speed}"{" selected" if speed == 1 else ""}>{speed}×</option>'
        for speed in (0.25, 0.5, 1, 2, 4)
    )
    return (
        f'<div class="controls" role="group" aria-label="{escape(part.title, quote=True)}">'
        '<button type="button" class="play">Play</button>'
        f'<input type="range" class="scrub" min="0" max="{last}" value="{last}" step="1" '
        'aria-label="Step">'
        f'<output class="step">step {shown} of {shown}</output>'
        '<label class="speed"><span>Speed</span> '
        f'<select aria-label="Speed">{speeds}</select></label></div>'
    )


def _figure(figure: Any) -> dict[str, Any]:
    """The figure's data and layout, without plotly's template: the page has its own."""
    data: dict[str, Any] = json.loads(figure.to_json())
    data["layout"].pop("template", None)
    return {"data": data["data"], "layout": data["layout"]}


def _track(track: Track) -> dict[str, Any]:
    def plain(values: Iterable[float]) -> list[float | None]:
        return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]

    return {
        "name": track.name,
        "note": track.note,
        "x": plain(track.x),
        "y": plain(track.y),
        "z": None if track.z is None else plain(track.z),
        "values": plain(track.values),
    }
