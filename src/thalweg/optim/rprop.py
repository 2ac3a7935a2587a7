"""Rprop: resilient backpropagation.

Paper: Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: The
RPROP algorithm", 1993; where the sign changes, the step is left out and the gradient forgotten,
without backtracking (the variant that Igel and Hüsken, 2000, call iRprop-).
"""

from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given_but_fused
from thalweg.ranges import ANY, NON_NEGATIVE, Range
from thalweg.rule import Rule, clip, sign, where
from thalweg.transforms import maximized


def rprop(p: Any, g: Any, s: Any, h: Any) -> Any:
    agreement = g * s.prev
    factor = where(agreement > 0, h.eta2, where(agreement < 0, h.eta1, 1))
    s.step_size = clip(s.step_size * factor, h.step_size1, h.step_size2)
    s.prev = where(agreement < 0, 0, g)
    return p - sign(s.prev) * s.step_size


class Rprop(Optimizer, torch.optim.Rprop):
    """Rprop: a step size of its own for each coordinate, from the gradient's signs alone.

    ::

        size <- clip(size * (eta_plus if g * prev > 0 else eta_minus if g * prev < 0 else 1))
        prev <- 0 if g * prev < 0 else g
        p    <- p - sign(prev) * size

    Meant for whole-batch gradients: the signs of mini-batch gradients are too noisy for it.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: the first step size, >= 0.
        etas: (eta_minus, eta_plus), factors on the step size, 0 < eta_minus < 1 < eta_plus.
        step_sizes: the smallest and the largest step size.

    States:
        step: updates made, 0-d.
        prev: the gradient before, shape of the parameter.
        step_size: size, likewise.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.tensor([100.0])
    >>> optimizer = Rprop([p], lr=0.25, etas=(0.5, 2.0))
    >>> optimizer.step(); optimizer.step()
    >>> p.item()
    0.25
    """

    rule = Rule(rprop, {"prev": 0.0, "step_size": lambda options: options["lr"]})
    transforms = (maximized(),)
    ranges = {
        "lr": NON_NEGATIVE,
        "etas": (Range(0, 1, open="both"), Range(1, open="both")),
        "step_sizes": (ANY, ANY),
    }

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given_but_fused(locals()), fused=fused, **extras)
