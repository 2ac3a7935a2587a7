"""``thalweg config``."""

from typing import Annotated

import typer

import thalweg
from thalweg.cli.printing import print_json, say
from thalweg.engine.explain import configuration


def config(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show versions, threads and the kernel cache."""
    if as_json:
        print_json(configuration())
    else:
        say(str(thalweg.show_config()))
