"""``thalweg race``."""

from pathlib import Path
from typing import Annotated

import typer

from thalweg import race as racing
from thalweg.cli import INTERRUPTED
from thalweg.cli.printing import aside, notice, print_rich, say_json, say_where
from thalweg.cli.progress import progress
from thalweg.race import files
from thalweg.race.racers import find_all as find_optimizers
from thalweg.race.racers import split_specs
from thalweg.race.report.formats import format_lr
from thalweg.race.report.page import write_page
from thalweg.race.report.table import WIDTH, report
from thalweg.race.result import Result
from thalweg.race.run import Stage
from thalweg.race.tasks import find_all as find_tasks

PAGE = "race.html"


def race(
    preset: Annotated[
        str, typer.Option(help="small takes a minute, full up to 20; the options below change it.")
    ] = "small",
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task, or my_module:build; several times, or separated by commas."),
    ] = None,
    optimizers: Annotated[
        str, typer.Option(help="Separated by commas, options in parentheses (default: all).")
    ] = "",
    lrs: Annotated[
        int | None, typer.Option(min=1, help="Learning rates per optimizer, √10 apart.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Full runs per optimizer.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The first of the seeds.")] = None,
    length: Annotated[float | None, typer.Option(help="Factor on the steps of each task.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the result (default: race-PRESET).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished race in the folder.")
    ] = False,
    page: Annotated[bool, typer.Option(help="Write the result's page.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not the table.")] = False,
) -> None:
    """Compare optimizers on real data: a table and a page.

    Small networks are trained with each of them, at several learning rates. Every optimizer gets
    the same budget of trials, weights and batches. Ctrl-C keeps what is done; --resume goes on.

    [bold]Tasks[/bold] of the race: digits, breast_cancer, diabetes, transformer, embedding; or your
    own, a function in a module of the current folder.

    [bold]Optimizers[/bold]: a name, in any case; torch's, as torch.optim.Adam; or any class that
    can be imported, as my_module:MyClass.

    [bold]Examples[/bold]

    \b
      thalweg race
      thalweg race --optimizers "adamw, sgd(momentum=0.9), torch.optim.Adam"
      thalweg race --task my_module:build --seeds 5
      thalweg race --preset full --resume
    """
    folder = out or Path(f"race-{preset}")
    settings = racing.settings(
        preset,
        tasks=_listed(task),
        optimizers=split_specs(optimizers) if optimizers else None,
        learning_rates=lrs,
        seeds=seeds,
        seed=seed,
        length=length,
    )
    with aside():  # wrong names are told before the folder is touched
        find_optimizers(settings.optimizers)
        find_tasks(settings.tasks)
    latest = done = files.prepare(folder, resume, notice)

    def save(result: Result) -> None:
        nonlocal latest
        latest = result
        files.write_result(folder, result)

    interrupted = False
    try:
        with progress("race") as tell, aside():
            try:
                result = racing.race(
                    settings, done=done, save=save, progress=lambda stage: tell(*_told(stage))
                )
            except KeyboardInterrupt:
                if latest is None:
                    raise
                result, interrupted = latest, True
            if page:
                tell(1.0, "the page")
                write_page(result, folder / PAGE)
        if as_json:
            say_json(result.to_json())
        else:
            print_rich(report(result), WIDTH)
        if page:
            say_where("page", folder / PAGE, beside_json=as_json)
        say_where("result", folder / files.NAME, beside_json=as_json)
    except KeyboardInterrupt:  # while the page was drawn, or once more
        if latest is None:
            raise
        interrupted = True
    if interrupted:
        notice("interrupted; what is done is kept. Go on with the same command and --resume")
        raise typer.Exit(INTERRUPTED)


def _listed(options: list[str] | None) -> list[str] | None:
    """The specifications in options that may hold several each."""
    return [spec for option in options for spec in split_specs(option)] if options else None


def _told(stage: Stage) -> tuple[float, str]:
    rate = "timing" if stage.lr is None else f"lr {format_lr(stage.lr)}"
    return stage.fraction, f"{stage.task}, {stage.racer}, {rate}"
