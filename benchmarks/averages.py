"""The time of keeping an average of the weights: ours, and torch's.

Two questions. What does ``update_parameters`` of an ``AveragedModel`` take beside torch's? And what
does a step of AdamW with an exponential moving average take: with the average folded into the
step's kernel, with our step and torch's ``AveragedModel``, with torch's fused step and torch's?

Figures are medians over rounds in which all are timed one after another, as in ``steps.py``.

    python -m benchmarks.averages
"""

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.optim.swa_utils as theirs
from rich.console import Console
from rich.table import Table
from torch import nn

import thalweg.optim as optim
import thalweg.optim.swa_utils as ours
from benchmarks.steps import SHAPES, Step, timed

DECAY = 0.999


class Flat(nn.Module):
    """All parameters in one list."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.all = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)


class Layered(nn.Module):
    """Two parameters a module, as models have them."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        layers = []
        for weight, bias in zip(shapes[::2], shapes[1::2], strict=True):
            layer = nn.Module()
            layer.weight = nn.Parameter(torch.randn(weight))
            layer.bias = nn.Parameter(torch.randn(bias))
            layers.append(layer)
        self.layers = nn.ModuleList(layers)


LARGE, SMALL = "one tensor of 16 M", "1000 tensors of 64"
# Name, model, and the ratio to torch that its average should at least have.
MODELS = [
    (LARGE, Flat, SHAPES[LARGE], 1.0),
    (SMALL, Flat, SHAPES[SMALL], 10.0),
    (f"{SMALL}, two a module", Layered, SHAPES[SMALL], 10.0),
]


@dataclass(frozen=True)
class Row:
    """Milliseconds of ours and of what it stands beside."""

    case: str
    what: str
    ours: float
    beside: str
    other: float
    ratio: float  # other / ours
    wanted: float


def measure(rounds: int = 15) -> Iterator[Row]:
    """Averages of models first, then steps with an average."""
    torch.manual_seed(0)
    for case, make, shapes, wanted in MODELS:
        yield from _updates(case, make(shapes), wanted, rounds)
    for case, make, shapes, _ in MODELS[:2]:
        yield from _steps(case, make(shapes), rounds)


def _updates(case: str, model: nn.Module, wanted: float, rounds: int) -> Iterator[Row]:
    for what, options in (("equal weights", lambda m: {}), ("EMA", _ema)):
        steps = [_update(m.AveragedModel(model, **options(m)), model) for m in (ours, theirs)]
        yield from _compared(case, f"AveragedModel, {what}", {"torch's": wanted}, steps, rounds)


def _ema(module: Any) -> dict[str, Any]:
    return {"multi_avg_fn": module.get_ema_multi_avg_fn(DECAY)}


def _update(average: Any, model: nn.Module) -> Step:
    for _ in range(3):  # the first updates make the plan
        average.update_parameters(model)
    return lambda: average.update_parameters(model)


def _steps(case: str, model: nn.Module, rounds: int) -> Iterator[Row]:
    params = list(model.parameters())
    for p in params:
        p.grad = torch.randn_like(p) * 1e-3
    folded, apart = optim.AdamW(params), optim.AdamW(params)
    ours.CarriedAverage(folded, decay=DECAY)
    fused = torch.optim.AdamW(params, fused=True)
    update = _update(theirs.AveragedModel(model, **_ema(theirs)), model)

    def ours_and_torchs() -> None:
        apart.step()
        update()

    def torchs() -> None:
        fused.step()
        update()

    for step in 3 * [folded.step, ours_and_torchs, torchs]:
        step()
    beside = {
        "our step and torch's AveragedModel": 1.0,
        "torch's fused step and AveragedModel": 1.0,
    }
    steps = [folded.step, ours_and_torchs, torchs]
    yield from _compared(case, "AdamW with an EMA, folded", beside, steps, rounds)


def _compared(
    case: str, what: str, beside: dict[str, float], steps: list[Step], rounds: int
) -> Iterator[Row]:
    """Ours is the first of the steps, ``beside`` names the others and the ratios wanted."""
    mine, *others = timed(steps, rounds, 1 if case == LARGE else 10)
    for (name, wanted), times in zip(beside.items(), others, strict=True):
        ratio = statistics.median(t / o for o, t in zip(mine, times, strict=True))
        yield Row(
            case, what, statistics.median(mine), name, statistics.median(times), ratio, wanted
        )


def main() -> list[dict[str, Any]]:
    """Measure, print, and return the figures."""
    return show("averages of weights", measure())


def show(title: str, found: Iterable[Row]) -> list[dict[str, Any]]:
    """Print rows as a table, and return them as plain data."""
    rows = list(found)
    table = Table(title=f"{title}: milliseconds (fp32)", title_justify="left")
    for heading in ("case", "what"):
        table.add_column(heading)
    table.add_column("thalweg", justify="right")
    table.add_column("beside")
    for heading in ("its time", "ratio", "at least"):
        table.add_column(heading, justify="right")
    for row in rows:
        wanted = f"{row.wanted:g}" + ("" if row.ratio >= row.wanted else " (missed)")
        figures = f"{row.ours:.3f}", row.beside, f"{row.other:.3f}", f"{row.ratio:.2f}", wanted
        table.add_row(row.case, row.what, *figures)
    Console(width=120).print(table)
    return [asdict(row) for row in rows]


if __name__ == "__main__":
    main()
