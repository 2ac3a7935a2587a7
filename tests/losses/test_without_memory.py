"""Tensors whose numbers are not where their address says, in any place of any loss.

Kernels must not read them: operations compute with them, or the error is torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.losses.calls import Call, calls
from thalweg import losses

Tensor = torch.Tensor
Make = Callable[[Tensor], Tensor]

# One size of each is enough: what is tested is which tensors kernels take.
CALLS = [call for call in calls() if next(iter(call.operands.values())).ndim < 4]
EACH = pytest.mark.parametrize("call", CALLS, ids=str)
DIFFERENTIATED = pytest.mark.parametrize("call", [c for c in CALLS if c.differentiated], ids=str)
REDUCTIONS = ("mean", "none")


def unstored_zeros(t: Tensor) -> Tensor:
    return torch._efficientzerotensor(t.shape, dtype=t.dtype)


def functional(t: Tensor) -> Tensor:
    made: Tensor = torch._to_functional_tensor(t)
    return made


def escaped(t: Tensor) -> Tensor:
    """A batched tensor that has left its transform."""
    kept: list[Tensor] = []
    torch.vmap(lambda v: kept.append(v) or v)(t[None])
    return kept[0]


def on_meta(t: Tensor) -> Tensor:
    return t.to("meta")


def fake(t: Tensor) -> Tensor:
    return FakeTensorMode().from_tensor(t)


MADE: list[Make] = [unstored_zeros, functional, escaped, on_meta, fake]


@pytest.mark.parametrize("make", MADE)
@EACH
def test_as_an_operand(call: Call, make: Make) -> None:
    for reduction in REDUCTIONS:
        for name in call.operands:
            given = {**call.operands, name: make(call.operands[name])}
            stored = call.operands[name]
            if make is unstored_zeros:
                stored = torch.zeros_like(stored)
            right = outcome(call, {**call.operands, name: stored}, reduction)
            found = outcome(call, given, reduction)
            if not isinstance(found, Tensor):
                # Torch's own refusals, whatever operation they come from.
                assert issubclass(found, (RuntimeError, AssertionError, ValueError, IndexError))
            elif type(found) is Tensor and not found.is_meta and make is not on_meta:
                assert isinstance(right, Tensor)
                if torch._is_functional_tensor(found):
                    found = torch._from_functional_tensor(found)
                torch.testing.assert_close(found, right, equal_nan=True)


def outcome(call: Call, operands: dict[str, Tensor], reduction: str) -> Any:
    try:
        return call.ours(operands, reduction=reduction)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("make", [unstored_zeros, functional])
@DIFFERENTIATED
def test_as_the_gradient_from_above(call: Call, make: Make) -> None:
    for reduction in REDUCTIONS:
        leaves = {n: call.operands[n].clone().requires_grad_() for n in call.differentiated}
        value = call.ours({**call.operands, **leaves}, reduction=reduction)
        upstream = torch.zeros_like(value)
        right = torch.autograd.grad(value, [*leaves.values()], upstream, retain_graph=True)
        found = torch.autograd.grad(value, [*leaves.values()], make(upstream))
        for one, other in zip(found, right, strict=True):
            one = torch._from_functional_tensor(one) if torch._is_functional_tensor(one) else one
            torch.testing.assert_close(one + 0.0, other + 0.0, equal_nan=True)


@DIFFERENTIATED
def test_batched_gradients(call: Call) -> None:
    for reduction in REDUCTIONS:
        leaves = {n: call.operands[n].clone().requires_grad_() for n in call.differentiated}
        value = call.ours({**call.operands, **leaves}, reduction=reduction)
        upstream = torch.randn(3, *value.shape)
        wanted = [*leaves.values()]
        found = torch.autograd.grad(
            value, wanted, upstream, is_grads_batched=True, retain_graph=True
        )
        each = [torch.autograd.grad(value, wanted, u, retain_graph=True) for u in upstream]
        for one, others in zip(found, zip(*each, strict=True), strict=True):
            torch.testing.assert_close(one, torch.stack(others), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*deprecated")  # torch's own use
@DIFFERENTIATED
def test_transforms(call: Call) -> None:
    for reduction in REDUCTIONS:
        name = call.differentiated[0]
        x = call.operands[name]

        def loss(x: Tensor, name: str = name, reduction: str = reduction) -> Tensor:
            return call.ours({**call.operands, name: x}, reduction=reduction)

        def total(x: Tensor, loss: Any = loss) -> Tensor:
            return loss(x).sum()  # type: ignore[no-any-return]

        jacobian = torch.autograd.functional.jacobian
        right = jacobian(loss, x)
        near = {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(jacobian(loss, x, vectorize=True), right, **near)
        torch.testing.assert_close(torch.func.jacrev(loss)(x), right, **near)
        forward = torch.func.jacfwd(loss)(x)  # torch 2.13 has wide tangents of some sums
        torch.testing.assert_close(forward, right, check_dtype=False, **near)
        torch.testing.assert_close(torch.func.functionalize(loss)(x), loss(x), **near)
        pair = torch.stack([x, 0.9 * x])
        each = torch.stack([loss(v) for v in pair])
        torch.testing.assert_close(torch.vmap(loss)(pair), each, **near)
        if call.name != "ctc_loss":  # long, and the same twice
            hessian = torch.autograd.functional.hessian(total, x)
            torch.testing.assert_close(torch.func.hessian(total)(x), hessian, **near)


def test_inference_tensors_as_torch() -> None:
    with torch.inference_mode():
        y = torch.rand(4)
        value = losses.mse_loss(torch.zeros(4), y)
    torch.testing.assert_close(value, (y * y).mean())
    torch.testing.assert_close(losses.mse_loss(torch.zeros(4), y), (y * y).mean())
    x = torch.zeros(4, requires_grad=True)
    with pytest.raises(RuntimeError, match="nference tensors cannot be saved"):
        losses.mse_loss(x, y)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@EACH
def test_another_default_device_and_dtype(call: Call) -> None:
    for reduction in REDUCTIONS:
        leaves = {n: call.operands[n].clone().requires_grad_() for n in call.differentiated}
        operands = {**call.operands, **leaves}
        right = call.ours(operands, reduction=reduction)
        torch.set_default_dtype(torch.float64)
        with default_device("meta"):
            found = call.ours(operands, reduction=reduction)
            if leaves:
                found.sum().backward()
        torch.set_default_dtype(torch.float32)
        torch.testing.assert_close(found, right)
        if leaves:
            right_slopes = torch.autograd.grad(right.sum(), [*leaves.values()])
            for leaf, slope in zip(leaves.values(), right_slopes, strict=True):
                torch.testing.assert_close(leaf.grad, slope)


def test_an_integer_without_a_dtype_of_its_own_takes_the_default() -> None:
    x = torch.tensor([1, 2])
    torch.set_default_dtype(torch.float64)
    found = losses.gaussian_nll_loss(x, torch.tensor([1, 3]), 0.5)
    torch.testing.assert_close(
        found, torch.nn.functional.gaussian_nll_loss(x, torch.tensor([1, 3]), 0.5)
    )


@pytest.mark.parametrize("name", ["mse_loss", "soft_margin_loss", "smooth_l1_loss"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_hessian_of_a_sum_of_nothing_is_empty(reduction: str, name: str) -> None:
    x, y = torch.zeros(0, 3), torch.zeros(0, 3)

    def total(x: Any) -> Any:
        return getattr(losses, name)(x, y, reduction=reduction)

    assert torch.func.hessian(total)(x).shape == (0, 3, 0, 3)
