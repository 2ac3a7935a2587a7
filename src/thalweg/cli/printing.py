"""What commands print: JSON, tables, and where a file lies."""

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from thalweg.names import printable

_ENDLESS = 100_000  # columns
_NARROWEST = 20, 10  # of names, and of remarks at a table's end


def aside() -> AbstractContextManager[Any]:
    """Within it, what a user's code prints goes to stderr: stdout is for the result alone."""
    return redirect_stdout(sys.stderr)


def say(text: str, *, err: bool = False) -> None:
    """Print lines, with escapes for what cannot be printed."""
    typer.echo(printable(text, keep="\n"), err=err)


def notice(text: str) -> None:
    """Tell the user something besides the result, on stderr."""
    say(f"thalweg: {text}", err=True)


def print_json(data: Any) -> None:
    """Print data as JSON; what JSON has no form for, as text."""
    say_json(json.dumps(data, indent=2, ensure_ascii=False, default=str, allow_nan=False) + "\n")


def say_json(text: str) -> None:
    """Print JSON. What a terminal obeys, of which JSON lets some stand in strings, is escaped."""
    plain = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    typer.echo("".join(plain), nl=False)


def print_rich(group: Group, width: int) -> None:
    """Print tables and text; text as wide as the terminal, up to a width that can be read.

    Tables have at least that width: a line that the terminal breaks can be read, a number that rich
    cuts off cannot.
    """
    console = Console()
    wide, narrow = max(console.width, width), min(console.width, width)
    for part in group.renderables:
        _set_width(console, wide if isinstance(part, Table) else narrow)
        console.print(part)


def print_wide(group: Group) -> None:
    """Print tables that begin with long names, and text.

    In a terminal names are folded where a table is too wide for it. Elsewhere a row is a line of
    whatever width: to be searched, not to be looked at.
    """
    console = Console()
    terminal = console.width if console.is_terminal else _ENDLESS
    for part in group.renderables:
        _set_width(console, max(terminal, _fit(console, part, terminal)))
        console.print(part)


def _set_width(console: Console, columns: int) -> None:
    console.size = (columns, console.height)  # a width alone is not heard in a dumb terminal


def _fit(console: Console, part: Any, terminal: int) -> int:
    """Make a table's first column as narrow as need be, and then its last if that is text.

    Returns:
        The width that the table needs then; 0 for what fits itself into any width.
    """
    if not isinstance(part, Table) or not all(column.no_wrap for column in part.columns[1:]):
        return 0
    options = console.options.update(width=_ENDLESS)
    over = console.measure(part, options=options).maximum - terminal
    ends = [part.columns[0], *(c for c in part.columns[-1:] if c.justify == "left")]
    for column, least in zip(ends, _NARROWEST, strict=False):
        if over <= 0:
            break
        width = max(cell_len(str(cell)) for cell in [column.header, *column.cells])
        column.max_width = min(width, max(least, width - over))
        column.no_wrap = False
        over -= width - column.max_width
    return terminal + over


class Name:
    """A name that may be long: where it must be folded, it is so after a dot or a slash.

    Args:
        text: the name.
    """

    def __init__(self, text: Text) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text.plain

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(_NARROWEST[0], self.text.cell_len), self.text.cell_len)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        rest, indent = self.text, ""
        while len(indent) + rest.cell_len > options.max_width:
            room = max(1, options.max_width - len(indent))
            while cell_len(rest.plain[:room]) > options.max_width - len(indent) and room > 1:
                room -= 1
            at = max((rest.plain.rfind(mark, 0, room) for mark in "./_"), default=-1) + 1
            line, rest = rest.divide([at if at > room // 3 else room])
            yield Text(indent).append_text(line)
            indent = "  "
        yield Text(indent).append_text(rest)


def escaped(text: str) -> Text:
    """Text from a file as it is, without markup; what cannot be printed is written as an escape.

    >>> str(escaped("[red]a\\x1b[0m"))
    '[red]a\\\\x1b[0m'
    """
    return Text(printable(text))


def say_where(what: str, path: Path, *, beside_json: bool = False) -> None:
    """Say where a file lies; on stderr where stdout is for JSON alone."""
    say(printable(f"{what}: {path}"), err=beside_json)
