"""SparseAdam: Adam for sparse gradients, which touches only the rows they hold.

Paper: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, the variant at the end of
section 2 (eps added to the uncorrected root), made lazy: a row's means stand still while its
gradient is absent. The lazy form is torch's; the paper does not treat it.
"""

from collections.abc import Mapping
from typing import Any, Unpack

import torch

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given_but_fused
from thalweg.ranges import FRACTION, POSITIVE
from thalweg.rule import Rule, lerp, sqrt
from thalweg.transforms import maximized


def sparse_adam(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta1)
    s.exp_avg_sq = lerp(s.exp_avg_sq, g * g, 1 - h.beta2)
    bias1, bias2 = 1 - h.beta1**h.step, 1 - h.beta2**h.step
    return p - h.lr * sqrt(bias2) / bias1 * s.exp_avg / (sqrt(s.exp_avg_sq) + h.eps)


class SparseAdam(Optimizer, torch.optim.SparseAdam):
    """Adam on the rows that a sparse gradient holds; the other rows and their means stand still.

    ::

        m <- beta1 * m + (1 - beta1) * g                   on the rows of g
        v <- beta2 * v + (1 - beta2) * g^2
        p <- p - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)

    t counts the parameter's updates, whichever rows they touched.

    Args:
        params: dense parameters that get sparse COO gradients (``nn.Embedding(sparse=True)``).
        lr: learning rate, > 0.
        betas: decay rates of the two means, each >= 0 and < 1.
        eps: added to the denominator, > 0.
        maximize: ascend instead of descend.
        fused: see :class:`Optimizer`.

    States:
        step: updates made, 0-d.
        exp_avg, exp_avg_sq: m and v, shape of the parameter.

    Raises:
        ValueError: an option out of range, a sparse or complex parameter.
        RuntimeError: a dense gradient.

    >>> import torch
    >>> table = torch.nn.Embedding(4, 1, sparse=True)
    >>> _ = torch.nn.init.ones_(table.weight)
    >>> table(torch.tensor([2])).sum().backward()
    >>> SparseAdam(table.parameters(), lr=0.5).step()
    >>> [round(v, 4) for v in table.weight.flatten().tolist()]
    [1.0, 1.0, 0.5, 1.0]
    """

    rule = Rule(sparse_adam, {"exp_avg": 0.0, "exp_avg_sq": 0.0})
    transforms = (maximized(),)
    ranges = {"lr": POSITIVE, "betas": (FRACTION, FRACTION), "eps": POSITIVE}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
        *,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given_but_fused(locals()), fused=fused, **extras)

    def check_parameter(self, k: int, p: Any) -> None:
        super().check_parameter(k, p)
        if p.is_sparse:
            raise ValueError(
                f"SparseAdam requires dense parameter tensors (with sparse gradients); "
                f"parameter {k} is sparse. Use its .to_dense()"
            )
        if p.is_complex():
            raise ValueError(
                f"SparseAdam does not support complex parameters; parameter {k} is {p.dtype}. "
                "Use Adam"
            )

    def sparse_gradient(self, options: Mapping[str, Any]) -> str:
        return self.rows_present(options)

    def dense_gradient(self, options: Mapping[str, Any]) -> None:
        raise RuntimeError(
            "SparseAdam does not support dense gradients; use Adam, or nn.Embedding(sparse=True)"
        )
