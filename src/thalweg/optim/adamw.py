"""AdamW: Adam with decoupled weight decay.

Paper: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, Algorithm 2.
"""

from typing import Any, Unpack

import torch

from thalweg.optim.adam import STATES, Adam, adam
from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Params
from thalweg.optim.options import given
from thalweg.rule import Rule


class AdamW(Adam, torch.optim.AdamW):
    """Adam whose weight decay acts on the parameter, not through the gradient.

    ::

        p <- p * (1 - lr * weight_decay)
        p <- Adam's update of p

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of the means of the gradient and its square, each >= 0 and < 1.
        eps: added to the denominator, >= 0.
        weight_decay: share of the parameter, times lr, taken off at each step, >= 0.
        amsgrad: use the largest second moment so far.

    States:
        step, exp_avg, exp_avg_sq, max_exp_avg_sq: as in :class:`Adam`.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.zeros(1)
    >>> AdamW([p], lr=0.1, weight_decay=0.5).step()
    >>> round(p.item(), 6)
    0.95
    """

    rule = Rule(adam, STATES, name="adamw")

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, **given(locals()), decoupled_weight_decay=True, **extras)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # also what was Adam's
            group["decoupled_weight_decay"] = True
