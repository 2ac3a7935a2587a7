"""Losses that are a distribution's negative log likelihood, and the divergence of two of them."""

import math
import warnings
from typing import Any

import torch

from thalweg.losses.checks import check_real, common_size, has_nan
from thalweg.losses.evaluation.elements import evaluate
from thalweg.losses.module import Loss
from thalweg.losses.reduction import REDUCTIONS, chosen_reduction
from thalweg.losses.weighted import share_of
from thalweg.ranges import NON_NEGATIVE, number
from thalweg.rule.formula import Formula
from thalweg.rule.functions import exp, held, log, where

Tensor = torch.Tensor


def poisson_nll(x: Any, y: Any, h: Any) -> Any:
    value = exp(x) + share_of(y, -x) if h.log_input else x + share_of(y, -log(x + h.eps))
    if h.full:
        n = where(y <= 1, 1.0, y)  # the term and its derivative are finite where it is left out
        stirling = n * log(n) - n + 0.5 * log(2 * math.pi * n)
        value = value + where(y <= 1, 0.0, stirling)
    return value


def gaussian_nll(x: Any, y: Any, var: Any, h: Any) -> Any:
    """The clamp moves the value, and not the derivative. NaN where var is below 0."""
    error = x - y
    fixed = held(var)
    variance = where(fixed < h.eps, h.eps + (var - fixed), var)
    value = where(fixed < 0, math.nan, 0.5 * (log(variance) + error * error / variance))
    return value + 0.5 * math.log(2 * math.pi) if h.full else value


def kullback_leibler(x: Any, y: Any, h: Any) -> Any:
    if h.log_target:
        # No probability costs nothing, whatever x has for it.
        nothing = (y == -math.inf) & (x < math.inf)
        log_p, log_q = where(nothing, 0.0, y), where(nothing, 0.0, x)
        return where(nothing, 0.0, exp(log_p) * (log_p - log_q))
    return y * log(where(y == 0, 1.0, y)) + share_of(y, -x)


POISSON = Formula(poisson_nll)
GAUSSIAN = Formula(gaussian_nll)
KULLBACK_LEIBLER = Formula(kullback_leibler)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log likelihood of counts under a Poisson distribution.

    ::

        exp(input) - target * input                     with log_input
        input - target * log(input + eps)               without
        + target * log(target) - target + log(2 * pi * target) / 2      with full, where target > 1

    The last line is Stirling's approximation of log(target!), which the rest leaves out.

    Args:
        input: the distribution's mean, or its logarithm, of any shape.
        target: the counts, of the same shape, or what broadcasts.
        log_input: the input is the logarithm of the mean.
        full: add Stirling's term.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        eps: keeps the logarithm away from 0, >= 0; without log_input.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: an unknown reduction, or eps out of range.
        RuntimeError: sizes that do not broadcast.
        TypeError: an argument that is no tensor, or eps no number.
        NotImplementedError: a complex tensor.

    >>> poisson_nll_loss(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 3.0]), reduction="none")
    tensor([ 1.0000, -0.2817])
    """
    owner = "poisson_nll_loss"
    check_real(owner, input=input, target=target)
    reduction = chosen_reduction(owner, reduction, size_average, reduce)
    common_size(owner, input=input, target=target)
    options = {
        "log_input": bool(log_input),
        "full": bool(full),
        "eps": number(owner, "eps", eps, NON_NEGATIVE),
    }
    return evaluate(POISSON, {"x": input, "y": target}, options, reduction)


class PoissonNLLLoss(Loss, torch.nn.PoissonNLLLoss):
    """Minus the log likelihood of a Poisson distribution; see :func:`poisson_nll_loss`.

    Args:
        log_input: the input is the logarithm of the mean.
        full: add Stirling's term.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        eps: keeps the logarithm away from 0, >= 0; without log_input.
        reduction: "none", "mean" or "sum".

    >>> PoissonNLLLoss()(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 3.0]))
    tensor(0.3591)
    """

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        size_average: bool | None = None,
        eps: float = 1e-8,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        return poisson_nll_loss(
            log_input,
            target,
            log_input=self.log_input,
            full=self.full,
            eps=self.eps,
            reduction=self.reduction,
        )


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log likelihood of a normal distribution with the input as its mean.

    ::

        v = max(var, eps)
        (log(v) + (input - target)^2 / v) / 2           + log(2 * pi) / 2 with full

    The derivative by var is that by v, for a clamped var too: it can grow again.

    Args:
        input: the means, of any shape.
        target: the samples, of the same shape, or what broadcasts.
        var: the variances, >= 0: of the input's shape, without its last dimension, of a shape that
            broadcasts to it, or one number.
        full: add the constant.
        eps: the smallest variance, >= 0.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: an unknown reduction, a var below 0 or of another size, or eps out of range.
        RuntimeError: sizes that do not broadcast.
        TypeError: an argument that is no tensor, or eps no number.
        NotImplementedError: a complex tensor.

    Source: Nix and Weigend, "Estimating the mean and variance of the target probability
    distribution", 1994.

    >>> x = torch.tensor([1.0, 5.0])
    >>> gaussian_nll_loss(x, torch.tensor([2.0, 2.0]), torch.tensor([1.0, 9.0]), reduction="none")
    tensor([0.5000, 1.5986])
    """
    owner = "gaussian_nll_loss"
    check_real(owner, input=input, target=target)
    reduction = chosen_reduction(owner, reduction)
    eps = number(owner, "eps", eps, NON_NEGATIVE)
    if isinstance(var, (int, float)):
        dtype = input.dtype if input.is_floating_point() else torch.get_default_dtype()
        var = input.new_full((), number(owner, "var", var, NON_NEGATIVE), dtype=dtype)
    else:
        check_real(owner, var=var)
        var = _variance(owner, input, var)
    common_size(owner, input=input, target=target, var=var)
    operands = {"x": input, "y": target, "var": var}
    options = {"full": bool(full), "eps": eps}
    loss = evaluate(GAUSSIAN, operands, options, reduction, composed=True)
    if has_nan(loss) and bool((var < 0).any()):
        raise ValueError(f"{owner}: var must be >= 0, got {var.min().item()}")
    return loss


def _variance(owner: str, input: Tensor, var: Tensor) -> Tensor:
    """The variances in a shape that broadcasts to the input's."""
    if var.shape == input.shape:
        return var
    if var.shape == input.shape[:-1]:
        return var.unsqueeze(-1)
    sizes = zip(reversed(var.shape), reversed(input.shape), strict=False)
    if var.ndim <= input.ndim and all(n in (1, m) for n, m in sizes):
        return var
    raise ValueError(
        f"{owner}: var must have the input's size {tuple(input.shape)}, the same without its last "
        f"dimension, or one that broadcasts to it, got {tuple(var.shape)}"
    )


class GaussianNLLLoss(Loss, torch.nn.GaussianNLLLoss):
    """Minus the log likelihood of a normal distribution; see :func:`gaussian_nll_loss`.

    Args:
        full: add the constant.
        eps: the smallest variance, >= 0.
        reduction: "none", "mean" or "sum".

    >>> GaussianNLLLoss()(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]), 1.0)
    tensor(2.5000)
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        return gaussian_nll_loss(
            input, target, var, full=self.full, eps=self.eps, reduction=self.reduction
        )


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """The Kullback-Leibler divergence of the target from the input, element by element.

    ::

        target * (log(target) - input)              0 * log(0) = 0
        exp(target) * (target - input)              with log_target

    The divergence of distributions is their sum: "batchmean" divides it by the input's first
    dimension. "mean" divides by all elements, with a warning.

    Args:
        input: logarithms of probabilities, of any shape.
        target: probabilities, or their logarithms, of the same shape, or what broadcasts.
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "batchmean", "mean" or "sum".
        log_target: the target holds logarithms.

    Raises:
        ValueError: an unknown reduction.
        RuntimeError: sizes that do not broadcast.
        TypeError: an argument that is no tensor.
        NotImplementedError: a complex tensor.

    Source: Kullback and Leibler, "On Information and Sufficiency", 1951.

    >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    >>> kl_div(q.log(), p, reduction="batchmean")
    tensor(0.1438)
    """
    owner = "kl_div"
    check_real(owner, input=input, target=target)
    common_size(owner, input=input, target=target)
    if reduction == "mean" and size_average is None and reduce is None:
        warnings.warn(
            f"{owner}: reduction='mean' divides by the number of all elements; the divergence, "
            "averaged over the batch, is reduction='batchmean'",
            stacklevel=2,
        )
    reduction = chosen_reduction(
        owner, reduction, size_average, reduce, known=(*REDUCTIONS, "batchmean")
    )
    divisor = None
    if reduction == "batchmean":
        reduction, divisor = "sum", input.shape[0] if input.ndim else 1
    options = {"log_target": bool(log_target)}
    return evaluate(KULLBACK_LEIBLER, {"x": input, "y": target}, options, reduction, divisor)


class KLDivLoss(Loss, torch.nn.KLDivLoss):
    """The Kullback-Leibler divergence; see :func:`kl_div`.

    Args:
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "batchmean", "mean" or "sum".
        log_target: the target holds logarithms.

    >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    >>> KLDivLoss(reduction="batchmean")(q.log(), p)
    tensor(0.1438)
    """

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
