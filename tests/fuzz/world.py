"""A program of what is done to an optimizer, and the optimizer with its parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

SHAPES = ((3,), (2, 4), (), (17, 5), (0, 3), (2, 3, 2), (4, 1), (40, 30))


class Program(NamedTuple):
    """What is done, in which order."""

    name: str
    options: dict[str, Any]
    dtype: str
    shapes: tuple[int, ...]  # places in SHAPES
    commands: tuple[tuple[Any, ...], ...]


@dataclass
class World:
    """An optimizer with its parameters, as the commands find them."""

    module: Any
    program: Program
    params: list[Parameter]
    optimizer: Any
    seed: int = 0
    absent: set[int] = field(default_factory=set)
    sparse: set[int] = field(default_factory=set)
    layouts: dict[int, int] = field(default_factory=dict)
    # Of each interrupted step in turn, which parameters it updated: noted or, as told, repeated.
    updated: list[list[int]] = field(default_factory=list)
    told: list[list[int]] | None = None

    def param(self, number: int) -> Parameter:
        return self.params[number % len(self.params)]

    def gradients(self) -> None:
        """Give each parameter a gradient, but for those that get none this time."""
        self.seed += 1
        for k, p in enumerate(self.params):
            if k in self.absent or not p.requires_grad:
                p.grad = None
                continue
            draw = torch.Generator(device="cpu").manual_seed(100 * self.seed + k)
            dense = torch.randn(
                tuple(p.shape), generator=draw, dtype=torch.float64, device="cpu"
            ).to(p.device, p.dtype)
            p.grad = None
            if p.dim() and (k in self.sparse or self.program.name == "SparseAdam"):
                kept = dense * (dense.reshape(len(p), -1).sum(1) > 0).view(-1, *[1] * (p.dim() - 1))
                p.grad = kept.to_sparse(1)
            elif self.program.name != "SparseAdam":
                p.grad = _laid_out(dense, self.layouts.get(k, 0))
        self.absent, self.sparse, self.layouts = set(), set(), {}


def _laid_out(dense: Tensor, how: int) -> Tensor:
    """The same numbers in another layout."""
    if how == 1 and dense.dim() > 1:
        return dense.mT.contiguous().mT
    if how == 2:
        room = torch.zeros(*dense.shape, 2, dtype=dense.dtype, device=dense.device)
        room[..., 0] = dense
        return room[..., 0]
    if how == 3 and dense.numel():
        return dense.reshape(-1)[:1].reshape([1] * dense.dim()).expand(dense.shape)
    if how == 4:
        return torch._neg_view(-dense)
    return dense


def parameter(shape: tuple[int, ...], program: Program, seed: int) -> Parameter:
    draw = torch.Generator(device="cpu").manual_seed(seed)
    numbers = torch.randn(shape, generator=draw, dtype=torch.float64, device="cpu")
    seen = not program.options.get("differentiable")
    return Parameter(numbers.to(getattr(torch, program.dtype)), requires_grad=seen)
