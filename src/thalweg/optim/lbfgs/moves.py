"""All parameters as one vector: their gradient, and moves along a direction."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.lbfgs.history import product
from thalweg.optim.lbfgs.line_search import Point, strong_wolfe

Evaluate = Callable[[], tuple[Any, Tensor]]
"""Calls the closure; its result, and all gradients as one vector."""


def real(x: Tensor) -> Tensor:
    """A complex tensor as pairs of numbers."""
    return torch.view_as_real(x) if x.is_complex() else x


def search_along(
    evaluate: Evaluate,
    params: list[Tensor],
    d: Tensor,
    t: float,
    start: Point,
    max_ls: int,
    tolerance_change: float,
) -> tuple[Point, int]:
    """Move the parameters to the point that the line search accepts; also the evaluations made."""
    origin = [p.clone() for p in params]

    def trial(t: float) -> Point:
        move(params, origin, d, t)
        loss, gradient = evaluate()
        return Point(t, float(loss), gradient, product(gradient, d))

    largest = float(d.abs().max())
    point, used = strong_wolfe(
        trial, start, t, largest, max_ls=max_ls, tolerance_change=tolerance_change
    )
    if point is start:  # which t = 0 does not lead to where d is infinite
        for p, before in zip(params, origin, strict=True):
            p.copy_(before)
    else:
        move(params, origin, d, point.t)
    return point, used


def flat_gradient(params: list[Tensor]) -> Tensor:
    """All gradients as one new vector [n] of real numbers."""
    return torch.cat([_flat(_dense_gradient(p)) for p in params])


def _dense_gradient(p: Tensor) -> Tensor:
    if p.grad is None:
        return torch.zeros_like(p)
    return p.grad.to_dense() if p.grad.is_sparse else p.grad


def _flat(x: Tensor) -> Tensor:
    return real(x).reshape(-1)


def move(params: list[Tensor], origin: list[Tensor], d: Tensor, t: float) -> None:
    """Set the parameters to origin + t d."""
    offset = 0
    for p, start in zip(map(real, params), map(real, origin), strict=True):
        part = d[offset : offset + p.numel()].view(p.shape)
        torch.add(start, part, alpha=t, out=p)
        offset += p.numel()
