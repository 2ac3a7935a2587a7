"""A run that is killed again and again, and ends with the very bits of one that never was.

    python examples/resume.py

Needs scikit-learn for the data: pip install "thalweg[race]". A small network with dropout is
trained on the handwritten digits, with a warmup, a cosine and a moving average of the weights. One
process trains from the beginning to the end. Then others do the same, but each kills itself in the
middle of its work, and the next goes on from the newest checkpoint that is whole.

What makes the two alike: everything that a step depends on is in the checkpoint (model, optimizer
with its average, schedule, random numbers), or is a pure function of the step (which images are in
the batch).
"""

import hashlib
import os
import signal
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

import thalweg.optim as optim
from thalweg import checkpoint
from thalweg.optim.lr_scheduler import ScheduledHyperparameters
from thalweg.optim.swa_utils import CarriedAverage
from thalweg.race import find_task
from thalweg.schedules import Cosine, Warmup

STEPS, EVERY, BATCH = 400, 25, 32


def batch(x: torch.Tensor, y: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of a step: every epoch in an order of its own, which its number decides."""
    per_epoch = len(x) // BATCH
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
    chosen = order[place * BATCH : (place + 1) * BATCH]
    return x[chosen], y[chosen]


def train(folder: Path, die_at: int | None = None) -> str:
    """Train from the newest checkpoint in the folder, or from the beginning, to the end.

    Args:
        folder: where checkpoints are.
        die_at: be killed before this step.

    Returns:
        A digest of the weights and of their average.
    """
    torch.set_num_threads(1)  # the layers are too small for more
    torch.manual_seed(0)
    batches = find_task("digits").batches("train", torch.Generator().manual_seed(0))
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    model = nn.Sequential(
        nn.Linear(x[0].numel(), 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
    )
    optimizer = optim.AdamW(model.named_parameters(), weight_decay=0.01)
    average = CarriedAverage(optimizer, decay=0.98)
    schedule = ScheduledHyperparameters(
        optimizer, lr=3e-3 * Warmup(20).then(Cosine(1, 0.01, steps=STEPS - 20))
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}

    first = 0
    if list(folder.glob("*.safetensors")):
        newest = checkpoint.latest(folder)
        first = checkpoint.load(newest, **parts)["step"]
        print(f"  goes on from {newest.name}, step {first}")
    for step in range(first, STEPS):
        if step == die_at:
            print(f"  killed before step {step}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        images, labels = batch(x, y, step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images.flatten(1)), labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % EVERY == 0:
            checkpoint.save(folder / f"{step + 1:06}.safetensors", **parts, step=step + 1)

    digest = hashlib.sha256()
    for p in model.parameters():
        for values in (p, average.of(p)):
            digest.update(values.detach().numpy().tobytes())
    print(f"  loss of the last batch {loss.item():.6f}, weights {digest.hexdigest()[:16]}")
    return digest.hexdigest()


def run(folder: Path, die_at: int | None = None) -> None:
    """Train in a process of its own, which may be killed."""
    process = get_context("spawn").Process(target=train, args=(folder, die_at))
    process.start()
    process.join()


def main() -> None:
    """Train without and with interruptions, and compare."""
    with tempfile.TemporaryDirectory() as root:
        print("Never interrupted:")
        whole = Path(root, "whole")
        run(whole)
        print("Killed twice:")
        pieces = Path(root, "pieces")
        for die_at in (60, 333, None):
            run(pieces, die_at)
        last = f"{STEPS:06}.safetensors"
        a, b = (checkpoint.read(folder / last) for folder in (whole, pieces))
        alike = all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
        print(f"The same weights, bit for bit: {alike}")
    sys.exit(not alike)


if __name__ == "__main__":
    main()
