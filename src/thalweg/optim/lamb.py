"""LAMB: AdamW whose step in each tensor is as long as lr times its weights.

Paper: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 Minutes", 2020,
Algorithm 2, with phi(z) = z.
"""

from typing import Unpack

from thalweg.optim.adam import STATES, adam
from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule
from thalweg.transforms import decoupled_decay, maximized, trust_ratio


class LAMB(Optimizer):
    """LAMB: AdamW's direction, scaled to the norm of each tensor's weights.

    ::

        r  = AdamW's step, divided by -lr: (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
             + weight_decay * p
        p <- p - lr * r * ||p|| / ||r||       where both norms are above 0; elsewhere p - lr * r

    For batches of thousands. Many implementations clip the gradients by their norm before:
    ``transforms=[clip_by_norm(1.0)]`` does.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of the two means, each >= 0 and < 1.
        eps: added to the denominator, >= 0.
        weight_decay: share of the parameter in the direction, >= 0.
        amsgrad: use the largest second moment so far.
        trust_ratio: False for groups that are to be updated as by AdamW: biases and norms.

    The defaults are the paper's for BERT.

    States:
        step, exp_avg, exp_avg_sq, max_exp_avg_sq: as in :class:`Adam`.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.full((4,), 3.0))
    >>> p.grad = torch.ones(4)
    >>> LAMB([p], lr=0.1, weight_decay=0.0).step()
    >>> [round(x, 4) for x in p.tolist()]
    [2.7, 2.7, 2.7, 2.7]
    """

    rule = Rule(adam, STATES, name="lamb")
    transforms = (decoupled_decay(), trust_ratio(), maximized())
    ranges = {"lr": NON_NEGATIVE, "betas": (FRACTION, FRACTION), "eps": NON_NEGATIVE}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        trust_ratio: bool = True,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given(locals()), **extras)
