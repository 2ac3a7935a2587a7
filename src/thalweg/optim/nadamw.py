"""NAdamW: AdamW with Nesterov's momentum.

Paper: Choi et al., "On Empirical Comparisons of Optimizers for Deep Learning", 2019, Table 1
(NADAM with a constant momentum); weight decay: Loshchilov and Hutter, "Decoupled Weight Decay
Regularization", 2019, Algorithm 2.
"""

from typing import Any, Unpack

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, lerp, sqrt
from thalweg.transforms import decoupled_decay, maximized


def nadamw(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.exp_avg = m = lerp(s.exp_avg, g, 1 - h.beta1)
    s.exp_avg_sq = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
    ahead = h.beta1 * m + (1 - h.beta1) * g
    bias1, bias2 = 1 - h.beta1**h.step, 1 - h.beta2**h.step
    return p - h.lr / bias1 * ahead / (sqrt(s.exp_avg_sq / bias2) + h.eps)


class NAdamW(Optimizer):
    """NAdamW: AdamW that looks ahead along the momentum.

    ::

        p <- p * (1 - lr * weight_decay)
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2
        u  = beta1 * m + (1 - beta1) * g
        p <- p - lr * (u / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Another rule than :class:`NAdam` with decoupled decay, whose momentum has a schedule. A strong
    baseline: second in AlgoPerf's self-tuning track of 2024.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of the two means, each >= 0 and < 1.
        eps: added to the denominator, >= 0.
        weight_decay: share of the parameter, times lr, taken off at each step, >= 0.

    The defaults are those of :class:`AdamW`.

    States:
        step: updates made, 0-d.
        exp_avg, exp_avg_sq: m and v, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.ones(1)
    >>> NAdamW([p], lr=0.1, weight_decay=0.0).step()
    >>> round(p.item(), 6)  # 1.9 times as far as AdamW
    0.81
    """

    rule = Rule(nadamw, {"exp_avg": 0.0, "exp_avg_sq": 0.0})
    transforms = (decoupled_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "betas": (FRACTION, FRACTION), "eps": NON_NEGATIVE}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given(locals()), **extras)
