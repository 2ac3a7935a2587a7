"""``thalweg landscape``."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from thalweg import schedules
from thalweg.cli.printing import print_json, say, say_where
from thalweg.cli.progress import progress
from thalweg.landscape import SCENES, SURFACES, Surface, Trajectory, trace
from thalweg.landscape.animation import write_page
from thalweg.landscape.catalogue import named
from thalweg.landscape.gif import write_gif
from thalweg.landscape.pictures import draw_contours
from thalweg.landscape.scenes import rates_of
from thalweg.optim.lr_scheduler import ScheduledHyperparameters
from thalweg.page.figures import SUFFIXES, save
from thalweg.race.racers import find_all, split_specs
from thalweg.race.report.formats import counted
from thalweg.schedules import Schedule

Make = partial[torch.optim.Optimizer]  # with the learning rate among its keywords

# On a surface that is no scene: rates with which most of the surfaces can be descended.
OPTIMIZERS = "sgd(lr=0.001),sgd(lr=0.001,momentum=0.9),rmsprop(lr=0.01),adam(lr=0.1)"
STEPS = 200
OUTPUTS = (*SUFFIXES, ".gif", ".html")
WIDTH = 80  # of the sentence on the rates
TRACING = 0.1  # of the time, where frames are drawn after it


def landscape(
    name: Annotated[
        str, typer.Argument(metavar="SURFACE|SCENE", help="For example rosenbrock, or ravine.")
    ],
    optimizers: Annotated[
        str,
        typer.Option(
            help="With their rates: sgd(lr=0.01),adam(lr=0.1). A scene has its own; on a surface "
            "SGD, with momentum or without, RMSprop and Adam."
        ),
    ] = "",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of each optimizer; a scene has its own.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="Where to begin: X,Y.", metavar="X,Y")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Factor on the rates, as plot-schedule takes it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help=".png, .svg, .gif or .html (default: SURFACE.png).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Let optimizers run down a surface: picture, GIF or page.

    [bold]Scenes[/bold], with optimizers, rates and a start of their own: ravine, saddle.

    [bold]Surfaces[/bold]: bowl, rosenbrock, beale, himmelblau, rastrigin, ackley, goldstein_price,
    monkey_saddle.

    [bold]Examples[/bold]

    \b
      thalweg landscape ravine --out ravine.gif
      thalweg landscape beale --optimizers "sgd(lr=0.01), adam" --out beale.html
      thalweg landscape himmelblau --start 0,0 --schedule "cosine(200)"
    """
    path = out or Path(f"{name}.png")
    if path.suffix.lower() not in OUTPUTS:
        raise typer.BadParameter(
            f"must end in {', '.join(OUTPUTS)}, got {path}", param_hint="--out"
        )
    surface, makes, begin, count = _chosen(name)
    if optimizers or not makes:
        racers = find_all(split_specs(optimizers or OPTIMIZERS))
        makes = {racer.name: partial(racer.make, lr=racer.centre) for racer in racers}
    begin = begin if start is None else _point(start)
    factor = None if schedule is None else partial(_scaled, schedules.parse(schedule))
    rates = {label: float(make.keywords["lr"]) for label, make in makes.items()}
    told = rates_of(rates)
    if schedule is not None:
        told += f" Each times {schedule}."
    paths: list[Trajectory] = []
    with progress("landscape") as tell:
        share = TRACING if path.suffix.lower() == ".gif" else 1.0
        for label, make in makes.items():
            tell(share * len(paths) / len(makes), label)
            try:
                paths.append(
                    trace(
                        surface, make, name=label, start=begin, steps=steps or count,
                        schedule=factor,
                    )
                )  # fmt: skip
            except RuntimeError as error:  # as SparseAdam, which takes no dense gradient
                raise ValueError(f"landscape: {label}: {error}") from error
        _draw(surface, paths, told, path, lambda i, n: tell(share + (1 - share) * i / n, "frames"))
    if as_json:
        print_json(
            {
                "surface": surface.name,
                "start": list(begin),
                "schedule": schedule,
                "paths": [
                    {
                        "optimizer": each.name,
                        "lr": rates[each.name],
                        "diverged": each.diverged,
                        "points": each.points.tolist(),
                        "values": each.values.tolist(),
                    }
                    for each in paths
                ],
            }
        )
    else:
        _print_ends(surface, paths)
        say(textwrap.fill(told, WIDTH))
    say_where("picture" if path.suffix != ".html" else "page", path, beside_json=as_json)


def _chosen(name: str) -> tuple[Surface, Mapping[str, Make], tuple[float, float], int]:
    """Surface, optimizers, start and steps of a scene; a surface has no optimizers of its own."""
    kinds: dict[str, Callable[[], Any]] = {**SURFACES, **SCENES}
    found = named("landscape", name, kinds)
    if isinstance(found, Surface):
        return found, {}, found.start, STEPS
    return found.surface, found.optimizers, found.start, found.steps


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"must be two numbers, as 0.5,-1; got {text!r}", param_hint="--start"
        ) from None
    return x, y


def _scaled(factor: Schedule, optimizer: torch.optim.Optimizer) -> ScheduledHyperparameters:
    return ScheduledHyperparameters(
        optimizer, lr=[float(group["lr"]) * factor for group in optimizer.param_groups]
    )


def _draw(
    surface: Surface,
    paths: Sequence[Trajectory],
    told: str,
    out: Path,
    frame_done: Callable[[int, int], None],
) -> None:
    match out.suffix.lower():
        case ".gif":
            write_gif(surface, paths, out, progress=frame_done)
        case ".html":
            write_page(out, surface, paths, text=told)
        case _:
            save(draw_contours(surface, paths), out)


def _print_ends(surface: Surface, paths: Sequence[Trajectory]) -> None:
    lowest = "" if surface.lowest is None else f"; the lowest is {surface.lowest:g}"
    say(f"{surface.name}: {surface.formula}\nWhere each optimizer ended{lowest}:")
    width = max(len(path.name) for path in paths)
    for path in paths:
        x, y = path.points[-1]
        diverged = ", diverged" if path.diverged else ""
        say(
            f"  {path.name:<{width}}  ({x:.4g}, {y:.4g})  value {path.values[-1]:.4g} after "
            f"{counted(len(path.points) - 1, 'step')}{diverged}"
        )
