"""Transforms in any order: back ends agree, gradients stay, what is left out leaves no trace."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import Parameter

import thalweg.optim as optim
from thalweg import transforms
from thalweg.rule import Transform
from thalweg.transforms.measuring import SUMS

MAKERS: dict[str, Any] = {
    "norm of all": lambda: transforms.clip_by_norm(0.7),
    "norm of groups": lambda: transforms.clip_by_norm(0.7, "group"),
    "norm of tensors": lambda: transforms.clip_by_norm(0.4, "tensor"),
    "value": lambda: transforms.clip_by_value(0.3),
    "quantile": lambda: transforms.clip_by_quantile(0.4, 0.2),
    "weights": lambda: transforms.adaptive_clipping(0.3, 1.2),
    "centralized": transforms.centralized,
    "grokfast": lambda: transforms.grokfast(1.5, 0.9),
    "cautious": transforms.cautious,
    "cautious decay": lambda: transforms.cautious_decay(0.3),
    "independent decay": lambda: transforms.independent_decay(0.02),
    "l1": lambda: transforms.l1_decay(0.4),
    "trust ratio": transforms.trust_ratio,
    "hyperball": transforms.hyperball,
    "floor": lambda: transforms.update_floor(0.5),
    "growth": lambda: transforms.norm_growth_limited(0.95),
    "lookahead": lambda: transforms.lookahead(2, 0.6),
    "outer": lambda: transforms.outer_nesterov(2, 0.8, 0.6),
    "ahead": lambda: transforms.ema_nesterov(1.5, 0.8),
    "average": lambda: transforms.averaged(0.8),
    "slow average": lambda: transforms.averaged(None, name="slow"),
}
SHAPES = [(5, 8), (11,), (3, 2, 4), ()]
BACKENDS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "foreach": {"fused": False, "foreach": True},
    "eager": {"fused": False},
}
RULES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"momentum": 0.9}),
    ("AdamW", {"betas": (0.8, 0.9), "weight_decay": 0.1}),
    ("RMSprop", {"alpha": 0.9}),
]


def around(names: list[str]) -> list[Transform]:
    """The transforms, without those whose options are there already."""
    found: list[Transform] = []
    taken: set[str] = set()
    for name in names:
        each = MAKERS[name]()
        if not taken & {*each.options, *each.states}:
            found.append(each)
            taken |= {*each.options, *each.states}
    return found


def trained(
    rule: tuple[str, dict[str, Any]], names: list[str], backend: str, nonfinite: str, cut: int
) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Parameters and states after steps, one of which has an infinite gradient, and measures."""
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(s, generator=generator).double()) for s in SHAPES]
    groups = [{"params": params[:cut]}, {"params": params[cut:], "lr": 0.02}]
    groups = [group for group in groups if group["params"]]
    optimizer = getattr(optim, rule[0])(
        groups,
        lr=0.05,
        **rule[1],
        **BACKENDS[backend],
        transforms=around(names),
        nonfinite=nonfinite,
        measure=tuple(SUMS),
    )
    for step in range(4):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).double()
        params[1].grad = None if step == 2 else params[1].grad
        if step == 1 and nonfinite != "propagate":
            params[0].grad[0, 0] = float("inf")
        kept = [None if p.grad is None else p.grad.clone() for p in params]
        optimizer.step()
        for p, g in zip(params, kept, strict=True):
            assert (g is None) if p.grad is None else torch.equal(p.grad, g)
    assert {choice.backend for choice in optimizer._engine.choices.values()} == {backend}
    entries = [optimizer.state[p] for p in params]
    states = [entry[key] for entry in entries for key in sorted(entry)]
    return [x.detach().clone() for x in (*params, *states)], dict(optimizer.measured)


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
@given(
    st.sampled_from(RULES),
    st.lists(st.sampled_from(sorted(MAKERS)), min_size=2, max_size=5, unique=True),
    st.sampled_from(["propagate", "skip", "zero"]),
    st.integers(1, 4),
)
def test_back_ends_agree_on_any_order(
    rule: tuple[str, dict[str, Any]], names: list[str], nonfinite: str, cut: int
) -> None:
    found = {backend: trained(rule, names, backend, nonfinite, cut) for backend in BACKENDS}
    values, measured = found.pop("cpu")
    assert all(bool(x.isfinite().all()) for x in values)
    for other, measures in found.values():
        torch.testing.assert_close(values, other, rtol=1e-9, atol=1e-10)
        for name, value in measures.items():
            torch.testing.assert_close(measured[name], float(value), rtol=1e-9, atol=1e-12)
