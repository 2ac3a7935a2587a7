"""``thalweg inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from thalweg.checkpoint.contents import inspect as look
from thalweg.checkpoint.difference import diff as compare
from thalweg.checkpoint.header import CheckpointError
from thalweg.cli.contents import report
from thalweg.cli.difference import report as report_difference
from thalweg.cli.mistakes import OUTSIDE
from thalweg.cli.printing import notice, print_json, print_wide
from thalweg.cli.progress import progress


def inspect(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="A checkpoint; two with --diff.")
    ],
    diff: Annotated[bool, typer.Option("--diff", help="Compare two files.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Print every row and every value in full.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; always everything.")] = False,
) -> None:
    """Show what is in a checkpoint, or how two differ.

    Files of thalweg.checkpoint.save, other safetensors files, and files of torch.save, of which no
    code is run. A file that is damaged is exit code 1. Differences are not: it is 0 with them and
    without.

    [bold]Examples[/bold]

    \b
      thalweg inspect run/step-001000.safetensors
      thalweg inspect --diff old.safetensors new.safetensors
      thalweg inspect model.pt --json
    """
    if len(files) != 1 + diff:
        wanted = "two files with --diff" if diff else "one file, or two with --diff"
        raise typer.BadParameter(f"give {wanted}; got {len(files)}", param_hint="FILE")
    try:
        with progress("inspect") as tell:
            if diff:
                difference = compare(files[0], files[1], tell)
                data, shown = difference.to_dict(), report_difference(difference, everything)
            else:
                contents = look(files[0], tell)
                data, shown = contents.to_dict(), report(contents, everything)
    except CheckpointError as error:
        notice(str(error))
        raise typer.Exit(OUTSIDE) from None
    if as_json:
        print_json(data)
    else:
        print_wide(shown)
