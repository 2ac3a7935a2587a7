"""The time of a loss, forward and backward: ours, and torch's.

Each round times both one after the other, small inputs many times in a row; figures are medians of
rounds and of the rounds' ratios.

    python -m benchmarks.losses
"""

import statistics
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as theirs
from rich.console import Console
from rich.table import Table

import thalweg.losses as ours
from benchmarks.steps import timed

Make = Callable[[int], tuple[torch.Tensor, ...]]


def _logits(n: int) -> tuple[torch.Tensor, ...]:
    return torch.randn(n), torch.rand(n)


def _probabilities(n: int) -> tuple[torch.Tensor, ...]:
    return torch.rand(n) * 0.98 + 0.01, torch.rand(n)


def _with_variance(n: int) -> tuple[torch.Tensor, ...]:
    return torch.randn(n), torch.randn(n), torch.rand(n) + 0.1


def _signs(n: int) -> tuple[torch.Tensor, ...]:
    return torch.randn(n), torch.randint(0, 2, (n,)).float() * 2 - 1


def _focal(input: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor:
    """The focal loss of Lin et al. in torch's operations, which has none of its own."""
    entropy = theirs.binary_cross_entropy_with_logits(input, target, reduction="none")
    p = torch.sigmoid(input)
    missed = p * (1 - target) + (1 - p) * target
    alpha = 0.25 * target + 0.75 * (1 - target)
    value = alpha * entropy * missed**2
    return value.mean() if reduction == "mean" else value


REFERENCES = {"sigmoid_focal_loss": _focal}

# Function, how its inputs are made, and the ratio to torch that 8 M elements should at least have.
LOSSES: list[tuple[str, Make, float]] = [
    ("mse_loss", _logits, 3),
    ("l1_loss", _logits, 3),
    ("huber_loss", _logits, 3),
    ("smooth_l1_loss", _logits, 3),
    ("binary_cross_entropy", _probabilities, 5),
    ("binary_cross_entropy_with_logits", _logits, 5),
    ("poisson_nll_loss", _logits, 5),
    ("gaussian_nll_loss", _with_variance, 5),
    ("kl_div", _probabilities, 5),
    ("soft_margin_loss", _signs, 5),
    ("sigmoid_focal_loss", _logits, 5),
]
# Elements, how often in a row, rounds; the ratio wanted where it is not the loss's own.
SIZES = [(1, 200, 9, 0.5), (64, 200, 9, 0.5), (4096, 200, 9, 1.0), (8_000_000, 1, 9, None)]


@dataclass(frozen=True)
class Row:
    """Microseconds of a loss and its gradient."""

    loss: str
    elements: int
    ours: float
    torch: float
    ratio: float
    wanted: float


def measure() -> Iterator[Row]:
    """One row for each loss and size that we have."""
    for elements, repeats, rounds, least in SIZES:
        for name, make, wanted in LOSSES:
            if not hasattr(ours, name):
                continue
            torch.manual_seed(0)
            x, *rest = make(elements)
            x.requires_grad_()

            def step(function: Any, x: torch.Tensor = x, rest: Any = rest) -> Callable[[], None]:
                def run() -> None:
                    x.grad = None
                    function(x, *rest, reduction="mean").backward()

                return run

            other_function = REFERENCES.get(name) or getattr(theirs, name)
            steps = [step(getattr(ours, name)), step(other_function)]
            mine, other = timed(steps, rounds, repeats)
            yield Row(
                name,
                elements,
                1e3 * statistics.median(mine),
                1e3 * statistics.median(other),
                statistics.median(t / o for o, t in zip(mine, other, strict=True)),
                wanted if least is None else least,
            )


def main() -> list[dict[str, Any]]:
    """Measure, print, and return the figures."""
    # kl_div's mean is not the divergence, and both say so.
    warnings.filterwarnings("ignore", message=".*'batchmean'")
    rows = list(measure())
    table = Table(title="losses, forward and backward (fp32): microseconds", title_justify="left")
    table.add_column("loss")
    for heading in ("elements", "thalweg", "torch", "torch / thalweg", "at least"):
        table.add_column(heading, justify="right")
    for row in rows:
        wanted = f"{row.wanted:g}" + ("" if row.ratio >= row.wanted else " (missed)")
        figures = f"{row.ours:.1f}", f"{row.torch:.1f}", f"{row.ratio:.2f}", wanted
        table.add_row(row.loss, str(row.elements), *figures)
    Console(width=100).print(table)
    return [asdict(row) for row in rows]


if __name__ == "__main__":
    main()
