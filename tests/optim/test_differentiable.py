"""Gradients through several differentiable steps, and the scalar states between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import thalweg.optim as optim


def after_three_steps(name: str, p: Tensor, options: dict[str, Any], **state: Tensor) -> Tensor:
    """A parameter after three steps with gradients that depend on it."""
    p = p.clone()
    optimizer = getattr(optim, name)([p], differentiable=True, **options)
    optimizer.state[p].update(state)
    for _ in range(3):
        p.grad = torch.sin(p.clone())
        optimizer.step()
    return p


def test_nadams_product_of_momenta_is_part_of_the_graph() -> None:
    p = torch.linspace(0.5, 2, 4, dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)

    def stepped(p: Tensor, beta: Tensor) -> Tensor:
        return after_three_steps("NAdam", p, {"lr": 0.1, "betas": (beta, 0.9)})

    assert torch.autograd.gradcheck(stepped, (p, beta))


def test_a_scalar_state_that_was_given_gets_a_gradient() -> None:
    p = torch.linspace(0.5, 2, 4, dtype=torch.float64, requires_grad=True)
    product = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    mean, square = torch.full((2, 4), 0.25, dtype=torch.float64).unbind()

    def stepped(p: Tensor, product: Tensor) -> Tensor:
        entry = {
            "step": torch.tensor(2.0, dtype=torch.float64),
            "mu_product": product.clone(),
            "exp_avg": mean.clone(),
            "exp_avg_sq": square.clone(),
        }
        return after_three_steps("NAdam", p, {"lr": 0.1}, **entry)

    assert torch.autograd.gradcheck(stepped, (p, product))


def test_the_values_are_those_of_other_steps() -> None:
    start = torch.linspace(0.5, 2, 4, dtype=torch.float64)
    beta = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    for name in ("NAdam", "ASGD", "Rprop"):
        options = {"lr": 0.1} | ({"betas": (beta, 0.9)} if name == "NAdam" else {})
        found = after_three_steps(name, start, options)
        p = torch.nn.Parameter(start.clone())
        plain = {"lr": 0.1} | ({"betas": (0.8, 0.9)} if name == "NAdam" else {})
        optimizer = getattr(optim, name)([p], **plain)
        for _ in range(3):
            p.grad = torch.sin(p.detach())
            optimizer.step()
        torch.testing.assert_close(found, p, rtol=1e-12, atol=0)
        assert not torch.equal(start, p)
