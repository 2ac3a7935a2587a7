"""``thalweg plot-schedule``."""

import math
from pathlib import Path
from typing import Annotated

import typer

from thalweg import schedules
from thalweg.cli.printing import print_json, say, say_where
from thalweg.page.figures import SUFFIXES, blank, save, style

ROWS = 11  # of the values that are printed
MOST = 1_000_000  # steps that are drawn: each is evaluated


def plot_schedule(
    expression: Annotated[
        str, typer.Argument(help='Schedules put together, as "warmup(100) >> cosine(900)".')
    ],
    steps: Annotated[
        int | None, typer.Option(min=1, help="How far (default: until it ends).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Picture, .png or .svg.")] = Path("schedule.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print all values as JSON.")] = False,
) -> None:
    """Draw a learning-rate schedule, and print its values.

    An expression has schedules by name with their arguments (cosine(900) falls from 1 to 0 in 900
    steps), >> for one after the other, * and +, numbers, and the methods then, shifted, repeated
    and clamped. >> binds less than *: write 0.1 * (f >> g).

    [bold]Examples[/bold]

    \b
      thalweg plot-schedule "warmup(100) >> cosine(900)"
      thalweg plot-schedule "cosine(50).repeated()" --steps 200 --out waves.svg
    """
    schedule = schedules.parse(expression)
    if out.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(
            f"must end in {' or '.join(SUFFIXES)}, got {out}", param_hint="--out"
        )
    length = schedule.steps if steps is None else float(steps)
    if length == math.inf:
        raise typer.BadParameter(f"{expression} never ends; say how far", param_hint="--steps")
    if length <= 0:
        raise typer.BadParameter(f"{expression} has no length; say how far", param_hint="--steps")
    if length > MOST:
        raise typer.BadParameter(
            f"{expression} has {length:.0f} steps, of which at most {MOST} are drawn; say how far",
            param_hint="--steps",
        )
    last = max(t for t in range(math.floor(length) + 1) if t in schedule.domain)
    with style():
        figure, axes = blank((7.0, 3.6))
        schedule.plot(length, ax=axes)
        axes.set_title(expression, loc="left")
        axes.margins(x=0.01)
        axes.grid(True)
    save(figure, out)
    if as_json:
        values = [{"step": t, "value": schedule(t)} for t in range(last + 1)]
        print_json({"expression": expression, "schedule": repr(schedule), "values": values})
    else:
        say(f"{'step':>8}  value")
        for t in sorted({round(i * last / (ROWS - 1)) for i in range(ROWS)}):
            say(f"{t:>8}  {schedule(t):.6g}")
    say_where("picture", out, beside_json=as_json)
