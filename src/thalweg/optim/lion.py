"""Lion.

Paper: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, Algorithm 2.
"""

from typing import Any, Unpack

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, lerp, sign
from thalweg.transforms import decoupled_decay, maximized


def lion(p: Any, g: Any, s: Any, h: Any) -> Any:
    update = sign(lerp(s.exp_avg, g, 1 - h.beta1))
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta2)
    return p - h.lr * update


class Lion(Optimizer):
    """Lion: steps of lr in the direction of the sign of an interpolated momentum.

    ::

        p <- p * (1 - lr * weight_decay)
        p <- p - lr * sign(beta1 * m + (1 - beta1) * g)
        m <- beta2 * m + (1 - beta2) * g

    Every element moves by lr, so lr is to be 3 to 10 times smaller than AdamW's, and weight_decay
    as much larger. It needs large batches.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: shares of m in the update and of its own decay, each >= 0 and < 1.
        weight_decay: share of the parameter, times lr, taken off at each step, >= 0.

    The defaults are those of the authors' code (google/automl).

    States:
        step: updates made, 0-d.
        exp_avg: m, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> Lion([p], lr=0.25).step()
    >>> p.tolist()
    [0.75, 1.25]
    """

    rule = Rule(lion, {"exp_avg": 0.0})
    transforms = (decoupled_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "betas": (FRACTION, FRACTION)}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
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
