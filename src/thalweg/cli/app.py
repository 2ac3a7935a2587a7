"""The command line put together; each command is a file of its own."""

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

import thalweg
from thalweg.cli.bench import bench
from thalweg.cli.config import config
from thalweg.cli.doctor import doctor
from thalweg.cli.explain import explain
from thalweg.cli.inspect import inspect as inspect_
from thalweg.cli.landscape import landscape
from thalweg.cli.list import list_
from thalweg.cli.lr_find import lr_find
from thalweg.cli.mistakes import Commands
from thalweg.cli.plot_schedule import plot_schedule
from thalweg.cli.race import race

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Each command explains itself, with examples: thalweg race --help",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"thalweg {thalweg.__version__}")
        raise typer.Exit


def _thalweg(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Optimizers for PyTorch, each written once as its formula.

    Exit codes: 0 done; 1 something outside failed, as a package that is missing or a folder that
    cannot be written, or the doctor found a mistake; 2 a mistake in the arguments; 130 interrupted.
    """


def _help(command: Callable[..., None]) -> str:
    """A docstring for rich, which keeps each line end: only blocks after a backspace have any."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(
        text.removeprefix("\b\n") if text.startswith("\b") else " ".join(text.split())
        for text in paragraphs
    )


COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Compare optimizers": {"race": race, "bench": bench, "landscape": landscape},
    "Choose rates": {"lr-find": lr_find, "plot-schedule": plot_schedule},
    "Look up": {"inspect": inspect_, "list": list_, "explain": explain, "config": config},
    "Check": {"doctor": doctor},
}

app.callback(help=_help(_thalweg))(_thalweg)
for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, help=_help(command), rich_help_panel=panel)(command)
