"""NAdam: Adam with Nesterov momentum.

Paper: Dozat, "Incorporating Nesterov Momentum into Adam", 2016, Algorithm 2, with the momentum
schedule of its section 3 (0.96 as in the paper, momentum_decay for its 1/250).
"""

from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given_but_fused
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, State, lerp, sqrt
from thalweg.transforms import maximized, switchable_decay


def nadam(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta1)
    s.exp_avg_sq = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
    mu = h.beta1 * (1 - 0.5 * 0.96 ** (h.step * h.momentum_decay))
    mu_next = h.beta1 * (1 - 0.5 * 0.96 ** ((h.step + 1) * h.momentum_decay))
    s.mu_product = s.mu_product * mu
    g_share = h.lr * (1 - mu) / (1 - s.mu_product)
    m_share = h.lr * mu_next / (1 - s.mu_product * mu_next)
    denominator = sqrt(s.exp_avg_sq / (1 - h.beta2**h.step)) + h.eps
    return p - (g_share * g + m_share * s.exp_avg) / denominator


class NAdam(Optimizer, torch.optim.NAdam):
    """NAdam: Adam that looks ahead along the momentum.

    ::

        g  <- g + weight_decay * p            (decoupled: p <- p * (1 - lr * weight_decay))
        m  <- beta1 * m + (1 - beta1) * g
        v  <- beta2 * v + (1 - beta2) * g^2
        mu_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2),   M_t = mu_1 * ... * mu_t
        m' = mu_{t+1} * m / (1 - M_{t+1}) + (1 - mu_t) * g / (1 - M_t)
        p  <- p - lr * m' / (sqrt(v / (1 - beta2^t)) + eps)

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of the two means, each >= 0 and < 1.
        eps: added to the denominator, >= 0.
        weight_decay: L2 regularization, or decoupled weight decay, >= 0.
        momentum_decay: how fast the momentum rises from beta1 / 2 to beta1, per step, >= 0.
        decoupled_weight_decay: let weight_decay act on the parameter itself.

    States:
        step: updates made, 0-d.
        mu_product: M_t, 0-d.
        exp_avg, exp_avg_sq: m and v, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.ones(1)
    >>> NAdam([p], lr=0.1).step()
    >>> bool(p < 0.9 + 1e-6)
    True
    """

    rule = Rule(
        nadam,
        {"mu_product": State(1.0, scalar=True), "exp_avg": 0.0, "exp_avg_sq": 0.0},
    )
    transforms = (switchable_decay(), maximized())
    ranges = {
        "lr": NON_NEGATIVE,
        "betas": (FRACTION, FRACTION),
        "eps": NON_NEGATIVE,
        "momentum_decay": NON_NEGATIVE,
    }

    def __init__(
        self,
        params: Params,
        lr: Number = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
