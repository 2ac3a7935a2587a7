"""The time of elementwise losses, forward and backward: ours, and torch's.

python -m benchmarks.losses
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as theirs

import thalweg.losses as ours
from benchmarks.beside import Row, compare, show

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


def measure() -> Iterator[Row]:
    """One row for each loss and size."""
    for elements, repeats, rounds, least in SIZES:
        for name, make, wanted in LOSSES:
            torch.manual_seed(0)
            operands = make(elements)
            operands[0].requires_grad_()
            functions = getattr(ours, name), REFERENCES.get(name) or getattr(theirs, name)
            calls = tuple(partial(function, reduction="mean") for function in functions)
            ratio = wanted if least is None else least
            yield compare(name, f"{elements:,}", calls, operands, rounds, repeats, ratio)


def main() -> list[dict[str, Any]]:
    """Measure, print, and return the figures."""
    # kl_div's mean is not the divergence, and both say so.
    warnings.filterwarnings("ignore", message=".*'batchmean'")
    return show("losses of elements (fp32)", measure())


if __name__ == "__main__":
    main()
