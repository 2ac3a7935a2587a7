"""ASGD: averaged stochastic gradient descent.

Paper: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992, with the
step sizes and the decay term of Bottou, "Large-Scale Machine Learning with Stochastic Gradient
Descent", 2010, section 5.
"""

from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given_but_fused
from thalweg.ranges import ANY, NON_NEGATIVE
from thalweg.rule import Rule, State, maximum, where
from thalweg.transforms import l2_decay, maximized


def asgd(p: Any, g: Any, s: Any, h: Any) -> Any:
    p = p * (1 - h.lambd * s.eta) - s.eta * g
    s.ax = where(s.mu == 1, p, s.ax + (p - s.ax) * s.mu)
    s.eta = h.lr / (1 + h.lambd * h.lr * h.step) ** h.alpha  # for the next step, as are mu's
    s.mu = 1 / maximum(1, h.step - h.t0)
    return p


class ASGD(Optimizer, torch.optim.ASGD):
    """ASGD: gradient descent with a falling rate, and the average of its iterates from t0 on.

    ::

        g   <- g + weight_decay * p
        p   <- p * (1 - lambd * eta) - eta * g
        ax  <- ax + mu * (p - ax)
        eta <- lr / (1 + lambd * lr * t)^alpha,   mu <- 1 / max(1, t - t0)

    The average is ``state[p]["ax"]``; p itself is the last iterate.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: the first rate, >= 0.
        lambd: decay of p, and of the rate.
        alpha: power of the rate's decay.
        t0: the step at which averaging begins.
        weight_decay: L2 regularization, >= 0.

    States:
        step: updates made, 0-d.
        eta, mu: the rate and the average's weight of the next step, 0-d.
        ax: the average, shape of the parameter; p itself before t0.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.ones(1)
    >>> optimizer = ASGD([p], lr=0.5, lambd=0.0, t0=0)
    >>> for _ in range(3): optimizer.step()
    >>> p.item(), optimizer.state[p]["ax"].item()
    (-0.5, -0.25)
    """

    rule = Rule(
        asgd,
        {
            "eta": State(lambda options: options["lr"], scalar=True),
            "mu": State(1.0, scalar=True),
            "ax": 0.0,
        },
    )
    transforms = (l2_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "lambd": ANY, "alpha": ANY, "t0": ANY}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        *,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given_but_fused(locals()), fused=fused, **extras)
