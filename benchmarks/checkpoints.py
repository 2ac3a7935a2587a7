"""The time of saving and loading a checkpoint, beside plain safetensors for the same bytes.

Adam after a step: parameters, and two states of their size. Beside ours stand safetensors' own
``save_file``, alone (it leaves the bytes to the system, which writes them when it likes) and with
the flush to the disk that ours includes; and ``load_file``, each tensor copied to where it belongs.
Ours checks digests on the way, and needs no second copy. Loads are measured with the file in the
system's memory, and after it was put out of it.

Figures are medians over rounds in which all are timed one after another. Memory is what the process
itself holds at its highest during a load, beyond what it held before.

    python -m benchmarks.checkpoints [--millions 500] [--folder .]
"""

import argparse
import os
import statistics
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import nn

import thalweg.optim as optim
from thalweg import checkpoint

TENSORS = 50
WANTED = 1.5  # at most this many times as long as plain safetensors


@dataclass(frozen=True)
class Row:
    """Seconds of ours and of what it stands beside."""

    what: str
    ours: float
    beside: str
    other: float
    ratio: float  # ours / other


def measure(millions: float, folder: Path, rounds: int) -> tuple[list[Row], dict[str, float]]:
    """All figures, and the memory of a load in MB."""
    elements = int(millions * 1e6 / TENSORS)
    torch.manual_seed(0)
    model = nn.ParameterList(torch.rand(elements) for _ in range(TENSORS))
    optimizer = optim.Adam(model.named_parameters())
    for p in model:
        p.grad = torch.rand(elements)
    optimizer.step()
    optimizer.zero_grad()
    parts = {"model": model, "optimizer": optimizer}
    ours, plain = folder / "ours.safetensors", folder / "plain.safetensors"

    def tensors() -> dict[str, torch.Tensor]:
        # Made anew each time: a state that somebody holds cannot be written over.
        found = {f"p/{name}": p.detach() for name, p in model.named_parameters()}
        for name, p in model.named_parameters():
            found |= {f"{k}/{name}": v for k, v in optimizer.state[p].items() if v.dim()}
        return found

    def plain_save() -> None:
        save_file(tensors(), plain)

    def plain_save_and_flush() -> None:
        save_file(tensors(), plain)
        flush()

    def plain_load() -> None:
        own = tensors()
        for name, value in load_file(plain).items():
            own[name].copy_(value)

    def our_save() -> None:
        checkpoint.save(ours, **parts)

    def our_load() -> None:
        checkpoint.load(ours, **parts)

    def flush() -> None:
        for path in (ours, plain):
            if path.exists():
                with path.open("rb") as file:
                    os.fsync(file.fileno())

    def forget() -> None:
        """Put the files out of the system's memory."""
        for path in (ours, plain):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    saves = {"ours": our_save, "plain": plain_save, "flushed": plain_save_and_flush}
    saved = _timed(saves, rounds, before=flush)
    loads = {"ours": our_load, "plain": plain_load}
    warm, cold = _timed(loads, rounds), _timed(loads, rounds, before=forget)
    return [
        _row("save", saved, "safetensors, not flushed", "plain"),
        _row("save", saved, "safetensors, flushed to the disk", "flushed"),
        _row("load, file in memory", warm, "safetensors, no digests", "plain"),
        _row("load, file on the disk", cold, "safetensors, no digests", "plain"),
    ], {name: _memory(load) for name, load in loads.items()}


def _timed(
    acts: dict[str, Callable[[], Any]], rounds: int, before: Callable[[], Any] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each, round by round; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in acts}
    for turn in range(rounds + 1):
        for name, act in acts.items():
            before()
            start = perf_counter()
            act()
            if turn:
                seconds[name].append(perf_counter() - start)
    return seconds


def _row(what: str, seconds: dict[str, list[float]], beside: str, other: str) -> Row:
    mine, theirs = seconds["ours"], seconds[other]
    ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
    return Row(what, statistics.median(mine), beside, statistics.median(theirs), ratio)


def _memory(act: Callable[[], Any]) -> float:
    """By how many MB the process's own memory grows at most meanwhile."""

    def held() -> float:
        with open("/proc/self/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith("RssAnon"))
        return int(line.split()[1]) / 1024

    highest, done = [held()], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            highest[0] = max(highest[0], held())

    before, watcher = highest[0], threading.Thread(target=watch)
    watcher.start()
    act()
    done.set()
    watcher.join()
    return highest[0] - before


def main(millions: float = 100, folder: Path | None = None, rounds: int = 3) -> dict[str, Any]:
    """Measure, print, and return the figures."""
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        rows, memory = measure(millions, Path(inner), rounds)
    title = f"checkpoints of {millions:g} M parameters and Adam's states: seconds"
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("thalweg", justify="right")
    table.add_column("beside")
    for heading in ("its time", "ratio", "at most"):
        table.add_column(heading, justify="right")
    for row in rows:
        wanted = f"{WANTED:g}" + ("" if row.ratio <= WANTED else " (missed)")
        figures = f"{row.ours:.2f}", row.beside, f"{row.other:.2f}", f"{row.ratio:.2f}", wanted
        table.add_row(row.what, *figures)
    console = Console(width=110)
    console.print(table)
    largest = 4 * millions / TENSORS
    console.print(
        f"memory of a load beyond the states: {memory['ours']:.1f} MB (safetensors "
        f"{memory['plain']:.1f}); the largest tensor has {largest:.1f}"
    )
    return {"rows": [asdict(row) for row in rows], "memory": memory}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints")
    parser.add_argument("--millions", type=float, default=100)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--rounds", type=int, default=3)
    main(**vars(parser.parse_args()))
