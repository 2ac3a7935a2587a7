"""The time of CTC, forward and backward: ours, and torch's.

Each round times both one after the other; figures are medians of rounds and of the rounds' ratios.

    python -m benchmarks.ctc
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as theirs
from rich.console import Console
from rich.table import Table

import thalweg.losses.ctc as ours
from benchmarks.steps import timed

# Time steps, samples, classes, labels; how often in a row; the ratio to torch wanted.
SIZES = [
    ((50, 4, 30, 10), 50, 1.0),
    ((150, 32, 80, 30), 5, 2.0),
    ((500, 16, 1000, 60), 1, 2.0),
]
ROUNDS = 15


@dataclass(frozen=True)
class Row:
    """Milliseconds of the loss and its gradient."""

    dtype: str
    size: str
    ours: float
    torch: float
    ratio: float
    wanted: float


def measure() -> Iterator[Row]:
    """One row for each dtype and size; the samples are of all lengths from a half up."""
    for dtype in (torch.float32, torch.float64):
        for (steps, samples, classes, labels), repeats, wanted in SIZES:
            torch.manual_seed(0)
            x = torch.randn(steps, samples, classes, dtype=dtype).log_softmax(-1).requires_grad_()
            targets = torch.randint(1, classes, (samples, labels))
            share = torch.linspace(0.5, 1.0, samples)
            lengths = (share * steps).long(), (share * labels).long()

            def step(function: Any, x: torch.Tensor = x, rest: Any = (targets, *lengths)) -> Any:
                def run() -> None:
                    x.grad = None
                    function(x, *rest).backward()

                return run

            steps_of: list[Callable[[], None]] = [step(m.ctc_loss) for m in (ours, theirs)]
            mine, other = timed(steps_of, ROUNDS, repeats)
            yield Row(
                str(dtype).removeprefix("torch."),
                f"T={steps} N={samples} C={classes} S={labels}",
                statistics.median(mine),
                statistics.median(other),
                statistics.median(t / o for o, t in zip(mine, other, strict=True)),
                wanted,
            )


def main() -> list[dict[str, Any]]:
    """Measure, print, and return the figures."""
    rows = list(measure())
    table = Table(title="ctc_loss, forward and backward: milliseconds", title_justify="left")
    table.add_column("dtype")
    table.add_column("size")
    for heading in ("thalweg", "torch", "torch / thalweg", "at least"):
        table.add_column(heading, justify="right")
    for row in rows:
        wanted = f"{row.wanted:g}" + ("" if row.ratio >= row.wanted else " (missed)")
        figures = f"{row.ours:.2f}", f"{row.torch:.2f}", f"{row.ratio:.2f}", wanted
        table.add_row(row.dtype, row.size, *figures)
    Console(width=100).print(table)
    return [asdict(row) for row in rows]


if __name__ == "__main__":
    main()
