"""The whole tail of a training step: clipping, update, average, and unscaling.

Beside torch's parts, one after another: ``clip_grad_norm_`` on lists of tensors, the fused AdamW,
``AveragedModel`` with its multi-tensor EMA; with scaled gradients ``GradScaler``, which divides and
checks them. Ours is one optimizer with transforms; a ``GradScaler`` leaves the division to it.
No backward pass comes in between, and gradients are dropped in no time on both
sides. Figures are medians of rounds, as in ``steps.py``.

    python -m benchmarks.tail
"""

import statistics
from collections.abc import Iterator
from typing import Any

import torch
import torch.optim.swa_utils as theirs
from rich.console import Console
from torch import nn

import thalweg.optim as optim
from benchmarks.averages import DECAY, Flat, Row, show
from benchmarks.steps import SHAPES, Step, timed
from thalweg.engine.engine import Engine
from thalweg.transforms import averaged, clip_by_norm

# Ratios to torch's parts that clip, AdamW and EMA, and unscale, clip and AdamW should have.
WANTED = {
    "one tensor of 16 M": (1.5, 1.5),
    "1000 tensors of 64": (2.0, 1.5),
    "GPT-2 small, 148 tensors": (2.0, 1.5),
}
MAX_NORM = 1.0
# Torch divides in place, each time anew; the work is the same for any scale.
SCALE = 1.0


def measure(rounds: int = 11) -> Iterator[Row]:
    """The two tails on each case, then what measuring adds to the first."""
    torch.manual_seed(0)
    for case, (wanted, wanted_scaled) in WANTED.items():
        models = [Flat(SHAPES[case]) for _ in range(2)]
        for model in models:
            for p in model.parameters():
                p.grad = torch.randn_like(p) * 1e-3
        repeats = 10 if case.startswith("1000") else 1
        yield _row(case, "clip, AdamW, EMA", _with_average(*models), wanted, rounds, repeats)
        yield _row(case, "unscale, clip, AdamW", _scaled(*models), wanted_scaled, rounds, repeats)
        steps = _measured(models[0])
        yield _row(case, "AdamW, measuring", steps, 0.97, rounds, repeats, "without measures")


def _with_average(mine: nn.Module, other: nn.Module) -> list[Step]:
    params = list(other.parameters())
    around = [clip_by_norm(MAX_NORM), averaged(DECAY)]
    folded = optim.AdamW(mine.parameters(), transforms=around)
    fused = torch.optim.AdamW(params, fused=True)
    average = theirs.AveragedModel(other, multi_avg_fn=theirs.get_ema_multi_avg_fn(DECAY))

    def torchs() -> None:
        torch.nn.utils.clip_grad_norm_(params, MAX_NORM, foreach=True)
        fused.step()
        average.update_parameters(other)

    return [folded.step, torchs]


def _scaled(mine: nn.Module, other: nn.Module) -> list[Step]:
    """Each begins as after a backward pass: GradScaler has not looked at the gradients yet."""
    params = list(other.parameters())
    folded = optim.AdamW(mine.parameters(), fused=True, transforms=[clip_by_norm(MAX_NORM)])
    fused = torch.optim.AdamW(params, fused=True)
    scalers = [torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=10**9) for _ in "ab"]
    for scaler in scalers:
        scaler.scale(torch.ones(()))  # so that it has a scale

    def ours() -> None:
        scalers[0].step(folded)
        scalers[0].update()

    def torchs() -> None:
        scalers[1].unscale_(fused)
        torch.nn.utils.clip_grad_norm_(params, MAX_NORM, foreach=True)
        scalers[1].step(fused)
        scalers[1].update()

    return [ours, torchs]


def _measured(model: nn.Module) -> list[Step]:
    asked = ("gradient_norm", "update_ratio")
    measuring = optim.AdamW(model.parameters(), measure=asked)
    plain = optim.AdamW(model.parameters())
    return [measuring.step, plain.step]


def _row(
    case: str,
    what: str,
    steps: list[Step],
    wanted: float,
    rounds: int,
    repeats: int,
    beside: str = "torch's parts",
) -> Row:
    for step in 3 * steps:
        step()
    mine, other = timed(steps, rounds, repeats)
    ratio = statistics.median(t / o for o, t in zip(mine, other, strict=True))
    return Row(case, what, statistics.median(mine), beside, statistics.median(other), ratio, wanted)


def bytes_per_parameter(optimizer: Any) -> float:
    """What one step of float32 parameters reads and writes, from the programs of its plan."""
    engine: Engine = optimizer._engine
    programs = {unit.program for unit in engine.units}
    assert len(programs) == 1, "the figure is for one program"
    (program,) = programs
    return 4.0 * (len(program.reads) + len(program.writes))


def main() -> list[dict[str, Any]]:
    """Measure, print, and return the figures."""
    rows = show("the tail of a step", measure())
    p = nn.Parameter(torch.zeros(8))
    p.grad = torch.zeros(8)
    optimizer = optim.AdamW([p], transforms=[clip_by_norm(MAX_NORM), averaged(DECAY)])
    for _ in range(2):  # the first step makes the states
        optimizer.step()
    moved = bytes_per_parameter(optimizer)
    Console().print(f"clip, AdamW, EMA: {moved:g} bytes a parameter")
    return rows


if __name__ == "__main__":
    main()
