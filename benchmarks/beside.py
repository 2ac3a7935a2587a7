"""Two ways of doing the same, timed in turn: ours, and torch's.

Each round times both one after the other, short ones many times in a row; figures are medians of
rounds and of the rounds' ratios.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.steps import timed

Tensor = torch.Tensor


@dataclass(frozen=True)
class Row:
    """Microseconds of a loss and its gradient, and the ratio to torch's that is wanted."""

    loss: str
    size: str
    ours: float
    torch: float
    ratio: float
    wanted: float


def compare(
    loss: str,
    size: str,
    calls: tuple[Callable[..., Tensor], ...],
    operands: tuple[Any, ...],
    rounds: int,
    repeats: int,
    wanted: float,
) -> Row:
    """Time forward and backward of both on the same operands.

    Args:
        loss: a name for the table.
        size: of the operands, likewise.
        calls: ours and torch's, functions of the operands that return a scalar loss.
        operands: those that require a gradient get one.
        rounds: how often both are timed.
        repeats: how often each is called in a row.
        wanted: the least ratio of torch's time to ours.
    """
    leaves = [t for t in operands if isinstance(t, Tensor) and t.requires_grad]

    def step(call: Callable[..., Tensor]) -> Callable[[], None]:
        def run() -> None:
            for leaf in leaves:
                leaf.grad = None
            call(*operands).backward()

        return run

    mine, other = timed([step(call) for call in calls], rounds, repeats)
    return Row(
        loss,
        size,
        1e3 * statistics.median(mine),
        1e3 * statistics.median(other),
        statistics.median(t / o for o, t in zip(mine, other, strict=True)),
        wanted,
    )


def show(title: str, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Print rows as a table, and return them as plain data."""
    found = list(rows)
    table = Table(title=f"{title}, forward and backward: microseconds", title_justify="left")
    table.add_column("loss")
    for heading in ("size", "thalweg", "torch", "torch / thalweg", "at least"):
        table.add_column(heading, justify="right")
    for row in found:
        wanted = f"{row.wanted:g}" + ("" if row.ratio >= row.wanted else " (missed)")
        figures = f"{row.ours:.1f}", f"{row.torch:.1f}", f"{row.ratio:.2f}", wanted
        table.add_row(row.loss, row.size, *figures)
    Console(width=110).print(table)
    return [asdict(row) for row in found]
