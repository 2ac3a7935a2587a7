"""Adan: Adam with Nesterov's momentum, estimated from differences of gradients.

Paper: Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models",
2022, Algorithm 1, with the bias corrections of the authors' code.
"""

from typing import Any, Unpack

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, lerp, sqrt
from thalweg.transforms import maximized


def adan(p: Any, g: Any, s: Any, h: Any) -> Any:
    change = g - (s.previous_grad if h.step > 1 else g)
    ahead = g + h.beta2 * change
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta1)
    s.exp_avg_diff = lerp(s.exp_avg_diff, change, 1 - h.beta2)
    s.exp_avg_sq = h.beta3 * s.exp_avg_sq + (1 - h.beta3) * ahead * ahead
    s.previous_grad = g
    bias1, bias2 = 1 - h.beta1**h.step, 1 - h.beta2**h.step
    bias3 = 1 - h.beta3**h.step
    moved = s.exp_avg / bias1 + h.beta2 / bias2 * s.exp_avg_diff
    new = p - h.lr * moved / (sqrt(s.exp_avg_sq) / sqrt(bias3) + h.eps)
    return new / (1 + h.lr * h.weight_decay) if h.weight_decay else new


class Adan(Optimizer):
    """Adan: steps from means of the gradient, of its change, and of the square of both.

    ::

        d  = g - previous g                   (0 at the first update)
        m <- beta1 * m + (1 - beta1) * g
        c <- beta2 * c + (1 - beta2) * d
        n <- beta3 * n + (1 - beta3) * (g + beta2 * d)^2
        u  = (m / (1 - beta1^t) + beta2 * c / (1 - beta2^t)) / (sqrt(n / (1 - beta3^t)) + eps)
        p <- (p - lr * u) / (1 + lr * weight_decay)

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of m, c and n, each >= 0 and < 1. The paper's are 1 minus these.
        eps: added to the denominator, >= 0.
        weight_decay: of the proximal step, which divides, >= 0.

    The defaults are those of the authors' code (sail-sg/Adan).

    States:
        step: updates made, 0-d.
        exp_avg, exp_avg_diff, exp_avg_sq: m, c and n, shape of the parameter.
        previous_grad: the gradient of the update before, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.ones(1)
    >>> Adan([p], lr=0.1).step()
    >>> round(p.item(), 6)
    0.9
    """

    rule = Rule(
        adan,
        {"exp_avg": 0.0, "exp_avg_diff": 0.0, "exp_avg_sq": 0.0, "previous_grad": 0.0},
    )
    transforms = (maximized(),)
    ranges = {
        "lr": NON_NEGATIVE,
        "betas": (FRACTION, FRACTION, FRACTION),
        "eps": NON_NEGATIVE,
        "weight_decay": NON_NEGATIVE,
    }

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given(locals()), **extras)
