"""Schedulers of both libraries as data: built anew for each run, stepped, and read.

A scheduler is described by its class's name and options (`Leaf`) or as a composition of such
descriptions (`Sequence`, `Chain`), so that the same description is built from torch's classes and
from ours, on either library's optimizers.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.swa_utils import SWALR as TorchSWALR

import thalweg.optim as optim
from thalweg.optim import lr_scheduler as our_schedulers

NAMES = (
    "LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR",
    "ExponentialLR", "PolynomialLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
    "CyclicLR", "OneCycleLR", "SWALR", "ReduceLROnPlateau", "SequentialLR", "ChainedScheduler",
)  # fmt: skip
BASES = ("LRScheduler", "_LRScheduler")

TORCH = SimpleNamespace(
    **{name: getattr(torch_schedulers, name) for name in (*NAMES, *BASES) if name != "SWALR"},
    SWALR=TorchSWALR,
)
OURS = SimpleNamespace(
    LRScheduler=our_schedulers.LRScheduler,
    **{name: getattr(our_schedulers, name) for name in NAMES},
)
Library = SimpleNamespace
LIBRARIES = {"torch": TORCH, "thalweg": OURS}
both_libraries = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES.keys())

torchs_faults = pytest.mark.skipif(
    not torch.__version__.startswith("2.13."),
    reason="records what torch 2.13 does wrong; see whether this version still does",
)
deprecated_epoch = pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
# torch's own step counts itself before the optimizer's when a composite is wrapped (#196243).
torchs_order_warning = pytest.mark.filterwarnings(
    "ignore:Detected call of `lr_scheduler.step:UserWarning"
)


# --------------------------------------------------------------------------------------- optimizers

LRS = (0.5, 0.02)
KINDS: dict[str, Callable[[float], Any]] = {
    "float": float,
    "float64": lambda value: torch.tensor(value, dtype=torch.float64),
    "float32": lambda value: torch.tensor(value, dtype=torch.float32),
}
OPTIMIZERS: dict[str, Any] = {"torch": torch.optim.SGD, "thalweg": optim.SGD}


def make_optimizer(
    cls: Any = torch.optim.SGD, kind: str = "float", lrs: tuple[float, ...] = LRS, **options: Any
) -> Any:
    """An optimizer of one parameter per group, each group with its own lr (never shared)."""
    groups = [
        {"params": [torch.nn.Parameter(torch.full((1,), i + 1.0))], "lr": KINDS[kind](lr)}
        for i, lr in enumerate(lrs)
    ]
    return cls(groups, lr=KINDS[kind](lrs[0]), **options)


def rates(optimizer: Any) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def momenta(optimizer: Any) -> list[float]:
    groups = optimizer.param_groups
    return [float(g["betas"][0] if "betas" in g else g.get("momentum", 0.0)) for g in groups]


def observe(optimizer: Any) -> list[float]:
    """Everything that a scheduler may move."""
    return rates(optimizer) + momenta(optimizer)


# ------------------------------------------------------------------------------------- descriptions


@dataclass(frozen=True, eq=False)
class Leaf:
    """One scheduler: its class's name and its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={label(v)}' for k, v in self.options.items())})"

    def build(self, library: Library, optimizer: Any, **more: Any) -> Any:
        return getattr(library, self.name)(optimizer, **self.options, **more)

    def leaves(self) -> Iterator[Leaf]:
        yield self


@dataclass(frozen=True, eq=False)
class Sequence:
    parts: tuple[Tree, ...]
    milestones: tuple[int, ...]
    name = "SequentialLR"

    def __str__(self) -> str:
        return f"Seq[{'; '.join(map(str, self.parts))} @{','.join(map(str, self.milestones))}]"

    def build(self, library: Library, optimizer: Any, **more: Any) -> Any:
        return self.combine(
            library, optimizer, [p.build(library, optimizer) for p in self.parts], **more
        )

    def combine(self, library: Library, optimizer: Any, parts: list[Any], **more: Any) -> Any:
        return library.SequentialLR(optimizer, parts, list(self.milestones), **more)

    def leaves(self) -> Iterator[Leaf]:
        for part in self.parts:
            yield from part.leaves()


@dataclass(frozen=True, eq=False)
class Chain:
    parts: tuple[Tree, ...]
    name = "ChainedScheduler"

    def __str__(self) -> str:
        return f"Chain[{'; '.join(map(str, self.parts))}]"

    def build(self, library: Library, optimizer: Any) -> Any:
        return self.combine(library, optimizer, [p.build(library, optimizer) for p in self.parts])

    def combine(self, library: Library, optimizer: Any, parts: list[Any]) -> Any:
        return library.ChainedScheduler(parts, optimizer)

    def leaves(self) -> Iterator[Leaf]:
        for part in self.parts:
            yield from part.leaves()


Tree = Leaf | Sequence | Chain


def label(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(label, value))}]"
    return getattr(value, "__name__", None) or str(value).replace(" ", "")


def identify(value: Any) -> str | None:
    return str(value) if isinstance(value, (Leaf, Sequence, Chain)) else None


def build_all(library: Library, optimizer: Any, trees: tuple[Tree, ...]) -> list[Any]:
    return [tree.build(library, optimizer) for tree in trees]


def seq(parts: list[Tree], milestones: list[int]) -> Sequence:
    return Sequence(tuple(parts), tuple(milestones))


def chain(*parts: Tree) -> Chain:
    return Chain(parts)


# ----------------------------------------------------------------------------------------- stepping


def metric(step: int) -> float:
    """A loss that falls, rests, rises and is noisy: the same at each step in every run."""
    noise = random.Random(step).uniform(-0.1, 0.1)
    return 1.0 / (1 + step // 8) + 0.3 * math.sin(step / 5.0) + noise


def advance(optimizer: Any, schedulers: list[Any], step: int) -> None:
    """One epoch: the optimizer, then each scheduler; a plateau's is given ``metric(step)``."""
    optimizer.step()
    for scheduler in schedulers:
        if isinstance(scheduler, torch_schedulers.ReduceLROnPlateau):
            scheduler.step(metric(step))
        else:
            scheduler.step()


def follow(optimizer: Any, schedulers: list[Any], steps: int, first: int = 0) -> list[list[float]]:
    """What each of ``steps`` epochs begins with, from epoch ``first`` on."""
    seen = [observe(optimizer)]
    for step in range(first, first + steps):
        advance(optimizer, schedulers, step)
        seen.append(observe(optimizer))
    return seen


def trajectory(
    library: Library, trees: tuple[Tree, ...], steps: int, optimizer: Any
) -> list[list[float]]:
    return follow(optimizer, build_all(library, optimizer, trees), steps)


def assert_close(
    ours: list[list[float]],
    theirs: list[list[float]],
    tolerance: float,
    *,
    span: bool,
    floor: float = 0.0,
) -> None:
    """Each value within ``tolerance`` of the reference, relative to it, or ``floor`` absolutely.

    ``span``: relative to the largest value of that column instead, for formulas that subtract:
    near a zero of 1 + cos(x) the reference's own error is one rounding of 1, not of the value.
    """
    for column in range(len(theirs[0])):
        largest = max(abs(row[column]) for row in theirs)
        for step, (mine, reference) in enumerate(zip(ours, theirs, strict=True)):
            scale = largest if span else abs(reference[column])
            error = abs(mine[column] - reference[column])
            assert error <= max(tolerance * scale, floor), (
                f"value {column} at step {step}: {mine[column]!r}, not {reference[column]!r}"
            )


def subtracts(trees: tuple[Tree, ...]) -> bool:
    """Whether torch computes a value as a difference of larger ones (see `assert_close`)."""
    return any(
        leaf.name in SUBTRACTING or leaf.options.get("end_factor") == 0.0
        for tree in trees
        for leaf in tree.leaves()
    )


SUBTRACTING = {
    "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR", "SWALR",
}  # fmt: skip


# ----------------------------------------------------------------------------------------- settings


def halves(epoch: int) -> float:
    return 0.5 ** (epoch // 20)


def inverse(epoch: int) -> float:
    return 1.0 / (1.0 + epoch)


def wave(epoch: float) -> float:
    return 1.0 + 0.5 * math.sin(epoch / 7.0)


def shrinks(epoch: int) -> float:
    return 0.98


def alternates(epoch: int) -> float:
    return 1.25 if epoch % 2 else 0.78


def rests(epoch: int) -> float:
    return 1.0


def late_zero(epoch: int) -> float:
    return 0.0 if epoch >= 100 else 1.0


class Power:
    """A function with state of its own: its attributes go into the scheduler's state dict."""

    def __init__(self, base: float) -> None:
        self.base = base

    __name__ = "Power"

    def __call__(self, epoch: float) -> float:
        return self.base**epoch


def table(name: str, *settings: dict[str, Any]) -> list[Leaf]:
    return [Leaf(name, options) for options in settings]


def product(name: str, **values: list[Any]) -> list[Leaf]:
    """Every combination of the values of the options."""
    combinations: list[dict[str, Any]] = [{}]
    for key, choices in values.items():
        combinations = [{**given, key: value} for given in combinations for value in choices]
    return [Leaf(name, options) for options in combinations]


SETTINGS: dict[str, list[Leaf]] = {
    "LambdaLR": [
        Leaf("LambdaLR", {"lr_lambda": given})
        for given in (
            halves, inverse, wave, rests, shrinks, alternates, late_zero, Power(0.99),
            [halves, inverse], (wave, Power(0.97)), [rests, late_zero],
        )
    ],
    "MultiplicativeLR": [
        Leaf("MultiplicativeLR", {"lr_lambda": given})
        for given in (
            shrinks, alternates, rests, late_zero, wave, halves, inverse, Power(0.999),
            [shrinks, alternates], (rests, Power(0.9999)),
        )
    ],
    "StepLR": product("StepLR", step_size=[1, 2, 7, 30, 400], gamma=[0.1, 0.9, 1.0, 1.01])
    + table("StepLR", {"step_size": 5}),
    "MultiStepLR": product(
        "MultiStepLR",
        milestones=[[30, 80], [], [0, 3], [1], [5, 5, 5, 9], [50], [299, 300, 301], (4, 40)],
        gamma=[0.1, 0.9],
    ) + table("MultiStepLR", {"milestones": [2, 3]}),
    "ConstantLR": product("ConstantLR", factor=[0.1, 1 / 3, 1.0], total_iters=[1, 2, 50, 400])
    + table("ConstantLR", {}, {"factor": 0.5}),
    "LinearLR": product(
        "LinearLR", start_factor=[0.001, 0.5, 1.0], end_factor=[0.0, 0.25, 1.0],
        total_iters=[1, 4, 100, 400],
    ) + table("LinearLR", {}, {"total_iters": 7}),
    "ExponentialLR": product(
        "ExponentialLR", gamma=[0.1, 0.5, 0.9, 0.95, 0.97, 0.99, 0.999, 1.0, 1.001, 1.02]
    ),
    "PolynomialLR": product(
        "PolynomialLR", total_iters=[1, 5, 50, 300, 400], power=[0.5, 1, 2.0, 5]
    )
    + table("PolynomialLR", {}, {"total_iters": 9}),
    "CosineAnnealingLR": product(
        "CosineAnnealingLR", T_max=[1, 2, 10, 50, 150, 300, 400], eta_min=[0.0, 0.01, 0.7]
    ) + table("CosineAnnealingLR", {"T_max": 33}),
    "CosineAnnealingWarmRestarts": product(
        "CosineAnnealingWarmRestarts", T_0=[1, 7, 50, 400], T_mult=[1, 2, 3], eta_min=[0.0, 0.03]
    ) + table("CosineAnnealingWarmRestarts", {"T_0": 10}),
    "CyclicLR": [
        Leaf("CyclicLR", {"base_lr": 0.1, "max_lr": 0.4, "step_size_up": 20, **more})
        for more in (
            {}, {"mode": "triangular2"}, {"mode": "exp_range", "gamma": 0.99},
            {"step_size_down": 7}, {"step_size_down": 0}, {"step_size_up": 1},
            {"step_size_up": 3, "step_size_down": 1},
            {"cycle_momentum": False}, {"base_lr": [0.1, 0.2], "max_lr": [0.5, 0.21]},
            {"base_momentum": 0.5, "max_momentum": 0.99}, {"scale_fn": wave},
            {"scale_fn": wave, "scale_mode": "iterations"}, {"scale_fn": Power(0.9)},
            {"base_momentum": [0.5, 0.6], "max_momentum": [0.9, 0.7]},
            {"mode": "exp_range", "gamma": 0.97, "step_size_down": 33},
        )
    ],
    "OneCycleLR": [
        Leaf("OneCycleLR", {"max_lr": 0.4, "total_steps": 301, **more})
        for more in (
            {}, {"anneal_strategy": "linear"}, {"three_phase": True},
            {"three_phase": True, "anneal_strategy": "linear", "pct_start": 0.4},
            {"pct_start": 0.1}, {"pct_start": 0.9}, {"max_lr": [0.4, 2.0]},
            {"div_factor": 5.0, "final_div_factor": 7.0}, {"cycle_momentum": False},
            {"base_momentum": 0.2, "max_momentum": 0.8}, {"final_div_factor": 0.1},
            {"total_steps": None, "epochs": 43, "steps_per_epoch": 7},
            {"base_momentum": [0.2, 0.3], "max_momentum": [0.8, 0.95]},
        )
    ],
    "SWALR": product(
        "SWALR", swa_lr=[0.05, 0.9, [0.01, 0.02]], anneal_epochs=[0, 1, 10, 250],
        anneal_strategy=["cos", "linear"],
    ) + table("SWALR", {"swa_lr": 0.05}),
    "ReduceLROnPlateau": [
        Leaf("ReduceLROnPlateau", options)
        for options in (
            {}, {"factor": 0.5, "patience": 3}, {"mode": "max", "patience": 2},
            {"patience": 0}, {"patience": 0, "cooldown": 5, "factor": 0.9},
            {"threshold_mode": "abs", "threshold": 0.1, "patience": 4},
            {"mode": "max", "threshold_mode": "abs", "patience": 1, "factor": 0.7},
            {"min_lr": [0.1, 0.001], "patience": 1}, {"min_lr": 0.01, "patience": 2},
            {"eps": 0.01, "factor": 0.5, "patience": 0}, {"factor": 0.0, "patience": 20},
            {"threshold": 0.5, "factor": 0.3, "patience": 5, "cooldown": 2},
        )
    ],
}  # fmt: skip
ALL_LEAVES = [leaf for leaves in SETTINGS.values() for leaf in leaves]

# One of each, for what must not be tried on all of them.
EXAMPLES: dict[str, Leaf] = {
    "LambdaLR": Leaf("LambdaLR", {"lr_lambda": [wave, Power(0.97)]}),
    "MultiplicativeLR": Leaf("MultiplicativeLR", {"lr_lambda": [alternates, Power(0.999)]}),
    "StepLR": Leaf("StepLR", {"step_size": 7, "gamma": 0.7}),
    "MultiStepLR": Leaf("MultiStepLR", {"milestones": [5, 11, 11, 40], "gamma": 0.3}),
    "ConstantLR": Leaf("ConstantLR", {"factor": 0.3, "total_iters": 13}),
    "LinearLR": Leaf("LinearLR", {"start_factor": 0.1, "end_factor": 0.9, "total_iters": 23}),
    "ExponentialLR": Leaf("ExponentialLR", {"gamma": 0.93}),
    "PolynomialLR": Leaf("PolynomialLR", {"total_iters": 90, "power": 1.7}),
    "CosineAnnealingLR": Leaf("CosineAnnealingLR", {"T_max": 17, "eta_min": 0.003}),
    "CosineAnnealingWarmRestarts": Leaf("CosineAnnealingWarmRestarts", {"T_0": 4, "T_mult": 2}),
    "CyclicLR": Leaf(
        "CyclicLR",
        {"base_lr": 0.1, "max_lr": [0.4, 0.3], "step_size_up": 8, "step_size_down": 5,
         "mode": "triangular2"},
    ),
    "OneCycleLR": Leaf("OneCycleLR", {"max_lr": [0.4, 0.7], "total_steps": 70}),
    "SWALR": Leaf("SWALR", {"swa_lr": 0.05, "anneal_epochs": 31}),
    "ReduceLROnPlateau": Leaf("ReduceLROnPlateau", {"factor": 0.8, "patience": 2, "cooldown": 3}),
}  # fmt: skip


def of_first_group(leaf: Leaf) -> Leaf:
    """The same scheduler for an optimizer of one group."""

    def first(value: Any) -> Any:
        return value[0] if isinstance(value, (list, tuple)) else value

    own = {k: v if k == "milestones" else first(v) for k, v in leaf.options.items()}
    return Leaf(leaf.name, own)


SINGLE = {name: of_first_group(leaf) for name, leaf in EXAMPLES.items()}


# Those whose step moves the present rate, so that several may share one optimizer.
CHAINABLE: dict[str, Leaf] = {
    name: EXAMPLES[name]
    for name in (
        "StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR", "MultiplicativeLR",
    )
} | {
    "PolynomialLR": Leaf("PolynomialLR", {"total_iters": 150, "power": 1.7}),
    "CosineAnnealingLR": Leaf("CosineAnnealingLR", {"T_max": 140}),
    "CosineAnnealingLR-waves": Leaf("CosineAnnealingLR", {"T_max": 11}),
    "CosineAnnealingLR-eta": Leaf("CosineAnnealingLR", {"T_max": 140, "eta_min": 0.003}),
    "SWALR-arrives": Leaf("SWALR", {"swa_lr": 0.05, "anneal_epochs": 20}),
    "SWALR-cos": Leaf("SWALR", {"swa_lr": 0.05, "anneal_epochs": 130}),
    "SWALR-linear": Leaf(
        "SWALR", {"swa_lr": 0.05, "anneal_epochs": 130, "anneal_strategy": "linear"}
    ),
}  # fmt: skip


@functools.cache
def torchs(tree: Tree, steps: int) -> list[list[float]]:
    """torch's schedulers on torch's SGD with float rates: the reference."""
    return trajectory(TORCH, (tree,), steps, make_optimizer(momentum=0.9))
