"""Adam.

Paper: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, Algorithm 1.
AMSGrad: Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", 2018, Algorithm 2, on
moments without bias correction, as torch has it.
"""

from collections.abc import Mapping
from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import check_tensor_options, given
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, lerp, maximum, sqrt
from thalweg.transforms import maximized, switchable_decay


def adam(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta1)
    # No lerp here: once infinite, the second moment must stay so and stop the parameter.
    s.exp_avg_sq = v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
    if h.amsgrad:
        s.max_exp_avg_sq = v = maximum(s.max_exp_avg_sq, v)
    bias1, bias2 = 1 - h.beta1**h.step, 1 - h.beta2**h.step
    return p - h.lr / bias1 * s.exp_avg / (sqrt(v) / sqrt(bias2) + h.eps)


STATES = {"exp_avg": 0.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0}


class Adam(Optimizer, torch.optim.Adam):
    """Adam: steps of about lr, from running means of the gradient and of its square.

    ::

        g <- g + weight_decay * p             (decoupled: p <- p * (1 - lr * weight_decay))
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g^2    (amsgrad: the largest v so far is used below)
        p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of the two means, each >= 0 and < 1.
        eps: added to the denominator, >= 0.
        weight_decay: L2 regularization, or decoupled weight decay, >= 0.
        amsgrad: use the largest second moment so far.
        decoupled_weight_decay: let weight_decay act on the parameter itself (AdamW).

    States:
        step: updates made, 0-d.
        exp_avg, exp_avg_sq: m and v, shape of the parameter.
        max_exp_avg_sq: the largest v, shape of the parameter; only with amsgrad.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> Adam([p], lr=0.1).step()
    >>> p  # the first step is lr in the direction of the gradient's sign
    Parameter containing:
    tensor([0.9000, 1.1000], requires_grad=True)
    """

    rule = Rule(adam, STATES)
    transforms = (switchable_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "betas": (FRACTION, FRACTION), "eps": NON_NEGATIVE}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given(locals()), **extras)

    def check_options(self, group: Mapping[str, Any]) -> None:
        super().check_options(group)
        check_tensor_options(self._name, group)
