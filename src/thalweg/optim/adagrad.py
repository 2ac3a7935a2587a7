"""Adagrad.

Paper: Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
Optimization", 2011, the diagonal form of Figure 1 without a proximal term.
"""

from collections.abc import Mapping
from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import NON_NEGATIVE
from thalweg.rule import Rule, sqrt
from thalweg.transforms import l2_decay, maximized


def adagrad(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.sum = s.sum + g * g
    lr = h.lr / (1 + (h.step - 1) * h.lr_decay)
    return p - lr * g / (sqrt(s.sum) + h.eps)


class Adagrad(Optimizer, torch.optim.Adagrad):
    """Adagrad: each coordinate's rate falls with the sum of its squared gradients.

    ::

        g <- g + weight_decay * p
        G <- G + g^2
        p <- p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(G) + eps)

    Sparse gradients update the rows present. States exist from construction on, as in torch.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        lr_decay: decay of the rate with the step, per step, >= 0.
        weight_decay: L2 regularization, >= 0.
        initial_accumulator_value: G before the first step, >= 0.
        eps: added to the denominator, >= 0.

    States:
        step: updates made, 0-d.
        sum: G, shape of the parameter.

    Raises:
        ValueError: an option out of range.
        RuntimeError: a sparse gradient together with weight_decay.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.tensor([4.0])
    >>> Adagrad([p], lr=0.25).step()
    >>> p.item()
    0.75
    """

    rule = Rule(
        adagrad,
        {"sum": lambda options: options["initial_accumulator_value"]},
    )
    transforms = (l2_decay(), maximized())
    ranges = {
        "lr": NON_NEGATIVE,
        "lr_decay": NON_NEGATIVE,
        "initial_accumulator_value": NON_NEGATIVE,
        "eps": NON_NEGATIVE,
    }

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given(locals()), **extras)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._engine.create_states()

    def share_memory(self) -> None:
        """Move every state into shared memory, for training in several processes."""
        self._engine.share_memory()

    def sparse_gradient(self, options: Mapping[str, Any]) -> str:
        return self.rows_present(options)
