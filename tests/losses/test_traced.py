"""A traced loss is the loss of whatever the trace is given, not of its example."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from tests.losses.calls import Call, calls
from thalweg import losses

Tensor = torch.Tensor
Function = Callable[[Tensor], Tensor]

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")

CALLS = [call for call in calls() if next(iter(call.operands.values())).ndim < 4]


def by_tracer(function: Function, example: Tensor) -> Function:
    traced: Function = torch.jit.trace(function, (example,))
    return traced


def by_tracer_with_gradient(function: Function, example: Tensor) -> Function:
    return by_tracer(function, example.clone().requires_grad_())


def by_make_fx(function: Function, example: Tensor) -> Function:
    traced: Function = make_fx(function)(example)
    return traced


def before_dispatch(function: Function, example: Tensor) -> Function:
    traced: Function = make_fx(function, pre_dispatch=True)(example)
    return traced


def by_export(function: Function, example: Tensor) -> Function:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    traced: Function = torch.export.export(Model(), (example,)).module()
    return traced


TRACERS = [by_tracer, by_tracer_with_gradient, by_make_fx, before_dispatch, by_export]


@pytest.mark.parametrize("trace", TRACERS)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_trace(call: Call, trace: Callable[[Function, Tensor], Function]) -> None:
    if trace is by_tracer_with_gradient and not call.differentiated:
        pytest.skip("it has no gradient")
    for reduction in ("mean", "none"):
        loss, x = of_first_operand(call, reduction)
        traced, other = trace(loss, x), 0.9 * x
        torch.testing.assert_close(traced(other), loss(other), rtol=1e-4, atol=1e-5)


def of_first_operand(call: Call, reduction: str) -> tuple[Function, Tensor]:
    """The loss as a function of one operand, and that operand."""
    name = next(iter(call.operands))

    def loss(x: Tensor) -> Tensor:
        return call.ours({**call.operands, name: x}, reduction=reduction)

    return loss, call.operands[name]


@pytest.mark.parametrize("call", [c for c in CALLS if c.differentiated], ids=str)
def test_gradient_through_a_trace(call: Call) -> None:
    loss, x = of_first_operand(call, "none")
    traced = by_tracer_with_gradient(loss, x)
    other = (0.9 * x).requires_grad_()
    (found,) = torch.autograd.grad(traced(other).sum(), other)
    (right,) = torch.autograd.grad(loss(other).sum(), other)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in losses.__all__ if n.endswith("Loss")])
def test_scripts_are_refused_in_a_sentence(name: str) -> None:
    arguments = (8, 4) if name == "LinearCrossEntropyLoss" else ()
    module = getattr(losses, name)(*arguments)
    with pytest.raises(NotImplementedError, match=f"^{name} cannot be scripted.*torch.compile"):
        torch.jit.script(torch.nn.Sequential(module))
