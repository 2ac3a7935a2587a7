"""What the tables of a checkpoint are made of."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from thalweg.checkpoint.entries import Stored, Value, written
from thalweg.cli.printing import escaped
from thalweg.race.report.formats import counted, format_count

ROWS = 40  # of a table, unless all are asked for
LONG = 160  # letters of a value
ALARM, HEAD, ASIDE = "bold red", "bold", "dim"


def pairs() -> Table:
    """A table of names and what they stand for."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    return table


def columns(*heads: str, fold: bool = False) -> Table:
    """A table without lines, whose first column holds names.

    Args:
        heads: with ">" before those of numbers.
        fold: what does not fit goes on below, in all columns of text; else in the first.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for i, head in enumerate(heads):
        right = head.startswith(">")
        lines = [escaped(line) for line in head.removeprefix(">").split("\n")]
        table.add_column(
            Text("\n").join(lines),
            justify="right" if right else "left",
            no_wrap=right or (i > 0 and not fold),
            overflow="fold",
        )
    return table


def cut(rows: Sequence[Any], everything: bool, keep: Any = None) -> tuple[list[Any], list[Text]]:
    """The first rows and all that must be kept, and a line that tells how many are left out."""
    kept = [
        row for i, row in enumerate(rows)
        if everything or i < ROWS or (keep is not None and keep(row))
    ]  # fmt: skip
    left = len(rows) - len(kept)
    return kept, [Text(f"… {counted(left, 'more row')}: --all", ASIDE)] if left else []


def alarm(entry: Stored | Value) -> str:
    """What is not finite in it."""
    if isinstance(entry, Value):
        return "NaN"
    counts = {"NaN": entry.numbers.nan, "infinite": entry.numbers.infinite}
    return ", ".join(f"{format_count(count)} {what}" for what, count in counts.items() if count)


def value(data: Any, everything: bool) -> Text:
    """A plain value as Python writes it; a long one ends in dots."""
    text = written(data.item() if hasattr(data, "item") and not data.ndim else data)
    return escaped(text if everything else short(text))


def short(text: str) -> str:
    """The text as far as can be read with ease."""
    return text if len(text) <= LONG else f"{text[:LONG]}…"


def shape(lengths: Sequence[int]) -> str:
    """
    >>> shape((8, 1, 3)), shape(())
    ('8×1×3', 'scalar')
    """
    return "×".join(map(str, lengths)) or "scalar"


def size(count: float) -> str:
    """Bytes in the unit that fits.

    >>> size(288), size(54_900), size(999_600), size(6e9)
    ('288 B', '54.9 kB', '1 MB', '6 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
