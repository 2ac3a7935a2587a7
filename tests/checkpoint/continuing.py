"""Training runs that are saved half way, and gone on with in another process.

    python -m tests.checkpoint.continuing begin FOLDER NAME...

trains each run to its end, saves it on the way, and prints a digest of all that it ended with;
``continue`` goes on from what was saved. A run is named optimizer/schedule/average.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import thalweg.optim as optim
from tests.optim.lr_scheduler.cases import OURS, SINGLE, Leaf, Tree, chain, metric, seq
from tests.optim.problems import DENSE, bits
from thalweg import checkpoint
from thalweg.optim.lr_scheduler import ReduceLROnPlateau, ScheduledHyperparameters
from thalweg.optim.swa_utils import AveragedModel, CarriedAverage, get_ema_multi_avg_fn
from thalweg.schedules import Cosine

OPTIMIZERS = (*DENSE, "SparseAdam", "LBFGS")
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9}, "Adam": {"amsgrad": True}, "RMSprop": {"momentum": 0.5},
    "LBFGS": {"max_iter": 2},
}  # fmt: skip
SCHEDULES: dict[str, Tree | None] = {
    **SINGLE,
    "SequentialLR": seq([Leaf("ConstantLR"), SINGLE["CosineAnnealingLR"]], [4]),
    "ChainedScheduler": chain(SINGLE["LinearLR"], SINGLE["ExponentialLR"]),
    "ScheduledHyperparameters": None,
}
AVERAGES = ("none", "SWA", "EMA", "carried")
STEPS = 10


def name_of(optimizer: str, schedule: str, average: str) -> str:
    return f"{optimizer}/{schedule}/{average}"


# A carried average of sparse rows does not exist, nor one in LBFGS.
ALL = [
    name_of(*each)
    for each in itertools.product(OPTIMIZERS, SCHEDULES, AVERAGES)
    if not (each[2] == "carried" and each[0] in ("SparseAdam", "LBFGS"))
]
# Each optimizer with each average, under a schedule of which it is the turn.
SOME = [
    name
    for i, (optimizer, average) in enumerate(itertools.product(OPTIMIZERS, AVERAGES))
    if (name := name_of(optimizer, list(SCHEDULES)[5 * i % len(SCHEDULES)], average)) in ALL
]


class Run:
    """Model, optimizer, schedule and average, as a script would build them, always the same."""

    def __init__(self, name: str) -> None:
        optimizer, schedule, average = name.split("/")
        self.seed = sum(map(ord, name))
        torch.manual_seed(self.seed)
        sparse = optimizer == "SparseAdam"
        self.model = nn.Sequential(
            nn.Embedding(7, 3, sparse=sparse), nn.Dropout(0.3), *([] if sparse else [
                nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)])
        )  # fmt: skip
        options = OPTIONS.get(optimizer, {})
        self.optimizer: Any = getattr(optim, optimizer)(self.model.parameters(), **options)
        self.carried = CarriedAverage(self.optimizer, 0.9) if average == "carried" else None
        self.parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}
        self.schedule = self.parts["schedule"] = self._schedule(schedule)
        if average in ("SWA", "EMA"):
            given = get_ema_multi_avg_fn(0.9) if average == "EMA" else None
            self.parts["average"] = AveragedModel(self.model, multi_avg_fn=given, use_buffers=True)

    def _schedule(self, name: str) -> Any:
        tree = SCHEDULES[name]
        if tree is None:
            return ScheduledHyperparameters(self.optimizer, lr=0.01 * Cosine(1, 0.1, steps=20))
        group = self.optimizer.defaults
        if name in ("CyclicLR", "OneCycleLR") and "momentum" not in group and "betas" not in group:
            assert isinstance(tree, Leaf)
            tree = Leaf(tree.name, {**tree.options, "cycle_momentum": False})
        return tree.build(OURS, self.optimizer)

    def step(self, step: int) -> None:
        rows = torch.randint(7, (8,), generator=torch.Generator().manual_seed(step))

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            loss = (self.model(rows) - 0.5).square().mean()
            loss.backward()
            return loss

        self.optimizer.step(closure)
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(metric(step))
        else:
            self.schedule.step()
        if "average" in self.parts:
            self.parts["average"].update_parameters(self.model)

    def digest(self) -> str:
        """Of parameters, buffers, states, rates, averages and random numbers."""
        found = {name: part.state_dict() for name, part in self.parts.items()}
        found["schedule"] = (
            self.schedule.get_last_lr() if hasattr(self.schedule, "get_last_lr") else None
        )
        if self.carried is not None:
            found["carried"] = [self.carried.of(p) for p in self.model.parameters()]
        found["random"] = torch.get_rng_state()
        groups = found["optimizer"].pop("param_groups")
        found["groups"] = [sorted(group.items(), key=lambda item: item[0]) for group in groups]
        return hashlib.sha256(repr(bits(found)).encode()).hexdigest()


def path_of(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '-')}.safetensors"


def begin(folder: Path, name: str) -> str:
    run = Run(name)
    saved = random.Random(name).randrange(1, STEPS)
    for step in range(STEPS):
        if step == saved:
            checkpoint.save(
                folder / f"{name.replace('/', '-')}.safetensors", **run.parts, step=step
            )
        run.step(step)
    return run.digest()


def go_on(folder: Path, name: str) -> str:
    run = Run(name)
    torch.manual_seed(12345)
    found = checkpoint.load(path_of(folder, name), **run.parts)
    for step in range(found["step"], STEPS):
        run.step(step)
    return run.digest()


def main() -> None:
    torch.set_num_threads(1)
    what, folder, *names = sys.argv[1:]
    act = {"begin": begin, "continue": go_on}[what]
    print(json.dumps({name: act(Path(folder), name) for name in names}))


if __name__ == "__main__":
    main()
