"""ADOPT: Adam that normalizes each gradient by the second moment of those before it.

Paper: Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate",
2024, Algorithm 2, with the clipping of its section 4 (t^(1/4)).
"""

from typing import Any, Unpack

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, clip, lerp, maximum, sqrt
from thalweg.transforms import maximized
from thalweg.transforms.decoupled import shrunk
from thalweg.transforms.l2 import penalized


def adopt(p: Any, g: Any, s: Any, h: Any) -> Any:
    if not h.decoupled_weight_decay:
        g = penalized(g, p, h)
    if h.step == 1:  # there is no gradient before this one: nothing moves
        s.exp_avg, s.exp_avg_sq = s.exp_avg, g * g
        return p
    if h.decoupled_weight_decay:
        p = shrunk(p, h)
    limit = (h.step - 1) ** 0.25
    normed = clip(g / maximum(sqrt(s.exp_avg_sq), h.eps), -limit, limit)
    s.exp_avg = m = lerp(s.exp_avg, normed, 1 - h.beta1)
    s.exp_avg_sq = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
    return p - h.lr * m


class ADOPT(Optimizer):
    """ADOPT: a momentum of gradients that the second moment of those before them has normalized.

    ::

        g <- g + weight_decay * p             (decoupled: p <- p * (1 - lr * weight_decay))
        t = 1:  v <- g^2, and nothing else
        t > 1:  n  = clip(g / max(sqrt(v), eps), +-(t - 1)^(1/4))
                m <- beta1 * m + (1 - beta1) * n
                v <- beta2 * v + (1 - beta2) * g^2
                p <- p - lr * m

    Converges with any beta2. The first update of a parameter moves nothing.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of m and v, each >= 0 and < 1.
        eps: the least denominator, >= 0.
        weight_decay: L2 regularization, or decoupled weight decay, >= 0.
        decoupled_weight_decay: let weight_decay act on the parameter itself.

    The defaults are those of the authors' code (iShohei220/adopt).

    States:
        step: updates made, 0-d.
        exp_avg: m, shape of the parameter.
        exp_avg_sq: v, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.ones(1)
    >>> optimizer = ADOPT([p], lr=0.1)
    >>> optimizer.step()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.99
    """

    rule = Rule(adopt, {"exp_avg": 0.0, "exp_avg_sq": 0.0})
    transforms = (maximized(),)
    ranges = {
        "lr": NON_NEGATIVE,
        "betas": (FRACTION, FRACTION),
        "eps": NON_NEGATIVE,
        "weight_decay": NON_NEGATIVE,
    }

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given(locals()), **extras)
