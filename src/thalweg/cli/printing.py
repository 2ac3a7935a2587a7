"""What commands print: JSON, tables, and where a file lies."""

import json
import sys
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, Group
from rich.table import Table


def aside() -> AbstractContextManager[Any]:
    """Within it, what a user's code prints goes to stderr: stdout is for the result alone."""
    return redirect_stdout(sys.stderr)


def notice(text: str) -> None:
    """Tell the user something besides the result, on stderr."""
    typer.echo(f"thalweg: {text}", err=True)


def print_json(data: Any) -> None:
    """Print data as JSON; what JSON has no form for, as text."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str, allow_nan=False))


def print_rich(group: Group, width: int) -> None:
    """Print tables and text; text as wide as the terminal, up to a width that can be read.

    Tables have at least that width: a line that the terminal breaks can be read, a number that rich
    cuts off cannot.
    """
    console = Console()
    wide, narrow = max(console.width, width), min(console.width, width)
    for part in group.renderables:
        console.width = wide if isinstance(part, Table) else narrow
        console.print(part)


def say_where(what: str, path: Path, *, beside_json: bool = False) -> None:
    """Say where a file lies; on stderr where stdout is for JSON alone."""
    typer.echo(f"{what}: {path}", err=beside_json)
