"""``thalweg doctor``."""

from typing import Annotated, Any

import typer

from thalweg import doctor as look
from thalweg.cli.printing import print_json, say
from thalweg.race.objects import build

MISTAKE = 1  # exit code


def doctor(
    setup: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="A function that returns a model, its optimizer and, if any, its scheduler.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look for what goes wrong in training without a word.

    Parameters in no group or in two, decayed biases, embeddings under a rule for matrices, states
    of 16 bits, updates that are too small to be seen, schedulers that run ahead. The exit code is 1
    if there is a mistake among the findings.

    [bold]Examples[/bold]

    \b
      thalweg doctor train:build
      thalweg doctor train:build --json
    """
    made = build("doctor", setup)
    parts: Any = made if isinstance(made, (tuple, list)) else (made,)
    if len(parts) not in (2, 3):
        raise typer.BadParameter(
            f"{setup} must return a model and an optimizer, and may return a scheduler; it "
            f"returned {len(parts)} things",
            param_hint="MODULE:FUNCTION",
        )
    found = look(*parts)
    if as_json:
        findings = [{"check": f.check, "wrong": f.wrong, "text": f.text} for f in found]
        print_json({"healthy": found.healthy, "findings": findings})
    else:
        say(str(found))
    if not found.healthy:
        raise typer.Exit(MISTAKE)
