"""A loss of one's own: an ordinary function to call, fused like the others."""

from typing import Any

import pytest
import torch

from thalweg.losses.define import loss
from thalweg.rule import abs, log, sqrt


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
