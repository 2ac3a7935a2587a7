"""Tasks that train in a moment."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.race import Task

ROWS, FEATURES, BATCH = 24, 3, 8


def rows(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, FEATURES, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1


TRAIN, TEST = rows(ROWS, 0), rows(10, 1)


def batches(split: str, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    if split == "test":
        yield TEST[0][:5], TEST[1][:5]
        yield TEST[0][5:], TEST[1][5:]
        return
    order = torch.randperm(ROWS, generator=generator)
    for part in order.view(-1, BATCH):
        yield TRAIN[0][part], TRAIN[1][part]


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def near(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The share of outputs that are right to one half."""
    return ((model(batch[0]) - batch[1]).abs() < 0.5).double().mean()


LINE = Task(
    name="line",
    model=lambda: nn.Linear(FEATURES, 1),
    batches=batches,
    loss=squared_error,
    target=0.5,
    steps=40,
    description="a line through 24 points",
)
SCORED = replace(LINE, name="scored", score=near, metric="near", target=0.9)
DROPPED = replace(
    LINE,
    name="dropped",
    model=lambda: nn.Sequential(nn.Linear(FEATURES, 6), nn.Dropout(0.5), nn.Linear(6, 1)),
)


def line() -> Task:
    """For ``--task`` and ``my_module:build``."""
    return LINE


def changed(**changes: Any) -> Task:
    return replace(LINE, **changes)


class Freezes(torch.optim.SGD):
    """It switches the parameters' gradients off."""

    def step(self, closure: Any = None) -> Any:
        value = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.requires_grad_(False)
        return value


class Scaled(torch.optim.Optimizer):
    """Plain descent whose step has an argument that is no closure, and no state."""

    def __init__(self, params: Any, lr: float = 0.5) -> None:
        super().__init__(params, {"lr": lr})
        del self.state

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p -= scale * group["lr"] * p.grad


class NoClosure(torch.optim.Optimizer):
    """Plain descent whose step takes no closure, as some people write it."""

    def __init__(self, params: Any, lr: float = 0.5) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad


class Deaf(NoClosure):
    """Takes a closure and does not call it."""

    def step(self, closure: Any = None) -> None:
        pass


class Bursts(NoClosure):
    """Good until its twelfth step, and lost from then on unless its rate is small."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        super().step()
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls > 12 and self.defaults["lr"] > 0.005:
            for p in self.param_groups[0]["params"]:
                p.fill_(torch.nan)


class Fails(NoClosure):
    """Refuses to work from its third step on."""

    def step(self, closure: Any = None) -> None:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls > 2:
            raise RuntimeError("no third step")
        if closure is not None:
            closure()
        super().step()
