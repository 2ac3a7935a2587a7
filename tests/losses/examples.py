"""The losses under test: how to call ours and the reference, and with what."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from thalweg import losses

Tensor = torch.Tensor
Make = Callable[[Sequence[int]], Tensor]


def real(shape: Sequence[int]) -> Tensor:
    return 2 * torch.randn(tuple(shape))


def logit(shape: Sequence[int]) -> Tensor:
    return 4 * torch.randn(tuple(shape))


def probability(shape: Sequence[int]) -> Tensor:
    return torch.rand(tuple(shape)) * 0.98 + 0.01


def sign(shape: Sequence[int]) -> Tensor:
    return torch.where(torch.rand(tuple(shape)) < 0.5, -1.0, 1.0)


def positive(shape: Sequence[int]) -> Tensor:
    return torch.rand(tuple(shape)) + 0.25


def count(shape: Sequence[int]) -> Tensor:
    return torch.randint(1, 6, tuple(shape)) + 0.5  # beside the step of Stirling's term


def log_probability(shape: Sequence[int]) -> Tensor:
    return probability(shape).log()


def hinge_reference(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    return reduced((1 - target * input).clamp_min(0), reduction)


def focal_reference(
    input: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2,
    reduction: str = "none",
) -> Tensor:
    """Lin et al., equations 4 and 5, term by term."""
    p = torch.sigmoid(input)
    p_t = p * target + (1 - p) * (1 - target)
    entropy = -target * F.logsigmoid(input) - (1 - target) * F.logsigmoid(-input)
    factor = alpha * target + (1 - alpha) * (1 - target) if alpha >= 0 else 1.0
    return reduced(factor * (1 - p_t) ** gamma * entropy, reduction)


def reduced(value: Tensor, reduction: str) -> Tensor:
    return {"none": lambda: value, "mean": value.mean, "sum": value.sum}[reduction]()


REFERENCES = {"hinge_loss": hinge_reference, "sigmoid_focal_loss": focal_reference}


@dataclass(frozen=True)
class Case:
    """One loss with some options.

    Attributes:
        name: of the function.
        operands: by their names in the call, in order; how to make each.
        options: of the call.
        broadcasts: a target of another size is taken.
        undifferentiated: operands by which torch does not differentiate.
        classes: the last dimension is one of classes.
        reductions: those it has.
    """

    name: str
    operands: Mapping[str, Make]
    options: Mapping[str, Any] = field(default_factory=dict)
    broadcasts: bool = True
    undifferentiated: tuple[str, ...] = ()
    classes: bool = False
    reductions: tuple[str, ...] = ("none", "mean", "sum")

    def __str__(self) -> str:
        extra = [n for n in self.operands if n not in ("input", "target", "input1", "input2")]
        return "-".join([self.name, *extra, *(f"{k}={v}" for k, v in self.options.items())])

    def make(self, shape: Sequence[int]) -> dict[str, Tensor]:
        return {name: make(shape) for name, make in self.operands.items()}

    def ours(self, operands: Mapping[str, Any], **more: Any) -> Tensor:
        return self._call(getattr(losses, self.name), operands, more)

    def torchs(self, operands: Mapping[str, Any], **more: Any) -> Tensor:
        return self._call(REFERENCES.get(self.name) or getattr(F, self.name), operands, more)

    def _call(self, function: Any, operands: Mapping[str, Any], more: Mapping[str, Any]) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*target size.*|.*reduction.*mean.*")
            result: Tensor = function(**operands, **{**self.options, **more})
        return result


def pair(input: Make, target: Make, **others: Make) -> dict[str, Make]:
    return {"input": input, "target": target, **others}


KL = ("none", "mean", "sum", "batchmean")
RANKING = {"input1": real, "input2": real, "target": sign}
ONCE = {"broadcasts": False}
NO_WEIGHT = {"broadcasts": False, "undifferentiated": ("weight",)}

CASES = [
    Case("l1_loss", pair(real, real)),
    Case("l1_loss", pair(real, real, weight=positive)),
    Case("mse_loss", pair(real, real)),
    Case("mse_loss", pair(real, real, weight=positive)),
    Case("smooth_l1_loss", pair(real, real)),
    Case("smooth_l1_loss", pair(real, real), {"beta": 0.3}),
    Case("smooth_l1_loss", pair(real, real), {"beta": 0.0}),
    Case("huber_loss", pair(real, real)),
    Case("huber_loss", pair(real, real, weight=positive), {"delta": 1.7}),
    Case("binary_cross_entropy", pair(probability, probability), **ONCE),
    Case("binary_cross_entropy", pair(probability, probability, weight=positive), **NO_WEIGHT),
    Case("binary_cross_entropy_with_logits", pair(logit, probability), **ONCE),
    Case(
        "binary_cross_entropy_with_logits",
        pair(logit, probability, weight=positive, pos_weight=positive),
        broadcasts=False,
        undifferentiated=("weight", "pos_weight"),
    ),
    Case("poisson_nll_loss", pair(real, count)),
    Case("poisson_nll_loss", pair(real, count), {"full": True}),
    Case("poisson_nll_loss", pair(positive, count), {"log_input": False, "eps": 1e-3}),
    Case("gaussian_nll_loss", pair(real, real, var=positive)),
    Case("gaussian_nll_loss", pair(real, real, var=positive), {"full": True, "eps": 0.5}),
    Case("kl_div", pair(log_probability, probability), reductions=KL),
    Case("kl_div", pair(log_probability, log_probability), {"log_target": True}, reductions=KL),
    Case("soft_margin_loss", pair(real, sign), undifferentiated=("target",)),
    Case("hinge_embedding_loss", pair(real, sign), undifferentiated=("target",)),
    Case("hinge_embedding_loss", pair(real, sign), {"margin": 0.4}, undifferentiated=("target",)),
    Case("margin_ranking_loss", RANKING),
    Case("margin_ranking_loss", RANKING, {"margin": 0.5}),
    Case("multilabel_soft_margin_loss", pair(logit, probability), classes=True),
    Case("multilabel_soft_margin_loss", pair(logit, probability, weight=positive), classes=True),
    Case("hinge_loss", pair(real, sign)),
    Case("sigmoid_focal_loss", pair(logit, probability), **ONCE),
    Case("sigmoid_focal_loss", pair(logit, probability), {"alpha": -1, "gamma": 0.5}, **ONCE),
    Case("sigmoid_focal_loss", pair(logit, probability), {"gamma": 0}, **ONCE),
]
NAMES = sorted({case.name for case in CASES})
# The modules of these losses.
MODULES = [
    name
    for name in losses.__all__
    if getattr(losses, name).__module__.split(".")[-1]
    in ("regression", "binary", "likelihood", "margin")
    and name[0].isupper()
]


def differentiated(
    call: Callable[..., Tensor],
    operands: Mapping[str, Tensor],
    wanted: Sequence[str],
    **more: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The value, and the gradients of its elements' sum, each weighed differently."""
    leaves = {n: t.detach().requires_grad_(n in wanted) for n, t in operands.items()}
    value = call(leaves, **more)
    upstream = torch.linspace(0.5, 1.5, value.numel()).reshape(value.shape).to(value.dtype)
    found = torch.autograd.grad(value, [leaves[n] for n in wanted], upstream, allow_unused=True)
    zeros = (
        torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(wanted, found, strict=True)
    )
    return value.detach(), dict(zip(wanted, zeros, strict=True))


INF, NAN = math.inf, math.nan
