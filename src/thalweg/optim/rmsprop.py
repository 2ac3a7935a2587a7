"""RMSprop.

Source: Hinton, Srivastava and Swersky, "Neural Networks for Machine Learning", lecture 6e, 2012.
Centered: Graves, "Generating Sequences With Recurrent Neural Networks", 2013, equations (38)-(41),
with eps added to the root, as torch has it; and no variance is below 0, which torch lets rounding
make it, to take the root of.
"""

from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given_but_fused
from thalweg.ranges import NON_NEGATIVE
from thalweg.rule import Rule, lerp, maximum, sqrt
from thalweg.transforms import l2_decay, maximized


def rmsprop(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.square_avg = variance = h.alpha * s.square_avg + (1 - h.alpha) * g * g
    if h.centered:
        s.grad_avg = lerp(s.grad_avg, g, 1 - h.alpha)
        # Rounding may leave less than nothing of a variance that is small beside the mean.
        variance = maximum(variance - s.grad_avg * s.grad_avg, 0.0)
    denominator = sqrt(variance) + h.eps
    if h.momentum > 0:
        s.momentum_buffer = h.momentum * s.momentum_buffer + g / denominator
        return p - h.lr * s.momentum_buffer
    return p - h.lr * g / denominator


class RMSprop(Optimizer, torch.optim.RMSprop):
    """RMSprop: the gradient divided by a running root of its mean square.

    ::

        g   <- g + weight_decay * p
        v   <- alpha * v + (1 - alpha) * g^2
        a   <- alpha * a + (1 - alpha) * g,  v' = max(v - a^2, 0)   (centered; else v' = v)
        buf <- momentum * buf + g / (sqrt(v') + eps)
        p   <- p - lr * buf

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        alpha: decay rate of the means, >= 0.
        eps: added to the denominator, >= 0.
        weight_decay: L2 regularization, >= 0.
        momentum: share of the last step that is kept, >= 0.
        centered: divide by an estimate of the standard deviation instead of the root mean square.

    States:
        step: updates made, 0-d.
        square_avg: v, shape of the parameter.
        grad_avg: a, likewise; only if centered.
        momentum_buffer: buf, likewise; only with momentum.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.tensor([3.0])
    >>> RMSprop([p], lr=0.25, alpha=0.75).step()  # the first step is lr / sqrt(1 - alpha)
    >>> round(p.item(), 6)
    0.5
    """

    rule = Rule(
        rmsprop,
        {"square_avg": 0.0, "momentum_buffer": 0.0, "grad_avg": 0.0},
    )
    transforms = (l2_decay(), maximized())
    ranges = {
        "lr": NON_NEGATIVE,
        "alpha": NON_NEGATIVE,
        "eps": NON_NEGATIVE,
        "momentum": NON_NEGATIVE,
    }

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given_but_fused(locals()), fused=fused, **extras)
