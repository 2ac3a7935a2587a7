"""Hooks on saved tensors may bring back anything: it is computed with, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tests.losses.calls import LAYOUTS, Call, calls
from thalweg import losses

Tensor = torch.Tensor
Hook = Callable[[Tensor], Tensor]

CALLS = [c for c in calls() if c.differentiated and next(iter(c.operands.values())).ndim < 4]
EACH = pytest.mark.parametrize("call", CALLS, ids=str)


def backward(call: Call, reduction: str, unpack: Hook) -> list[Tensor]:
    """The gradients of a second backward pass, which has only the saved tensors to go by."""
    leaves = {n: call.operands[n].clone().requires_grad_() for n in call.differentiated}
    with saved_tensors_hooks(lambda t: t, unpack):
        value = call.ours({**call.operands, **leaves}, reduction=reduction)
    upstream = torch.linspace(0.5, 1.5, value.numel()).view(value.shape)
    wanted = [*leaves.values()]
    torch.autograd.grad(value, wanted, upstream, retain_graph=True)
    return [*torch.autograd.grad(value, wanted, upstream)]


def in_16_bits(t: Tensor) -> Tensor:
    return t.half() if t.is_floating_point() else t


def in_64_bits(t: Tensor) -> Tensor:
    return t.double() if t.is_floating_point() else t


def smaller_integers(t: Tensor) -> Tensor:
    return t if t.is_floating_point() else t.to(torch.int16)


def fewer(t: Tensor) -> Tensor:
    return t[:1] if t.ndim else t


def number(t: Tensor) -> Tensor:
    return t.flatten()[0]


class Own(torch.Tensor):
    """A subclass without anything of its own."""


@pytest.mark.parametrize("unpack", [*LAYOUTS, lambda t: t.as_subclass(Own)])
@EACH
def test_another_layout_or_class(call: Call, unpack: Hook) -> None:
    if unpack.__name__ == "repeated":
        pytest.skip("it brings back other numbers")
    for reduction in ("mean", "none"):
        right = backward(call, reduction, lambda t: t)
        for found, expected in zip(backward(call, reduction, unpack), right, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, check_stride=False)


@pytest.mark.parametrize("unpack", [in_16_bits, in_64_bits])
@EACH
def test_another_precision(call: Call, unpack: Hook) -> None:
    for reduction in ("mean", "none"):
        right = backward(call, reduction, lambda t: t)
        try:
            all_found = backward(call, reduction, unpack)
        except RuntimeError:  # as torch has it for losses of classes
            assert {"target", "targets"} & set(call.operands)
            continue
        for found, expected in zip(all_found, right, strict=True):
            assert found.dtype is expected.dtype
            torch.testing.assert_close(found, expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("unpack", [fewer, number, smaller_integers])
@EACH
def test_another_size_or_other_integers(call: Call, unpack: Hook) -> None:
    classes = [t for t in call.operands.values() if not t.is_floating_point()]
    if unpack is smaller_integers and (not classes or call.name == "cosine_embedding_loss"):
        pytest.skip("it saves no integers")
    for reduction in ("mean", "none"):
        with pytest.raises(RuntimeError):
            backward(call, reduction, unpack)


def test_backward_called_by_hand() -> None:
    x = torch.zeros(1000, requires_grad=True)
    value = losses.mse_loss(x, torch.ones(1000), reduction="none")
    backward: Any = value.grad_fn
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"size \(1000,\), got \(3,\)"):
        backward.apply(torch.ones(3))
    with torch.no_grad():
        _, slope, _ = backward.apply(torch.ones(1000, dtype=torch.float64))
    torch.testing.assert_close(slope, torch.full_like(x, -2.0))


def test_data_replaced_between_forward_and_backward() -> None:
    x, y = torch.zeros(1000, requires_grad=True), torch.ones(1000)
    value = losses.mse_loss(x, y, reduction="none")
    x.data = torch.zeros(10)
    with pytest.raises(RuntimeError):
        value.sum().backward()
