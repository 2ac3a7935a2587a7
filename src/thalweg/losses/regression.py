"""Losses of a number against a number: L1, squared, smooth L1 and Huber."""

from collections.abc import Mapping
from typing import Any

import torch

from thalweg.losses.checks import check_real, check_tensors, threshold, warn_of_sizes
from thalweg.losses.evaluation.elements import evaluate
from thalweg.losses.module import Loss
from thalweg.losses.reduction import chosen_reduction
from thalweg.losses.weighted import weighted
from thalweg.ranges import NON_NEGATIVE, POSITIVE
from thalweg.rule.formula import Formula
from thalweg.rule.functions import abs, where

Tensor = torch.Tensor


@weighted
def absolute_error(x: Any, y: Any, h: Any) -> Any:
    return abs(x - y)


@weighted
def squared_error(x: Any, y: Any, h: Any) -> Any:
    error = x - y
    return error * error


# NaN takes the parabola: its derivative is NaN too, that of abs would be 0. And the parabola is not
# computed where it does not hold: of an infinite error its derivative would be 0 times inf.


@weighted
def smooth_absolute_error(x: Any, y: Any, h: Any) -> Any:
    error = x - y
    size = abs(error)
    far = size >= h.beta
    near = where(far, 0.0, error)
    return where(far, size - 0.5 * h.beta, 0.5 * near * near / h.beta)


@weighted
def huber(x: Any, y: Any, h: Any) -> Any:
    error = x - y
    size = abs(error)
    far = size > h.delta
    near = where(far, 0.0, error)
    return where(far, h.delta * (size - 0.5 * h.delta), 0.5 * near * near)


ABSOLUTE = Formula(absolute_error)
SQUARED = Formula(squared_error)
SMOOTH = Formula(smooth_absolute_error)
HUBER = Formula(huber)


def _regression(
    owner: str,
    formula: Formula,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Mapping[str, Any],
    reduction: str,
    divided_by_weight: bool = True,
) -> Tensor:
    """Evaluate a formula of x, y and perhaps a weight; a weighted mean is over the weights."""
    operands = {"x": input, "y": target}
    if weight is None:
        return evaluate(formula, operands, options, reduction)
    check_real(owner, weight=weight)
    if weight.shape != input.shape:
        raise ValueError(
            f"{owner}: weight must have the input's size {tuple(input.shape)}, got "
            f"{tuple(weight.shape)}; expand it"
        )
    operands["weight"] = weight
    if reduction == "mean" and divided_by_weight:
        total = evaluate(formula, operands, options, "sum", composed=True)
        return total / weight.sum(dtype=total.dtype)
    return evaluate(formula, operands, options, reduction, composed=divided_by_weight)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The absolute error.

    ::

        |input - target| * weight        ("mean": the sum over the sum of the weights)

    The derivative at 0 is 0.

    Args:
        input: predictions, of any shape; complex ones too.
        target: what they should be, of the same shape (another one broadcasts, with a warning).
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".
        weight: the factor of each element, of the input's shape; 1 by default.

    Raises:
        ValueError: an unknown reduction, or a weight of another size.
        RuntimeError: sizes that do not broadcast.
        TypeError: an argument that is no tensor.

    >>> l1_loss(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    tensor(2.)
    """
    check_tensors("l1_loss", input=input, target=target)
    reduction = chosen_reduction("l1_loss", reduction, size_average, reduce)
    warn_of_sizes("l1_loss", input, target)
    if input.is_complex() or target.is_complex():
        input = (input - target).abs()
        target = input.new_zeros(())
    return _regression("l1_loss", ABSOLUTE, input, target, weight, {}, reduction)


class L1Loss(Loss, torch.nn.L1Loss):
    """The absolute error; see :func:`l1_loss`.

    Args:
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> L1Loss()(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    tensor(2.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return l1_loss(input, target, reduction=self.reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The squared error.

    ::

        (input - target)^2 * weight      ("mean": the sum over the sum of the weights)

    Args:
        input: predictions, of any shape.
        target: what they should be, of the same shape (another one broadcasts, with a warning).
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".
        weight: the factor of each element, of the input's shape; 1 by default.

    Raises:
        ValueError: an unknown reduction, or a weight of another size.
        RuntimeError: sizes that do not broadcast.
        TypeError: an argument that is no tensor.
        NotImplementedError: a complex tensor.

    >>> mse_loss(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    tensor(5.)
    """
    check_real("mse_loss", input=input, target=target)
    reduction = chosen_reduction("mse_loss", reduction, size_average, reduce)
    warn_of_sizes("mse_loss", input, target)
    return _regression("mse_loss", SQUARED, input, target, weight, {}, reduction)


class MSELoss(Loss, torch.nn.MSELoss):
    """The squared error; see :func:`mse_loss`.

    Args:
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".

    >>> MSELoss(reduction="sum")(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    tensor(10.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return mse_loss(input, target, reduction=self.reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """The absolute error, with a parabola in place of its corner.

    ::

        e = input - target
        e^2 / (2 * beta)    where |e| < beta
        |e| - beta / 2      elsewhere

    Args:
        input: predictions, of any shape.
        target: what they should be, of the same shape (another one broadcasts, with a warning).
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".
        beta: where the two meet, >= 0; with 0 this is :func:`l1_loss`.

    Raises:
        ValueError: an unknown reduction.
        RuntimeError: a beta below 0, or sizes that do not broadcast.
        TypeError: an argument that is no tensor, or a beta that is no number.
        NotImplementedError: a complex tensor.

    Source: Girshick, "Fast R-CNN", 2015, equation 3 (beta = 1).

    >>> smooth_l1_loss(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]), reduction="none")
    tensor([0.5000, 2.5000])
    """
    check_real("smooth_l1_loss", input=input, target=target)
    reduction = chosen_reduction("smooth_l1_loss", reduction, size_average, reduce)
    beta = threshold("smooth_l1_loss", "beta", beta, NON_NEGATIVE)
    warn_of_sizes("smooth_l1_loss", input, target)
    formula, options = (SMOOTH, {"beta": beta}) if beta else (ABSOLUTE, {})
    return _regression("smooth_l1_loss", formula, input, target, None, options, reduction)


class SmoothL1Loss(Loss, torch.nn.SmoothL1Loss):
    """The absolute error without its corner; see :func:`smooth_l1_loss`.

    Args:
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum".
        beta: where parabola and lines meet, >= 0; checked when the module is called.

    >>> SmoothL1Loss(beta=2.0)(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    tensor(1.1250)
    """

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """The squared error near 0, and lines that go on with its slope.

    ::

        e = input - target
        e^2 / 2 * weight                        where |e| <= delta
        delta * (|e| - delta / 2) * weight      elsewhere

    The mean is over the elements, with a weight too.

    Args:
        input: predictions, of any shape.
        target: what they should be, of the same shape (another one broadcasts, with a warning).
        reduction: "none", "mean" or "sum".
        delta: where the two meet, > 0.
        weight: the factor of each element, of the input's shape; 1 by default.

    Raises:
        ValueError: an unknown reduction, or a weight of another size.
        RuntimeError: a delta that is not above 0, or sizes that do not broadcast.
        TypeError: an argument that is no tensor, or a delta that is no number.
        NotImplementedError: a complex tensor.

    Source: Huber, "Robust Estimation of a Location Parameter", 1964.

    >>> huber_loss(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]), "none", delta=2.0)
    tensor([0.5000, 4.0000])
    """
    check_real("huber_loss", input=input, target=target)
    reduction = chosen_reduction("huber_loss", reduction)
    delta = threshold("huber_loss", "delta", delta, POSITIVE)
    warn_of_sizes("huber_loss", input, target)
    options = {"delta": delta}
    return _regression("huber_loss", HUBER, input, target, weight, options, reduction, False)


class HuberLoss(Loss, torch.nn.HuberLoss):
    """The squared error that grows no steeper than delta; see :func:`huber_loss`.

    Args:
        reduction: "none", "mean" or "sum".
        delta: where parabola and lines meet, > 0; its size is checked when the module is called.

    Raises:
        TypeError: delta is no number.

    >>> HuberLoss(delta=2.0)(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    tensor(2.2500)
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        if not isinstance(delta, (int, float)):
            raise TypeError(f"HuberLoss: delta must be a number, got {delta!r}")
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return huber_loss(input, target, reduction=self.reduction, delta=self.delta)
