"""A loss of one's own: an ordinary function to call, fused like the others."""

from typing import Any

import pytest
import torch

from thalweg.losses import Kind
from thalweg.losses.define import loss
from thalweg.rule import abs, is_at, log, logsumexp, mean, norm, pick, sqrt, sum, where


@loss(scale=1.0)
def cauchy(x: Any, y: Any, h: Any, weight: Any = None) -> Any:
    """log(1 + ((x - y) / scale)^2)"""
    value = log(1 + ((x - y) / h.scale) ** 2)
    return value if weight is None else value * weight


def by_hand(x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return torch.log(1 + ((x - y) / scale) ** 2)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_value_and_gradients(reduction: str, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(64, 3, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    )
    found = cauchy(x, y, reduction=reduction, scale=scale)
    each = by_hand(x, y, scale)
    expected = each if reduction == "none" else getattr(each, reduction)()
    torch.testing.assert_close(found, expected)
    own = torch.autograd.grad(found.sum(), (x, y))
    torch.testing.assert_close(own, torch.autograd.grad(expected.sum(), (x, y)))


def test_an_operand_that_may_be_left_out() -> None:
    x, y, weight = torch.tensor([0.0, 2.0]), torch.zeros(2), torch.tensor([1.0, 3.0])
    doubled = cauchy(x, y, weight=weight, reduction="none")
    assert torch.equal(doubled, cauchy(x, y, weight, reduction="none"))
    torch.testing.assert_close(doubled, by_hand(x, y) * weight)


def test_second_derivatives() -> None:
    x, y = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: cauchy(a, b), (x, y))
    assert torch.autograd.gradgradcheck(lambda a, b: cauchy(a, b), (x, y))


def test_it_is_named_and_documented_as_the_formula() -> None:
    assert cauchy.__name__ == "cauchy"
    assert cauchy.__doc__ == "log(1 + ((x - y) / scale)^2)"


def test_operands_broadcast() -> None:
    @loss()
    def distance(x: Any, y: Any, h: Any) -> Any:
        return abs(x - y) / sqrt(1 + y * y)

    x, y = torch.randn(4, 1, requires_grad=True), torch.randn(3)
    distance(x, y, reduction="sum").backward()
    expected = (torch.sign(x.detach() - y) / torch.sqrt(1 + y * y)).sum(1, keepdim=True)
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: cauchy(x), TypeError, "missing the argument 'y'"),
        (lambda x: cauchy(x, x, x, x), TypeError, "takes 3 tensors"),
        (lambda x: cauchy(x, 1.0), TypeError, "y must be a Tensor"),
        (lambda x: cauchy(x, x, reduction="men"), ValueError, "reduction must be one of"),
        (lambda x: cauchy(x, x, width=2.0), TypeError, "unexpected argument 'width'"),
        (lambda x: loss(reduction=1), TypeError, "reduction"),
        (lambda x: loss()(lambda a, b: a), TypeError, "must take h"),
    ],
)
def test_bad_input(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(torch.ones(2))


def test_a_switch_and_the_number_that_equals_it() -> None:
    @loss(power=True)
    def either(x: Any, y: Any, h: Any) -> Any:
        return (x - y) ** 2 if h.power is True else abs(x - y) * h.power

    x, y = torch.tensor([3.0]), torch.tensor([1.0])
    assert either(x, y).item() == 4.0
    assert either(x, y, power=1.0).item() == 2.0
    assert either(x, y, power=True).item() == 4.0


# ------------------------------------------------------------------------------ rows


@loss(temperature=1.0, y=Kind.INDEX, weight=Kind.COLUMN)
def tempered(x: Any, y: Any, h: Any, weight: Any = None) -> Any:
    """Cross entropy at a temperature."""
    x = x / h.temperature
    value = logsumexp(x) - pick_scaled(x, y)
    return value if weight is None else value * pick(weight, y)


def pick_scaled(x: Any, y: Any) -> Any:
    return sum(where(is_at(x, y), x, 0.0), over="row")


@loss(x=Kind.ELEMENT)
def spread(x: Any, h: Any) -> Any:
    return norm(x - mean(x, over="row"), over="row")


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_a_loss_of_rows(reduction: str) -> None:
    x, y = torch.randn(6, 5, requires_grad=True), torch.tensor([0, 4, 2, -100, 1, 1])
    weight = torch.rand(5) + 0.5
    found = tempered(x, y, weight, reduction=reduction, temperature=2.0)
    each = torch.nn.functional.cross_entropy(x / 2, y, weight, reduction="none")
    wanted = {"none": each, "mean": each.sum() / 5, "sum": each.sum()}[reduction]
    torch.testing.assert_close(found, wanted)
    upstream = torch.rand_like(found)
    slopes = [torch.autograd.grad(v, x, upstream)[0] for v in (found, wanted)]
    torch.testing.assert_close(*slopes)


def test_the_dimension_of_a_row() -> None:
    x = torch.randn(4, 5, 6)
    for dim in (0, 1, -1):
        wanted = x.std(dim, correction=0) * x.shape[dim] ** 0.5
        torch.testing.assert_close(spread(x, dim=dim, reduction="none"), wanted)
    with pytest.raises(IndexError, match="spread: dim must be a dimension"):
        spread(x, dim=3)


def test_another_ignored_index() -> None:
    x, y = torch.randn(3, 4), torch.tensor([0, 7, 2])
    wanted = torch.nn.functional.cross_entropy(x, y, ignore_index=7)
    torch.testing.assert_close(tempered(x, y, ignore_index=7), wanted)
    with pytest.raises(IndexError, match="tempered: Target 7 is out of bounds"):
        tempered(x, y)


def test_operands_of_rows_that_do_not_fit() -> None:
    x, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
    with pytest.raises(RuntimeError, match=r"y must have one number for each row, size \(3,\)"):
        tempered(x, y[:2])
    with pytest.raises(RuntimeError, match="y must be int64, got"):
        tempered(x, y.int())
    with pytest.raises(RuntimeError, match="weight must have one number for each element of a row"):
        tempered(x, y, torch.ones(3))
    with pytest.raises(TypeError, match="spread has no operand 'y'; it takes x"):
        loss(y=Kind.ROW)(spread.formula.function)
    with pytest.raises(TypeError, match="losses have the argument dim"):
        loss(dim=1)
