"""The time of CTC, forward and backward: ours, and torch's.

python -m benchmarks.ctc
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as theirs

import thalweg.losses as ours
from benchmarks.beside import Row, compare, show

# Time steps, samples, classes, labels; how often in a row; the ratio to torch wanted.
SIZES = [
    ((50, 4, 30, 10), 50, 1.0),
    ((150, 32, 80, 30), 5, 2.0),
    ((500, 16, 1000, 60), 1, 2.0),
]


def measure() -> Iterator[Row]:
    """One row for each dtype and size; the samples are of all lengths from a half up."""
    for dtype in (torch.float32, torch.float64):
        for (steps, samples, classes, labels), repeats, wanted in SIZES:
            torch.manual_seed(0)
            x = torch.randn(steps, samples, classes, dtype=dtype).log_softmax(-1).requires_grad_()
            targets = torch.randint(1, classes, (samples, labels))
            share = torch.linspace(0.5, 1.0, samples)
            operands = x, targets, (share * steps).long(), (share * labels).long()
            name = f"ctc_loss, {dtype}".replace("torch.", "")
            size = f"T={steps} N={samples} C={classes} S={labels}"
            calls = ours.ctc_loss, theirs.ctc_loss
            yield compare(name, size, calls, operands, 15, repeats, wanted)


def main() -> list[dict[str, Any]]:
    """Measure, print, and return the figures."""
    return show("connectionist temporal classification", measure())


if __name__ == "__main__":
    main()
