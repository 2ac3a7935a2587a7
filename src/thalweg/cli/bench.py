"""``thalweg bench``."""

from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from thalweg.cli.printing import aside, print_json, print_rich
from thalweg.cli.progress import progress
from thalweg.race.bench import SMALL, Timed, parameters_of
from thalweg.race.bench import bench as time_all
from thalweg.race.racers import RACERS, find_all, split_specs
from thalweg.race.report.formats import MISSING, counted, format_factor

WIDTH = 76


def bench(
    model: Annotated[
        str, typer.Option(help="my_module:build, which returns a model or its parameters.")
    ] = SMALL,
    optimizers: Annotated[
        str, typer.Option(help="Separated by commas, options in parentheses (default: all).")
    ] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Steps timed per optimizer.")] = 100,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch and thalweg (default: torch's choice).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not the table.")] = False,
) -> None:
    """Time steps on your own model, beside torch.optim.

    Each optimizer is timed in turn with torch's class of the same name. build is a function without
    arguments in a module of the current folder. Gradients are random, of each parameter's dtype and
    layout; nothing is trained. Without --model it is a transformer of 4 layers of width 128.

    [bold]Examples[/bold]

    \b
      thalweg bench
      thalweg bench --model my_module:build --optimizers "adamw,sgd(momentum=0.9)"
    """
    with aside():
        racers = find_all(
            split_specs(optimizers) if optimizers else [racer.name for racer in RACERS]
        )
        make = parameters_of(model)
    if threads is not None:
        torch.set_num_threads(threads)
    with progress("bench") as tell, aside():
        timed = time_all(make, racers, repeats, lambda done, name: tell(done / len(racers), name))
    sizes = [p.numel() for p in make()]
    if as_json:
        print_json(
            {
                "model": model,
                "tensors": len(sizes),
                "elements": sum(sizes),
                "threads": torch.get_num_threads(),
                "optimizers": [_plain(each) for each in timed],
            }
        )
    else:
        print_rich(_report(timed, model, sizes), WIDTH)


def _plain(timed: Timed) -> dict[str, Any]:
    data = asdict(timed)
    if timed.time is not None:
        data["time"]["ratio"] = timed.time.ratio
    return data


def _report(timed: tuple[Timed, ...], model: str, sizes: list[int]) -> Group:
    shown = "a transformer of 4 layers of width 128" if model == SMALL else model
    title = (
        f"{shown}: {counted(len(sizes), 'tensor')}, {counted(sum(sizes), 'element')}, "
        f"{counted(torch.get_num_threads(), 'thread')}"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("\noptimizer", no_wrap=True)
    for head in ("step\nµs", "torch's\nµs", "×\ntorch", "first step\ns", "state\nB/param"):
        table.add_column(head, justify="right", no_wrap=True)
    for each in timed:
        table.add_row(each.name, *_cells(each))
    notes = [f"{each.name}: {each.failed}" for each in timed if each.failed]
    meaning = (
        "Medians of steps made in turn with torch's class of the same name, in its default form. "
        "× torch: how many steps fit into one of torch's. First step: with tracing, and compiling "
        "the kernel or loading it from the cache. LBFGS: per gradient evaluated."
    )
    return Group(Text(title), table, Text(), *map(Text, notes), Text(meaning, style="dim"))


def _cells(timed: Timed) -> tuple[str, ...]:
    if (time := timed.time) is None:
        return (MISSING,) * 5
    return (
        f"{time.own_us:,.1f}",
        MISSING if time.torch_us is None else f"{time.torch_us:,.1f}",
        MISSING if time.ratio is None else f"{format_factor(time.ratio)}×",
        f"{time.first_step_s:.3f}",
        f"{time.state_bytes:.1f}",
    )
