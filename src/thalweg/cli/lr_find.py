"""``thalweg lr-find``."""

from pathlib import Path
from typing import Annotated

import typer

from thalweg.cli.printing import aside, print_json, say, say_where
from thalweg.cli.progress import progress
from thalweg.page.figures import SUFFIXES
from thalweg.race.racers import find
from thalweg.race.rates import find_rate
from thalweg.race.report.formats import format_lr
from thalweg.race.tasks import find_task


def lr_find(
    task: Annotated[
        str, typer.Option(help="What is trained: a task of the race, or my_module:build.")
    ] = "digits",
    optimizer: Annotated[
        str, typer.Option(help="A name, with options in parentheses, or any class.")
    ] = "adamw",
    low: Annotated[float, typer.Option(help="The first rate.")] = 1e-7,
    high: Annotated[float, typer.Option(help="The last rate.")] = 10.0,
    steps: Annotated[int, typer.Option(min=3, help="How many rates.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the batches.")] = 0,
    out: Annotated[Path, typer.Option(help="Picture, .png or .svg.")] = Path("lr-find.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the curve as JSON.")] = False,
) -> None:
    """Suggest a learning rate.

    The range test: one training step at each of many growing rates. It shows from where on the loss
    falls, and where it rises again. In a program: thalweg.lr_find(model, data, optimizer, loss).

    [bold]Examples[/bold]

    \b
      thalweg lr-find
      thalweg lr-find --optimizer "sgd(momentum=0.9)" --task diabetes
      thalweg lr-find --task my_module:build --out mine.svg
    """
    if out.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(
            f"must end in {' or '.join(SUFFIXES)}, got {out}", param_hint="--out"
        )
    with aside():
        racer, chosen = find(optimizer), find_task(task)
    with progress("lr-find") as tell, aside():
        found = find_rate(
            chosen,
            racer,
            seed,
            low=low,
            high=high,
            steps=steps,
            progress=lambda done, total: tell(done / total, f"step {done} of {total}"),
        )
    found.plot(out)
    try:
        suggestion, complaint = found.suggestion, None
    except ValueError as error:
        suggestion, complaint = None, error
    if as_json:
        print_json(
            {
                "task": chosen.name,
                "optimizer": racer.name,
                "suggestion": suggestion,
                "diverged": found.diverged,
                "rates": found.rates,
                "losses": found.losses,
                "smoothed": found.smoothed,
            }
        )
    elif suggestion is not None:
        say(f"suggested learning rate for {racer.name} on {chosen.name}: {format_lr(suggestion)}")
    say_where("picture", out, beside_json=as_json)
    if complaint is not None:
        raise complaint
