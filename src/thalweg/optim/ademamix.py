"""AdEMAMix: Adam with a second, slower mean of the gradients.

Paper: Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024,
Algorithm 1, with the schedules of its section 3 and appendix A.1, in which the authors' code adds
1e-8 to the decay rates, and this does not.
"""

from typing import Any, Unpack

from thalweg.optim.extras import Extras
from thalweg.optim.optimizer import Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import AT_LEAST_ONE, FRACTION, NON_NEGATIVE, OrNone
from thalweg.rule import Rule, lerp, log, minimum, sqrt
from thalweg.transforms import decoupled_decay, maximized


def warmed_up(beta: Any, beta_start: Any, share: Any) -> Any:
    """The decay rate whose half-life lies at a share of the way from beta_start's to beta's."""
    begin, end = log(0.5) / log(beta_start) - 1, log(0.5) / log(beta) - 1
    return 0.5 ** (1 / ((1 - share) * begin + share * end + 1))


def ademamix(p: Any, g: Any, s: Any, h: Any) -> Any:
    alpha, beta3 = h.alpha, h.beta3
    if h.alpha_warmup is not None:
        alpha = alpha * minimum(h.step / h.alpha_warmup, 1.0)
    if h.beta3_warmup is not None and h.step < h.beta3_warmup:
        beta3 = warmed_up(h.beta3, h.beta1, h.step / h.beta3_warmup)
    s.exp_avg_fast = lerp(s.exp_avg_fast, g, 1 - h.beta1)
    s.exp_avg_slow = lerp(s.exp_avg_slow, g, 1 - beta3)
    s.exp_avg_sq = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
    bias1, bias2 = 1 - h.beta1**h.step, 1 - h.beta2**h.step
    mixed = s.exp_avg_fast / bias1 + alpha * s.exp_avg_slow
    return p - h.lr * mixed / (sqrt(s.exp_avg_sq) / sqrt(bias2) + h.eps)


class AdEMAMix(Optimizer):
    """AdEMAMix: Adam whose step has a share of a much slower mean of the gradients.

    ::

        p  <- p * (1 - lr * weight_decay)
        m1 <- beta1 * m1 + (1 - beta1) * g
        m2 <- beta3_t * m2 + (1 - beta3_t) * g
        v  <- beta2 * v + (1 - beta2) * g^2
        p  <- p - lr * (m1 / (1 - beta1^t) + alpha_t * m2) / (sqrt(v / (1 - beta2^t)) + eps)

        alpha_t = alpha * min(t / alpha_warmup, 1)
        beta3_t: its half-life grows in proportion to t up to beta3's, over beta3_warmup steps

    Among the best in comparisons of 2025 on language models of 0.1 to 0.7 billion parameters, with
    both warm-ups as long as the training; without them it may diverge.

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: decay rates of m1, v and m2, each >= 0 and < 1.
        alpha: weight of the slow mean, >= 0; with 0 it is AdamW.
        eps: added to the denominator, >= 0.
        weight_decay: share of the parameter, times lr, taken off at each step, >= 0.
        alpha_warmup: steps over which alpha grows, >= 1; None: it does not.
        beta3_warmup: steps over which beta3 grows, >= 1, from a beta1 above 0; None: it does not.

    The defaults are those of the authors' code (apple/ml-ademamix).

    States:
        step: updates made, 0-d.
        exp_avg_fast, exp_avg_slow, exp_avg_sq: m1, m2 and v, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> p.grad = torch.ones(1)
    >>> AdEMAMix([p], lr=0.1, alpha=0.0).step()
    >>> round(p.item(), 6)
    0.9
    """

    rule = Rule(ademamix, {"exp_avg_fast": 0.0, "exp_avg_slow": 0.0, "exp_avg_sq": 0.0})
    transforms = (decoupled_decay(), maximized())
    ranges = {
        "lr": NON_NEGATIVE,
        "betas": (FRACTION, FRACTION, FRACTION),
        "alpha": NON_NEGATIVE,
        "eps": NON_NEGATIVE,
        "alpha_warmup": OrNone(AT_LEAST_ONE),
        "beta3_warmup": OrNone(AT_LEAST_ONE),
    }

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 2.0,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        alpha_warmup: int | None = None,
        beta3_warmup: int | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(params, given(locals()), **extras)
