"""The time of elementary functions in a kernel: ours, the mathematical library's, and torch's.

Each kernel reads 8 M float32 and writes f of them, on one thread; ``copy`` is the same kernel
without f, the least that memory allows. Figures are medians over rounds in which all are timed one
after another.

    python -m benchmarks.elementary
"""

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import Parameter

from benchmarks.steps import Step, timed
from thalweg.engine.backends.cpu import spelling
from thalweg.optim.optimizer import MODES, Optimizer
from thalweg.rule import Rule, functions

FUNCTIONS = ["atan", "exp", "expm1", "log", "log1p", "sigmoid", "tanh"]
COUNT = 2**23


@dataclass(frozen=True)
class Row:
    """Nanoseconds an element."""

    function: str
    ours: float
    library: float
    torch: float
    copy: float


def measure(rounds: int = 15) -> Iterator[Row]:
    """One row for each function."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x = torch.randn(COUNT, generator=torch.Generator().manual_seed(0)).abs() + 0.1
        copy, out = _step(None, x), torch.empty_like(x)
        for name in FUNCTIONS:
            function = getattr(torch, name)
            ours = _step(name, x)
            with mock.patch.dict(spelling.SPELLED_IN, float32=spelling._SPELLED):
                library = _step(name, x)
            steps = [ours, library, lambda f=function: f(x, out=out), copy]
            medians = [statistics.median(times) for times in timed(steps, rounds, 1)]
            yield Row(name, *(1e6 * milliseconds / COUNT for milliseconds in medians))
    finally:
        torch.set_num_threads(threads)


def _step(name: str | None, x: torch.Tensor) -> Step:
    """p <- f(g), compiled; p <- g without a name."""
    function = getattr(functions, name) if name else lambda g: g
    rule = Rule(lambda p, g, s, h: function(g), name=f"only_{name or 'copy'}")
    cls = type("Anonymous", (Optimizer,), {"rule": rule, "ranges": {}})
    p = Parameter(torch.empty_like(x))
    p.grad = x
    optimizer = cls([p], {**MODES, "fused": True})
    optimizer.step()
    return optimizer.step


def main() -> list[dict[str, Any]]:
    """Measure, print, and return the figures."""
    rows = list(measure())
    table = Table(
        title="elementary functions: nanoseconds an element (fp32, one thread)",
        title_justify="left",
    )
    table.add_column("function")
    for heading in ("thalweg", "library's in the kernel", "torch", "copy"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = (row.ours, row.library, row.torch, row.copy)
        table.add_row(row.function, *(f"{figure:.2f}" for figure in figures))
    Console(width=100).print(table)
    return [asdict(row) for row in rows]


if __name__ == "__main__":
    main()
