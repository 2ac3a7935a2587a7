"""Stochastic gradient descent with momentum.

Paper: Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in
deep learning", 2013, equations (1)-(4), in the form in which the learning rate multiplies the
velocity last, so that a change of lr acts at once.
"""

from collections.abc import Mapping
from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import ANY, NON_NEGATIVE
from thalweg.rule import Rule, where
from thalweg.transforms import l2_decay, maximized


def sgd(p: Any, g: Any, s: Any, h: Any) -> Any:
    if h.momentum:
        velocity = h.momentum * s.momentum_buffer + (1 - h.dampening) * g
        s.momentum_buffer = where(h.step == 1, g, velocity)  # the first gradient is not damped
        g = g + h.momentum * s.momentum_buffer if h.nesterov else s.momentum_buffer
    return p - h.lr * g


class SGD(Optimizer, torch.optim.SGD):
    """Stochastic gradient descent, with momentum where asked for.

    ::

        g   <- g + weight_decay * p
        buf <- momentum * buf + (1 - dampening) * g        (the first time: buf <- g)
        p   <- p - lr * buf                                (nesterov: g + momentum * buf)

    Sparse gradients update the rows present; with momentum, all rows.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        momentum: share of the velocity that is kept, >= 0; 0 keeps no state.
        dampening: share of the gradient that does not enter the velocity.
        weight_decay: L2 regularization, >= 0.
        nesterov: look ahead along the velocity; needs momentum > 0 and dampening = 0.

    States:
        momentum_buffer: the velocity, shape of the parameter; only with momentum.

    Raises:
        ValueError: an option out of range, or nesterov without momentum or with dampening.
        RuntimeError: a sparse gradient together with weight_decay.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> p.grad = torch.tensor([0.5, -0.5])
    >>> SGD([p], lr=0.1).step()
    >>> p.tolist() == torch.tensor([0.95, 2.05]).tolist()
    True
    """

    rule = Rule(sgd, {"momentum_buffer": 0.0}, counted=False)
    transforms = (l2_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "momentum": NON_NEGATIVE, "dampening": ANY}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: Number = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given(locals()), **extras)

    def check_options(self, group: Mapping[str, Any]) -> None:
        super().check_options(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                "SGD: nesterov needs momentum > 0 and dampening = 0, got "
                f"momentum={group['momentum']}, dampening={group['dampening']}"
            )

    def sparse_gradient(self, options: Mapping[str, Any]) -> str:
        if options["momentum"] and not options["weight_decay"]:
            return "dense"  # the velocity moves the rows that are absent, too
        return self.rows_present(options)
