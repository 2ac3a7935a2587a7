"""Adadelta.

Paper: Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, Algorithm 1, with a learning rate
(the paper's is 1).
"""

from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given_but_fused
from thalweg.ranges import NON_NEGATIVE, Range
from thalweg.rule import Rule, sqrt
from thalweg.transforms import l2_decay, maximized


def adadelta(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.square_avg = h.rho * s.square_avg + (1 - h.rho) * g * g
    delta = sqrt(s.acc_delta + h.eps) / sqrt(s.square_avg + h.eps) * g
    s.acc_delta = h.rho * s.acc_delta + (1 - h.rho) * delta * delta
    return p - h.lr * delta


class Adadelta(Optimizer, torch.optim.Adadelta):
    """Adadelta: steps in the parameter's own unit, from running means of g^2 and of the steps^2.

    ::

        g  <- g + weight_decay * p
        v  <- rho * v + (1 - rho) * g^2
        dx =  sqrt(u + eps) / sqrt(v + eps) * g
        u  <- rho * u + (1 - rho) * dx^2
        p  <- p - lr * dx

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: factor on the step, >= 0.
        rho: decay rate of both means, >= 0 and <= 1.
        eps: added under both roots, >= 0; sets the size of the first steps.
        weight_decay: L2 regularization, >= 0.

    States:
        step: updates made, 0-d.
        square_avg, acc_delta: v and u, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.ones(1)
    >>> Adadelta([p], rho=0.75, eps=1e-4).step()
    >>> round(1 - p.item(), 4)  # sqrt(eps / (0.25 + eps))
    0.02
    """

    rule = Rule(adadelta, {"square_avg": 0.0, "acc_delta": 0.0})
    transforms = (l2_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "rho": Range(0, 1, open="neither"), "eps": NON_NEGATIVE}

    def __init__(
        self,
        params: Params,
        lr: Number = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given_but_fused(locals()), fused=fused, **extras)
