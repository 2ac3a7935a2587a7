"""Pictures of schedules, schedulers, losses and surfaces for the documentation: docs/pictures/.

    python docs/pictures.py

Each is drawn by the package itself, from the expression in its title. The build of the
documentation draws them first, so what a page shows is what this version computes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import landscape_pictures
import loss_pictures
import torch
from drawing import LINES, legend, titled, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import thalweg.optim as optim
from thalweg import schedules
from thalweg.optim import lr_scheduler

FOLDER = Path(__file__).parent / "pictures"


@dataclass(frozen=True)
class Picture:
    """What a picture shows: an expression, or several that differ in the word put in for ``{}``."""

    expression: str
    words: tuple[str, ...] = ()
    steps: int = 100

    @property
    def title(self) -> str:
        return self.expression.format("...") if self.words else self.expression

    @property
    def expressions(self) -> list[str]:
        return [self.expression.format(word) for word in self.words] or [self.expression]


SCHEDULES = {
    "Constant": Picture("Constant(0.5)"),
    "Linear": Picture("Linear(1, 0, steps=80)"),
    "Polynomial": Picture("Polynomial(1, 0, steps=80, power={})", ("0.5", "2", "4")),
    "Cosine": Picture("Cosine(1, 0, steps=80)"),
    "Rex": Picture("Rex(1, 0, steps=80)"),
    "Step": Picture("Step(30, gamma=0.5)"),
    "MultiStep": Picture("MultiStep((40, 60, 90), gamma=0.5)"),
    "Exponential": Picture("Exponential({})", ("0.99", "0.97", "0.9")),
    "Table": Picture("Table((0.4, 1, 0.5, 0.7, 0.2), interpolate={})", ("False", "True"), steps=5),
    "Function": Picture("Function(lambda t: 1 / (1 + t / 10))"),
    "Warmup": Picture(
        "Warmup(60, start=0.05, shape={})", ('"linear"', '"cosine"', '"exponential"')
    ),
    "WarmupStableDecay": Picture(
        "WarmupStableDecay(10, 50, 30, shape={})", ('"linear"', '"cosine"', '"sqrt"')
    ),
    "InverseSqrt": Picture("InverseSqrt(warmup=10)"),
    "CosineRestarts": Picture("CosineRestarts(1, 0, period=15, growth={})", ("1", "2")),
    "Cyclic": Picture(
        "Cyclic(0.1, 1, up=12, gamma=0.97, mode={})",
        ('"triangular"', '"triangular2"', '"exp_range"'),
    ),
    "OneCycle": Picture("OneCycle(0.04, 1, 0, steps=100, three_phase={})", ("False", "True")),
    "Join": Picture("join([Linear(0.2, 1, steps=20), 0.6, Cosine(1, 0, steps=40)], (20, 50))"),
    "Product": Picture("Linear(1, 0, steps=100) * CosineRestarts(1, 0.5, period=20)"),
    "Sum": Picture("Cosine(0.6, 0.1, steps=100) + Cyclic(0, 0.3, up=10)"),
    "Shifted": Picture("Cosine(1, 0, steps=60).shifted({})", ("20", "-20")),
    "Repeated": Picture("Cosine(1, 0, steps=30).repeated(mirrored={})", ("False", "True")),
    "Clamped": Picture("Exponential(0.96).clamped(low=0.2, high=0.8)"),
}

COMPOSITIONS = {
    "warmup-cosine": Picture("0.1 * Warmup(10).then(Cosine(1, 0.1, steps=90))"),
    "restarts-in-a-trapezoid": Picture(
        "WarmupStableDecay(10, 50, 40) * CosineRestarts(1, 0.4, period=20)"
    ),
    "warmup-steps": Picture("Warmup(5, start=0.1) * MultiStep((30, 60, 80), gamma=0.3)"),
    "cooldown": Picture(
        "InverseSqrt(10).then(InverseSqrt(10)(75) * Linear(1, 0, steps=25), at=75)"
    ),
}

SCHEDULERS = {
    "LambdaLR": Picture("LambdaLR(optimizer, lambda t: 1 / (1 + t / 10))"),
    "MultiplicativeLR": Picture("MultiplicativeLR(optimizer, lambda t: 0.99 if t < 50 else 0.95)"),
    "StepLR": Picture("StepLR(optimizer, step_size=30, gamma=0.5)"),
    "MultiStepLR": Picture("MultiStepLR(optimizer, milestones=[40, 60, 90], gamma=0.5)"),
    "ConstantLR": Picture("ConstantLR(optimizer, factor=0.3, total_iters=20)"),
    "LinearLR": Picture("LinearLR(optimizer, start_factor=0.1, total_iters=40)"),
    "ExponentialLR": Picture("ExponentialLR(optimizer, gamma=0.97)"),
    "PolynomialLR": Picture("PolynomialLR(optimizer, total_iters=80, power=2)"),
    "CosineAnnealingLR": Picture("CosineAnnealingLR(optimizer, T_max=40)"),
    "CosineAnnealingWarmRestarts": Picture(
        "CosineAnnealingWarmRestarts(optimizer, T_0=15, T_mult=2)"
    ),
    "CyclicLR": Picture(
        "CyclicLR(optimizer, 0.1, 1.0, step_size_up=12, mode={})", ('"triangular"', '"triangular2"')
    ),
    "OneCycleLR": Picture("OneCycleLR(optimizer, 1.0, total_steps=101)"),
    "SWALR": Picture("SWALR(optimizer, swa_lr=0.2, anneal_epochs=40, anneal_strategy={})",
                     ('"cos"', '"linear"')),
    "ReduceLROnPlateau": Picture("ReduceLROnPlateau(optimizer, factor=0.5, patience=10)"),
    "SequentialLR": Picture(
        "SequentialLR(optimizer, [LinearLR(optimizer, 0.1, total_iters=20),\n"
        "    CosineAnnealingLR(optimizer, T_max=80)], milestones=[20])"
    ),
    "ChainedScheduler": Picture(
        "ChainedScheduler([LinearLR(optimizer, 0.1, total_iters=20),\n"
        "    StepLR(optimizer, step_size=30, gamma=0.5)])"
    ),
    "ScheduledHyperparameters": Picture(
        "ScheduledHyperparameters(optimizer, lr=Cosine(1, 0, steps=100),\n"
        "    momentum=Warmup(30, 0.5, 0.9))"
    ),
}  # fmt: skip


def schedule(expression: str) -> schedules.Schedule:
    """The schedule that an expression of ``thalweg.schedules`` stands for."""
    made: schedules.Schedule = eval(expression, vars(schedules).copy())
    return made


def scheduler(expression: str) -> lr_scheduler.LRScheduler:
    """The scheduler that an expression stands for, of a new ``optimizer`` with rate 1."""
    optimizer = optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    names = vars(schedules) | vars(lr_scheduler) | {"optimizer": optimizer}
    made: lr_scheduler.LRScheduler = eval(expression, names)
    return made


def loss(epoch: int) -> float:
    """A loss that falls and comes to rest, twice; for the scheduler that looks at one."""
    return 1 - 0.02 * min(epoch, 25) - 0.02 * min(max(epoch - 50, 0), 15)


def followed(scheduler: Any, epochs: int) -> dict[str, list[float]]:
    """What a scheduler sets, and the loss if it is given one, from epoch 0 on."""
    (group,) = scheduler.optimizer.param_groups
    needs_loss = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
    seen: dict[str, list[float]] = {"rate": [], "momentum": [], "loss": []}
    for epoch in range(epochs + 1):
        seen["rate"].append(group["lr"])
        seen["momentum"].append(group["momentum"])
        seen["loss"].append(loss(epoch))
        scheduler.optimizer.step()
        scheduler.step(*[loss(epoch)] * needs_loss)
    if not needs_loss:
        del seen["loss"]
    if len(set(seen["momentum"])) == 1:
        del seen["momentum"]
    return seen


def draw_schedule(picture: Picture) -> Figure:
    """The values of one or several schedules over the steps."""
    figure, (axes,) = blank(picture, ["value"])
    for expression in picture.expressions:
        schedule(expression).plot(picture.steps, ax=axes)
    finish(picture, axes, "step")
    return figure


def draw_scheduler(picture: Picture) -> Figure:
    """What one or several schedulers set at each epoch."""
    runs = [followed(scheduler(expression), picture.steps) for expression in picture.expressions]
    figure, panels = blank(picture, list(runs[0]))
    for run in runs:
        for axes, values in zip(panels, run.values(), strict=True):
            axes.plot(range(len(values)), values, drawstyle="steps-post")
    finish(picture, panels[0], "")
    panels[-1].set_xlabel("epoch")
    return figure


def blank(picture: Picture, quantities: list[str]) -> tuple[Figure, list[Axes]]:
    """A figure with the title and one panel for each quantity, the first one the largest."""
    figure = titled(picture.title)
    ratios = [3] + [2] * (len(quantities) - 1)
    grid = figure.subplots(len(quantities), sharex=True, squeeze=False, height_ratios=ratios)
    panels: list[Axes] = list(grid[:, 0])
    for axes, quantity in zip(panels, quantities, strict=True):
        axes.set_prop_cycle(color=LINES)
        axes.set_xlim(0, picture.steps)
        axes.set_ylabel(quantity)
    return figure, panels


def finish(picture: Picture, axes: Axes, label: str) -> None:
    """Label what was drawn, and let the vertical axis begin at 0."""
    axes.set_xlabel(label)
    top = max(max(line.get_ydata()) for line in axes.lines)
    axes.set_ylim(0, 1.06 * top)
    for line, word in zip(axes.lines, picture.words, strict=False):
        line.set_label(word.strip('"'))
    if picture.words:
        legend(axes)


def all_pictures() -> Iterable[tuple[str, Figure]]:
    """Every picture by name."""
    for name, picture in (SCHEDULES | COMPOSITIONS).items():
        yield name, draw_schedule(picture)
    for name, picture in SCHEDULERS.items():
        yield name, draw_scheduler(picture)
    for name, shown in loss_pictures.LOSSES.items():
        yield name, loss_pictures.draw(shown)


def main(folder: Path = FOLDER) -> None:
    """Draw all into a folder."""
    write(all_pictures(), folder)
    landscape_pictures.write_maps(folder)


def on_pre_build(config: Any) -> None:
    """For mkdocs: draw before the pages are built."""
    main()


if __name__ == "__main__":
    main()
