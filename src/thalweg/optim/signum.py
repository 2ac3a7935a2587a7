"""Signum: the sign of a momentum.

Paper: Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", 2018,
Algorithm 2.
"""

from typing import Any, Unpack

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, lerp, sign
from thalweg.transforms import decoupled_decay, maximized


def signum(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.momentum_buffer = m = lerp(s.momentum_buffer, g, 1 - h.momentum)
    return p - h.lr * sign(m)


class Signum(Optimizer):
    """Signum: steps of lr in the direction of the momentum's sign.

    ::

        p <- p * (1 - lr * weight_decay)
        m <- momentum * m + (1 - momentum) * g
        p <- p - lr * sign(m)

    With ``momentum=0`` it is signSGD. It needs large batches, as Lion does.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        momentum: decay rate of m, >= 0 and < 1.
        weight_decay: share of the parameter, times lr, taken off at each step, >= 0.

    The momentum of 0.9 is the paper's; lr is Lion's, whose steps are as long.

    States:
        step: updates made, 0-d.
        momentum_buffer: m, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> Signum([p], lr=0.25).step()
    >>> p.tolist()
    [0.75, 1.25]
    """

    rule = Rule(signum, {"momentum_buffer": 0.0})
    transforms = (decoupled_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "momentum": FRACTION}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-4,
        momentum: float = 0.9,
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
