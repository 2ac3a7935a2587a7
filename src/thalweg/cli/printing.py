"""What commands print: JSON, tables, and where a file lies."""

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console


def print_json(data: Any) -> None:
    """Print data as JSON; what JSON has no form for, as text."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str, allow_nan=False))


def print_rich(renderable: Any, width: int) -> None:
    """Print a table of that width.

    A line that the terminal breaks can be read; a number that rich cuts off cannot.
    """
    console = Console()
    console.width = max(console.width, width)
    console.print(renderable)


def say_where(what: str, path: Path, *, beside_json: bool = False) -> None:
    """Say where a file lies; on stderr where stdout is for JSON alone."""
    typer.echo(f"{what}: {path}", err=beside_json)
