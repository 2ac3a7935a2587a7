"""LBFGS against torch's, in one process, in turn: seconds per iteration with a full history.

    python benchmarks/lbfgs.py [--size 1000000] [--history 100] [--repeats 7]

The function is a separable quadratic whose loss and gradient cost two passes over the parameters,
so that what is timed is the optimizer. Each repeat times one call of ``step`` of the one and of the
other; the ratio is the median of the repeats' ratios, below 1 where thalweg is faster.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from thalweg.optim.lbfgs import LBFGS

ITERATIONS = 4  # per call of step
SIZES = ((1_000_000, 100), (1_000_000, 10), (10_000, 100), (100, 100))


def stepper(cls: Any, size: int, history: int) -> Callable[[], None]:
    """An optimizer with a full history; calling makes one step of ``ITERATIONS`` iterations.

    The curvatures spread over two decades, and the Newton step is cut to a hundredth: the run is
    then far from its end for as long as it is measured.
    """
    generator = torch.Generator().manual_seed(0)
    curvature = torch.logspace(0, 2, size)[torch.randperm(size, generator=generator)]
    x = torch.randn(size, generator=generator).requires_grad_()
    optimizer = cls(
        [x],
        lr=0.01,
        max_iter=ITERATIONS,
        max_eval=100,
        tolerance_grad=0,
        tolerance_change=0,
        history_size=history,
    )

    def closure() -> torch.Tensor:
        with torch.no_grad():
            gradient = curvature * x
            x.grad = gradient
            return 0.5 * gradient.dot(x)

    def step() -> None:
        optimizer.step(closure)

    for _ in range(history // ITERATIONS + 2):
        step()
    full = len(optimizer.state[x]["old_dirs"])
    if full != history:
        raise RuntimeError(f"the history holds {full} pairs, not {history}: not worth timing")
    return step


def seconds(step: Callable[[], None], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls / ITERATIONS


def compare(size: int, history: int, repeats: int) -> dict[str, Any]:
    theirs = stepper(torch.optim.LBFGS, size, history)
    ours = stepper(LBFGS, size, history)
    calls = max(1, min(10, 1_000_000 // size))
    pairs = []
    for k in range(repeats + 1):
        # The order alternates, so that neither always runs in the other's wake.
        if k % 2:
            torchs, own = seconds(theirs, calls), seconds(ours, calls)
        else:
            own, torchs = seconds(ours, calls), seconds(theirs, calls)
        pairs.append((own, torchs))
    pairs = pairs[1:]
    return {
        "benchmark": "LBFGS",
        "parameters": size,
        "history": history,
        "threads": torch.get_num_threads(),
        "thalweg_ms": median(own for own, _ in pairs) * 1e3,
        "torch_ms": median(torchs for _, torchs in pairs) * 1e3,
        "ratio": median(own / torchs for own, torchs in pairs),
        "ratio_low": min(own / torchs for own, torchs in pairs),
        "ratio_high": max(own / torchs for own, torchs in pairs),
    }


def main(
    sizes: tuple[tuple[int, int], ...] = SIZES, repeats: int = 7, show: bool = True
) -> list[dict[str, Any]]:
    """Rows of one dict per (parameters, history); printed as they come unless ``show`` is False."""
    if show:
        print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores")
        print(f"{'parameters':>10} {'history':>7} {'threads':>7} {'thalweg ms':>10} {'torch ms':>9}"
              f" {'ratio':>6}  (lowest to highest)")  # fmt: skip
    rows = []
    for size, history in sizes:
        row = compare(size, history, repeats)
        rows.append(row)
        if show:
            print(f"{size:>10} {history:>7} {row['threads']:>7} {row['thalweg_ms']:>10.3f}"
                  f" {row['torch_ms']:>9.3f} {row['ratio']:>6.2f}"
                  f"  ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})")  # fmt: skip
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int)
    parser.add_argument("--history", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    main(((given.size, given.history),) if given.size else SIZES, given.repeats)
