"""Every operand of every loss, in every layout: the value and the gradients stay what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from tests.losses.calls import LAYOUTS, Call, Layout, calls, packed
from thalweg import losses

Tensor = torch.Tensor

CALLS = calls()
FUNCTIONS = {name for name in losses.__all__ if name[0].islower()} - {"loss"}
EACH = pytest.mark.parametrize("call", CALLS, ids=str)


def test_each_loss_is_called() -> None:
    assert {call.name for call in CALLS} == FUNCTIONS


@pytest.mark.parametrize("reduction", ["mean", "none"])
@EACH
def test_layout_of_each_operand(call: Call, reduction: str) -> None:
    for name in call.operands:
        for layout in LAYOUTS:
            operands = {n: packed(t) for n, t in call.operands.items()}
            operands[name] = layout(operands[name])
            assert_right(call, operands, reduction, f"{name} {layout.__name__}")


@EACH
def test_layout_of_all_operands(call: Call) -> None:
    for layout in LAYOUTS:
        operands = {n: layout(t) for n, t in call.operands.items()}
        assert_right(call, operands, "mean", layout.__name__)


@EACH
def test_layout_of_the_gradient_from_above(call: Call) -> None:
    for layout in LAYOUTS:
        assert_right(call, call.operands, "none", f"upstream {layout.__name__}", layout)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch deprecates what it uses
@pytest.mark.whole
@EACH
def test_a_negated_view_in_forward_mode(call: Call) -> None:
    for name in call.differentiated:

        def slope(x: Tensor, name: str = name) -> Tensor:
            def loss(x: Tensor) -> Tensor:
                return call.ours({**call.operands, name: x}, reduction="mean")

            found: Tensor = torch.func.jvp(loss, (x,), (torch.ones_like(x),))[1]
            return found

        x = call.operands[name]
        torch.testing.assert_close(slope(torch._neg_view(-x)), slope(x))


def assert_right(
    call: Call,
    operands: Mapping[str, Tensor],
    reduction: str,
    what: str,
    layout_above: Layout = packed,
) -> None:
    """Our value and gradients in float32 are the reference's in float64."""
    operands = {n: t.detach() for n, t in operands.items()}
    wide = {n: t.double() if t.is_floating_point() else t for n, t in operands.items()}
    leaves = {n: wide[n].requires_grad_() for n in call.differentiated}
    right = call.reference(wide, reduction=reduction)
    alone = call.ours(operands, reduction=reduction)
    given = {n: t.requires_grad_() if n in leaves else t for n, t in operands.items()}
    found = call.ours(given, reduction=reduction)
    for value in (found, alone):
        torch.testing.assert_close(value.double(), right, rtol=1e-4, atol=1e-5, msg=told(what))
    if not leaves:
        return
    upstream = layout_above(torch.linspace(0.5, 1.5, right.numel()).view(right.shape))
    expected = torch.autograd.grad(right, [*leaves.values()], upstream.double())
    slopes = torch.autograd.grad(found, [given[n] for n in leaves], upstream)
    for name, slope, other in zip(leaves, slopes, expected, strict=True):
        of = told(f"{what}: gradient by {name}")
        torch.testing.assert_close(slope.double(), other, rtol=1e-4, atol=1e-5, msg=of)


def told(what: str) -> Callable[[str], str]:
    return lambda message: f"{what}: {message}"
