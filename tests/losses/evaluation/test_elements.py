"""Evaluation: operands that depend on each other, small numbers, transforms, memory formats."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from thalweg import losses

Tensor = torch.Tensor


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("square", [False, True])
def test_operands_that_depend_on_each_other(
    create_graph: bool, reduction: str, square: bool
) -> None:
    x = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
    found = []
    for module in (losses, F):
        y = x * x if square else x
        loss = module.binary_cross_entropy(x, y, reduction=reduction).sum()
        found.append(torch.autograd.grad(loss, x, create_graph=create_graph)[0].detach())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("create_graph", [False, True])
def test_an_operand_without_influence(create_graph: bool) -> None:
    y = torch.tensor([1.0, -1.0], requires_grad=True)
    loss = losses.hinge_embedding_loss(torch.ones(2), y)
    (slope,) = torch.autograd.grad(
        loss, y, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    assert slope.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_16_bits_are_for_storage(create_graph: bool) -> None:
    x = torch.rand(64).bfloat16().requires_grad_()
    y = torch.rand(64).bfloat16()
    wide = x.detach().double().requires_grad_()
    loss = losses.binary_cross_entropy_with_logits(x, y, reduction="sum")
    (ours,) = torch.autograd.grad(loss, x, create_graph=create_graph)
    exact = F.binary_cross_entropy_with_logits(wide, y.double(), reduction="sum")
    (slope,) = torch.autograd.grad(exact, wide)
    assert torch.equal(ours.detach(), slope.bfloat16())


def test_a_scaled_loss_keeps_small_gradients() -> None:
    """As a gradient scaler has it: the scale is there for what float16 cannot hold."""
    x = (torch.rand(2**20) * 0.1).half().requires_grad_()
    wide = x.detach().double().requires_grad_()
    (losses.mse_loss(x, torch.zeros_like(x)) * 1024.0).backward()
    (F.mse_loss(wide, torch.zeros_like(wide)) * 1024.0).backward()
    torch.testing.assert_close(x.grad, wide.grad.half(), rtol=2e-3, atol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch deprecates what it uses
@pytest.mark.parametrize("transform", ["grad", "vmap", "jvp", "hessian"])
def test_transforms_of_functions(transform: str) -> None:
    x, y = torch.rand(4, 3), torch.rand(4, 3)
    calls = {
        "grad": lambda m: torch.func.grad(lambda a: m.mse_loss(a, y))(x),
        "vmap": lambda m: torch.vmap(m.mse_loss)(x, y),
        "jvp": lambda m: torch.func.jvp(lambda a: m.mse_loss(a, y), (x,), (y,)),
        "hessian": lambda m: torch.func.hessian(lambda a: m.mse_loss(a, y))(x),
    }
    torch.testing.assert_close(calls[transform](losses), calls[transform](F))


def test_probabilities_within_vmap() -> None:
    """Where values cannot be asked for, none are."""
    x, y = torch.rand(4, 3), torch.rand(4, 3)
    found = torch.vmap(losses.binary_cross_entropy)(x, y)
    torch.testing.assert_close(found, torch.vmap(F.binary_cross_entropy)(x, y))
    found = torch.vmap(losses.gaussian_nll_loss)(x, y, x)
    wanted = [F.gaussian_nll_loss(*row) for row in zip(x, y, x, strict=True)]
    torch.testing.assert_close(found, torch.stack(wanted))


def test_a_tensor_that_escaped_from_a_transform() -> None:
    escaped = []

    def square(x: Tensor) -> Tensor:
        escaped.append(x)
        return (x * x).sum()

    x, y = torch.rand(3), torch.rand(3)
    torch.func.grad(square)(x)
    torch.testing.assert_close(losses.mse_loss(escaped[0], y), F.mse_loss(x, y))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_variance_below_zero_is_found(reduction: str) -> None:
    x, var = torch.zeros(3), torch.tensor([1.0, -1e-3, 0.0])
    with pytest.raises(ValueError, match=r"var must be >= 0, got -0\.001"):
        losses.gaussian_nll_loss(x, x, var, reduction=reduction)
    nan = torch.tensor([0.0, math.nan, 0.0])
    assert losses.gaussian_nll_loss(nan, x, var.abs(), reduction="sum").isnan()


@pytest.mark.parametrize("name", ["mse_loss", "binary_cross_entropy", "kl_div"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_one_graph_when_compiled(name: str) -> None:
    x, y = torch.rand(4, 3), torch.rand(4, 3)
    torch.compiler.reset()
    run = torch.compile(getattr(losses, name), backend="eager", fullgraph=True)
    torch.testing.assert_close(run(x, y, reduction="sum"), getattr(F, name)(x, y, reduction="sum"))


def test_memory_format_is_kept() -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    each = losses.mse_loss(x, torch.zeros_like(x), reduction="none")
    each.sum().backward()
    assert x.grad is not None
    assert each.stride() == x.grad.stride() == x.stride()
