"""A small language model, trained with all that large ones are trained with.

    python examples/language_model.py

Four batches are accumulated for each step; gradients are clipped by their norm, the rate warms up
and falls along a cosine, weights are averaged, layers compute in bfloat16. Once that is done by
torch's parts, one after another, and once by an optimizer of thalweg with two transforms and two
schedulers from ``thalweg.optim``. Both see the same batches, and both print their losses and what
the tail of a step takes: everything from the last gradient to the next forward pass.

The text is what Python's ``help()`` prints about the language. Nothing is downloaded.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import thalweg.optim as optim
from thalweg.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from thalweg.optim.swa_utils import CarriedAverage
from thalweg.race import find_task
from thalweg.transforms import averaged, clip_by_norm

STEPS, ACCUMULATED, WARMUP = 20, 4, 5
RATE, MAX_NORM, DECAY = 1e-2, 0.5, 0.8

Tail = Callable[[], float]


def main() -> None:
    """Train twice, and print both."""
    torch.set_num_threads(1)  # the layers are too small for more
    rows = {name: train(make) for name, make in (("torch", torchs), ("thalweg", thalwegs))}
    for name, (losses, tested, norms, milliseconds) in rows.items():
        curve = "  ".join(f"{loss:.3f}" for loss in losses[4::5])
        print(f"{name:8} losses {curve}")
        print(f"{name:8} loss of the averaged weights on other text {tested:.3f}")
        print(f"{name:8} gradient norm at the end {norms[-1]:.3f}")
        print(f"{name:8} tail of a step {milliseconds:.3f} ms")
    apart = max(abs(a - b) for a, b in zip(*(row[0] for row in rows.values()), strict=True))
    print(f"the losses of a step differ by {apart:.4f} at most")
    print(f"torch's tail takes {rows['torch'][3] / rows['thalweg'][3]:.2f} times as long")


def torchs(model: nn.Module) -> tuple[Tail, Callable[[], nn.Module]]:
    """The tail of a step by torch's parts, and what gives the averaged model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=WARMUP),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS - WARMUP),
        ],
        [WARMUP],
    )
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))

    def tail() -> float:
        norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        average.update_parameters(model)
        schedule.step()
        optimizer.zero_grad()
        return float(norm)

    return tail, lambda: average.module


def thalwegs(model: nn.Module) -> tuple[Tail, Callable[[], nn.Module]]:
    """The same by one optimizer: the norm, then everything else in one pass over memory."""
    optimizer = optim.AdamW(
        model.parameters(),
        lr=RATE,
        transforms=[clip_by_norm(MAX_NORM), averaged(DECAY)],
        measure=("gradient_norm",),
    )
    rising = LinearLR(optimizer, 0.1, total_iters=WARMUP)
    falling = CosineAnnealingLR(optimizer, STEPS - WARMUP)
    schedule = SequentialLR(optimizer, [rising, falling], [WARMUP])

    def tail() -> float:
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        return float(optimizer.measured["gradient_norm"])

    def averaged_model() -> nn.Module:
        CarriedAverage(optimizer, DECAY).copy_to(model)
        return model

    return tail, averaged_model


def train(
    make: Callable[[nn.Module], tuple[Tail, Callable[[], nn.Module]]],
) -> tuple[list[float], float, list[float], float]:
    """Losses, the averaged model's loss on other text, norms, and milliseconds of a tail."""
    torch.manual_seed(0)
    task = find_task("transformer")
    model = task.model()
    tail, averaged_model = make(model)
    batches = forever(task.batches)
    losses, norms, times = [], [], []
    for _ in range(STEPS):
        total = 0.0
        for _ in range(ACCUMULATED):
            loss = loss_of(model, next(batches)) / ACCUMULATED
            loss.backward()
            total += loss.item()
        start = time.perf_counter()
        norms.append(tail())
        times.append(1e3 * (time.perf_counter() - start))
        losses.append(total)
    model = averaged_model()
    with torch.no_grad():
        (test,) = task.batches("test", torch.Generator())
        tested = loss_of(model, test).item()
    return losses, tested, norms, statistics.median(times)


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean loss of the next characters, with layers in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch[0]).flatten(0, 1)
    return nn.functional.cross_entropy(logits.float(), batch[1].flatten())


def forever(
    batches: Callable[[str, torch.Generator], Iterator[tuple[Tensor, Tensor]]],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches to train on, without end."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from batches("train", generator)


if __name__ == "__main__":
    main()
