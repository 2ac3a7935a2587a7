"""The time of losses of rows, forward and backward, and the memory of a large vocabulary.

python -m benchmarks.row_losses
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as theirs
from rich.console import Console

import thalweg.losses as ours
from benchmarks.beside import Row, compare, show

Tensor = torch.Tensor


def _classes(rows: int, classes: int, *inner: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, classes, *inner), torch.randint(0, classes, (rows, *inner))


def _probabilities(rows: int, classes: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, classes), torch.rand(rows, classes).softmax(1)


def _labels(rows: int, classes: int) -> tuple[Tensor, Tensor]:
    target = torch.randint(0, classes, (rows, classes))
    return torch.randn(rows, classes), torch.where(torch.arange(classes) < 4, target, -1)


def _pairs(rows: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(rows, size), torch.randn(rows, size), torch.randint(0, 2, (rows,)) * 2 - 1


def _triplets(rows: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(rows, size), torch.randn(rows, size), torch.randn(rows, size)


# Function, how its operands are made, of what size; how often in a row; the ratio to torch wanted.
LOSSES: list[tuple[str, Callable[..., tuple[Tensor, ...]], tuple[int, ...], int, float]] = [
    ("cross_entropy", _classes, (1, 1), 200, 0.5),
    ("cross_entropy", _classes, (8, 8), 200, 0.5),
    ("cross_entropy", _classes, (64, 64), 200, 1.0),
    ("cross_entropy", _classes, (128, 1000), 20, 1.0),
    ("cross_entropy", _classes, (2048, 32000), 1, 2.0),
    ("cross_entropy", _classes, (8, 21, 256, 256), 1, 1.0),
    ("cross_entropy", _probabilities, (1024, 1000), 5, 1.0),
    ("nll_loss", _classes, (1024, 1000), 5, 1.0),
    ("multi_margin_loss", _classes, (1024, 1000), 5, 1.0),
    ("multilabel_margin_loss", _labels, (1024, 1000), 1, 1.0),
    ("cosine_embedding_loss", _pairs, (1024, 512), 5, 1.0),
    ("triplet_margin_loss", _triplets, (1024, 512), 5, 1.0),
]
VOCABULARY = 1024, 768, 32000  # rows, their size, classes


def measure() -> Iterator[Row]:
    """One row for each loss and size."""
    for name, make, size, repeats, wanted in LOSSES:
        torch.manual_seed(0)
        operands = make(*size)
        operands[0].requires_grad_()
        calls = getattr(ours, name), getattr(theirs, name)
        kind = ", probabilities" if make is _probabilities else ""
        label = " x ".join(map(str, size))
        yield compare(f"{name}{kind}", label, calls, operands, 9, repeats, wanted)
    rows, size_of_each, classes = VOCABULARY
    x = (0.1 * torch.randn(rows, size_of_each)).requires_grad_()
    weight = (0.1 * torch.randn(classes, size_of_each)).requires_grad_()
    target = torch.randint(0, classes, (rows,))
    label = f"{rows} x {size_of_each}, {classes} classes"
    calls = ours.linear_cross_entropy, theirs.linear_cross_entropy
    yield compare("linear_cross_entropy", label, calls, (x, weight, target), 5, 1, 1.0)
    chunked = torch.nn.LinearCrossEntropyOptions()
    calls = (
        ours.linear_cross_entropy,
        lambda *operands: theirs.linear_cross_entropy(*operands, options=chunked),
    )
    name = "linear_cross_entropy, torch's in chunks"
    yield compare(name, label, calls, (x, weight, target), 3, 1, 1.0)


# In a process of its own: the largest memory it has held, beyond what it held before. The gradients
# of input and weight are there before, so that they do not count.
_PROBE = """
import torch
from {module} import linear_cross_entropy

def resident(of):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(of)) / 1024

def run(rows, size, classes):
    x = (0.1 * torch.randn(rows, size)).requires_grad_()
    weight = (0.1 * torch.randn(classes, size)).requires_grad_()
    target = torch.randint(0, classes, (rows,))
    gradients = [torch.ones_like(x), torch.ones_like(weight)]  # resident, so that both count once
    del gradients
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
    before = resident("VmRSS")
    linear_cross_entropy(x, weight, target{options}).backward()
    return resident("VmHWM") - before

run(64, 8, 16)
print(run{size})
"""


def peak_memory(module: str, options: str = "") -> float:
    """Megabytes at most beyond the operands, the gradients among them."""
    probe = _PROBE.format(module=module, options=options, size=VOCABULARY)
    command = [sys.executable, "-c", probe]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout)


def main() -> dict[str, Any]:
    """Measure, print, and return the figures."""
    rows = show("losses of rows (fp32)", measure())
    in_chunks = ", options=torch.nn.LinearCrossEntropyOptions()"
    memory = {
        "thalweg": peak_memory("thalweg.losses"),
        "torch": peak_memory("torch.nn.functional"),
        "torch in chunks": peak_memory("torch.nn.functional", in_chunks),
    }
    size, classes = VOCABULARY[1:]
    gradients = 4 * (VOCABULARY[0] + classes) * size / 2**20
    console = Console(width=110)
    console.print(
        "linear_cross_entropy, megabytes at most beyond the operands and their gradients:"
    )
    for name, peak in memory.items():
        console.print(f"  {name}: {peak - gradients:.0f}")
    return {"rows": rows, "linear_cross_entropy, MB": memory, "of which gradients": gradients}


if __name__ == "__main__":
    main()
