"""Any optimizer: groups of other programs, sums, absent gradients, dtypes, transforms, back ends.

A rule with switches is drawn together with groups that set them, transforms in any order, and
parameters of several dtypes. Kernels, lists, and tensor by tensor must do what the same rule does
when it is called on float64 tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from thalweg.optim.optimizer import MODES, Optimizer
from thalweg.rule import Rule, State, lerp, maximum, mean, minimum, norm, sign, sqrt
from thalweg.transforms import averaged, decoupled_decay, l2_decay, maximized

BACKENDS = {
    "cpu": {},
    "foreach": {"fused": False, "foreach": True},
    "eager": {"fused": False},
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 6e-2}
STEPS = 4


def switched(p: Any, g: Any, s: Any, h: Any) -> Any:
    """A rule of many programs: every switch changes its states, sums or stages."""
    if h.clip:
        g = g * minimum(1.0, h.bound / (norm(g, over="all") + 1e-6))
    if h.centred:
        g = g - mean(g)
    if h.momentum:
        s.buffer = lerp(s.buffer, g, 1 - h.momentum)
        g = s.buffer
    if h.adaptive:
        s.square = h.beta * s.square + (1 - h.beta) * g * g
        g = g / (sqrt(s.square) + 0.1)
    if h.signed:
        g = sign(g) * maximum(abs(g), 0.5)
    if h.trust:
        g = g * (norm(p) + 0.1) / (norm(g) + 1.0)
    s.total = 0.5 * s.total + 1
    return p - h.lr * g / s.total


RULE = Rule(
    switched,
    {"buffer": 0.0, "square": 0.0, "total": State(0.0, scalar=True)},
    name="switched",
)
OPTIONS = {
    "lr": 0.1, "bound": 0.5, "beta": 0.9, "momentum": 0.0,
    "clip": False, "centred": False, "adaptive": False, "signed": False, "trust": False,
}  # fmt: skip


class Switched(Optimizer):
    """The rule as an optimizer."""

    rule = RULE
    ranges = {}

    def __init__(self, params: Any, transforms: Any = (), **flags: Any) -> None:
        super().__init__(params, {**OPTIONS, **MODES, **flags}, transforms=transforms)


@dataclass(frozen=True)
class Group:
    """A parameter group: its options, and dtype and absences of its parameters."""

    options: dict[str, Any]
    dtype: torch.dtype
    absent: tuple[tuple[int, ...], ...]


flags = st.sampled_from(["clip", "centred", "adaptive", "signed", "trust"])
group = st.builds(
    lambda on, momentum, bound, lr, dtype, absent: Group(
        {**dict.fromkeys(on, True), "momentum": momentum, "bound": bound, "lr": lr},
        dtype,
        tuple(map(tuple, absent)),
    ),
    st.sets(flags),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([0.3, 100.0]),
    st.sampled_from([0.1, 0.02]),
    st.sampled_from(list(TOLERANCE)),
    st.lists(st.sets(st.integers(0, STEPS - 1), max_size=2), min_size=2, max_size=3),
)
MADE = {
    "maximized": lambda: maximized(),
    "l2": lambda: l2_decay(0.1),
    "decoupled": lambda: decoupled_decay(0.1),
    "averaged": lambda: averaged(0.9),
}
# Both kinds of decay own the option weight_decay, so there is one of them.
orders = st.one_of(
    st.permutations(["maximized", "l2", "averaged"]),
    st.permutations(["maximized", "decoupled", "averaged"]),
).flatmap(lambda names: st.integers(0, 3).map(lambda n: names[:n]))


def values(groups: list[Group]) -> tuple[list[list[Tensor]], list[list[list[Tensor | None]]]]:
    """Start values of all parameters, and their gradients at each step, in their dtypes."""
    generator = torch.Generator().manual_seed(0)

    def draw(dtype: torch.dtype, k: int) -> Tensor:
        shape = [(5, 3), (), (7,)][k]
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    start = [[draw(g.dtype, k) for k in range(len(g.absent))] for g in groups]
    gradients = [
        [
            [None if step in gone else draw(g.dtype, k) for k, gone in enumerate(g.absent)]
            for g in groups
        ]
        for step in range(STEPS)
    ]
    return start, gradients


def run(groups: list[Group], names: list[str], wide: bool, **flags: Any) -> Optimizer:
    """All steps; ``wide`` for everything in float64."""
    start, gradients = values(groups)
    kind = (lambda x: x.double()) if wide else (lambda x: x.clone())
    # Leaves that require a gradient may not be written while autograd records.
    params = [[Parameter(kind(x), requires_grad=not wide) for x in own] for own in start]
    made = [{"params": own, **g.options} for own, g in zip(params, groups, strict=True)]
    optimizer = Switched(made, transforms=[MADE[name]() for name in names], **flags)
    for step in gradients:
        for own, gs in zip(params, step, strict=True):
            for p, g in zip(own, gs, strict=True):
                p.grad = None if g is None else kind(g)
        optimizer.step()
    return optimizer


def agree(groups: list[Group], names: list[str]) -> None:
    """All back ends do the same, as near to float64 as their dtypes allow."""
    start, gradients = values(groups)
    # Float64 and differentiable: the program's nodes one by one, by torch's operations.
    exact = run(groups, names, wide=True, differentiable=True)
    for backend, how in BACKENDS.items():
        ours = run(groups, names, wide=False, **how)
        assert {c.backend for c in ours._engine.choices.values()} <= {backend}
        # A sum over all tensors brings the rounding of the least exact into all of them.
        together = any(g.options.get("clip") for g in groups)
        rough = max(TOLERANCE[g.dtype] for g in groups)
        for k, (mine, other) in enumerate(zip(ours.param_groups, exact.param_groups, strict=True)):
            bound = rough if together else TOLERANCE[groups[k].dtype]
            for j, (p, q) in enumerate(zip(mine["params"], other["params"], strict=True)):
                moved = any(step[k][j] is not None for step in gradients)
                if p.numel() > 1 or not moved:  # the one number of a scalar may be its own mean
                    assert torch.equal(p.detach(), start[k][j]) == (not moved)
                torch.testing.assert_close(p.double(), q, rtol=bound, atol=bound)
                a, b = ours.state.get(p, {}), exact.state.get(q, {})
                assert a.keys() == b.keys()
                for name, value in b.items():
                    torch.testing.assert_close(a[name].double(), value, rtol=bound, atol=bound)


QUICK = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(QUICK, max_examples=6)
@given(groups=st.lists(group, min_size=1, max_size=3), names=orders)
def test_back_ends_agree_on_any_optimizer(groups: list[Group], names: list[str]) -> None:
    agree(groups, names)


@pytest.mark.slow
@settings(QUICK, max_examples=150)
@given(groups=st.lists(group, min_size=1, max_size=3), names=orders)
def test_back_ends_agree_on_many_optimizers(groups: list[Group], names: list[str]) -> None:
    agree(groups, names)
