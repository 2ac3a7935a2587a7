"""RAdam: Adam with its variance rectified during the first steps.

Paper: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, Algorithm 2,
with torch's threshold (rho > 5 where the paper has 4).
"""

from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given_but_fused
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, lerp, sqrt, where
from thalweg.transforms import maximized, switchable_decay


def radam(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta1)
    s.exp_avg_sq = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
    bias1, bias2 = 1 - h.beta1**h.step, 1 - h.beta2**h.step
    rho_inf = 2 / (1 - h.beta2) - 1
    rho = rho_inf - 2 * h.step * h.beta2**h.step / bias2
    rectifier = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    adaptive = rectifier * sqrt(bias2) / (sqrt(s.exp_avg_sq) + h.eps)
    return p - h.lr / bias1 * s.exp_avg * where(rho > 5, adaptive, 1)


class RAdam(Optimizer, torch.optim.RAdam):
    """RAdam: momentum alone while the second moment rests on too few gradients, then Adam.

    ::

        g <- g + weight_decay * p             (decoupled: p <- p * (1 - lr * weight_decay))
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        rho_inf = 2 / (1 - beta2) - 1,   rho = rho_inf - 2 t beta2^t / (1 - beta2^t)
        r = sqrt((rho - 4)(rho - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho))
        a = r * sqrt(1 - beta2^t) / (sqrt(v) + eps) if rho > 5 else 1
        p <- p - lr * m / (1 - beta1^t) * a

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of the two means, each >= 0 and < 1.
        eps: added to the denominator, >= 0.
        weight_decay: L2 regularization, or decoupled weight decay, >= 0.
        decoupled_weight_decay: let weight_decay act on the parameter itself.

    States:
        step: updates made, 0-d.
        exp_avg, exp_avg_sq: m and v, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.tensor([2.0])
    >>> RAdam([p], lr=0.25).step()  # the first five steps are momentum
    >>> p.item()
    0.5
    """

    rule = Rule(radam, {"exp_avg": 0.0, "exp_avg_sq": 0.0})
    transforms = (switchable_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "betas": (FRACTION, FRACTION), "eps": NON_NEGATIVE}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given_but_fused(locals()), fused=fused, **extras)
