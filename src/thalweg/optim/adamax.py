"""Adamax: Adam with the infinity norm.

Paper: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, Algorithm 2. The paper has
no eps; like torch's, this one adds it to |g| before the maximum, so that the norm is never zero.
"""

from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given_but_fused
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, abs, lerp, maximum
from thalweg.transforms import l2_decay, maximized


def adamax(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta1)
    s.exp_inf = maximum(h.beta2 * s.exp_inf, abs(g) + h.eps)
    return p - h.lr / (1 - h.beta1**h.step) * s.exp_avg / s.exp_inf


class Adamax(Optimizer, torch.optim.Adamax):
    """Adamax: steps bounded by lr, from the running mean and the running maximum of the gradient.

    ::

        g <- g + weight_decay * p
        m <- beta1 * m + (1 - beta1) * g
        u <- max(beta2 * u, |g| + eps)
        p <- p - lr / (1 - beta1^t) * m / u

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of the mean and of the maximum, each >= 0 and < 1.
        eps: added to |g|, >= 0.
        weight_decay: L2 regularization, >= 0.

    States:
        step: updates made, 0-d.
        exp_avg, exp_inf: m and u, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.tensor([8.0])
    >>> Adamax([p], lr=0.25).step()
    >>> p.item()
    0.75
    """

    rule = Rule(adamax, {"exp_avg": 0.0, "exp_inf": 0.0})
    transforms = (l2_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "betas": (FRACTION, FRACTION), "eps": NON_NEGATIVE}

    def __init__(
        self,
        params: Params,
        lr: Number = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given_but_fused(locals()), fused=fused, **extras)
