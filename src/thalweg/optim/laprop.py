"""LaProp: Adam with the momentum taken after the normalization.

Paper: Ziyin, Wang and Ueda, "LaProp: Separating Momentum and Adaptivity in Adam", 2020,
Algorithm 1, with lr outside of the momentum, so that a schedule acts at once.
"""

from typing import Any, Unpack

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, lerp, sqrt
from thalweg.transforms import decoupled_decay, maximized


def laprop(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.exp_avg_sq = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
    bias1, bias2 = 1 - h.beta1**h.step, 1 - h.beta2**h.step
    normed = g / (sqrt(s.exp_avg_sq / bias2) + h.eps)
    s.exp_avg = m = lerp(s.exp_avg, normed, 1 - h.beta1)
    return p - h.lr / bias1 * m


class LaProp(Optimizer):
    """LaProp: a momentum of gradients that are normalized one by one.

    ::

        p <- p * (1 - lr * weight_decay)
        v <- beta2 * v + (1 - beta2) * g^2
        m <- beta1 * m + (1 - beta1) * g / (sqrt(v / (1 - beta2^t)) + eps)
        p <- p - lr * m / (1 - beta1^t)

    Stable where beta2 is smaller than beta1, as Adam is not. With ``beta1=0`` it is Adam's.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of m and v, each >= 0 and < 1.
        eps: added to the denominator, >= 0.
        weight_decay: share of the parameter, times lr, taken off at each step, >= 0.

    The defaults are the paper's.

    States:
        step: updates made, 0-d.
        exp_avg_sq, exp_avg: v and m, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.ones(1)
    >>> LaProp([p], lr=0.1).step()
    >>> round(p.item(), 6)
    0.9
    """

    rule = Rule(laprop, {"exp_avg_sq": 0.0, "exp_avg": 0.0})
    transforms = (decoupled_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "betas": (FRACTION, FRACTION), "eps": NON_NEGATIVE}

    def __init__(
        self,
        params: Params,
        lr: Number = 4e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-15,
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
