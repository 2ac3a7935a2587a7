"""Transforms in any order around a rule, against the same layers written on float64 tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

import thalweg.optim as optim
from tests.transforms.test_against_papers import BACKENDS, begun, gradients, unit_norms
from thalweg import transforms
from thalweg.rule import Transform

LR, MOMENTUM, STEPS = 0.05, 0.9, 3

Tensors = Sequence[Tensor]
Update = Callable[[Tensors, Tensors], list[Tensor]]


@dataclass
class Memory:
    """What one layer keeps from step to step."""

    kept: dict[Any, Any] = field(default_factory=dict)


def momentum_rule(memory: Memory) -> Update:
    def update(params: Tensors, grads: Tensors) -> list[Tensor]:
        for k, g in enumerate(grads):
            before = memory.kept.get(k)
            memory.kept[k] = g if before is None else MOMENTUM * before + g
        return [p - LR * memory.kept[k] for k, p in enumerate(params)]

    return update


Seen = Callable[[Tensors, Tensors, Memory], list[Tensor]]


def of_gradients(change: Seen) -> Callable[[Update, Memory], Update]:
    """A layer whose inside sees other gradients."""
    return lambda inner, memory: lambda params, grads: inner(params, change(params, grads, memory))


def of_updates(change: Seen) -> Callable[[Update, Memory], Update]:
    """A layer that changes what its inside adds to the parameters."""

    def layer(inner: Update, memory: Memory) -> Update:
        def update(params: Tensors, grads: Tensors) -> list[Tensor]:
            new = inner(params, grads)
            added = [q - p for q, p in zip(new, params, strict=True)]
            changed = change(params, added, memory)
            return [p + u for p, u in zip(params, changed, strict=True)]

        return update

    return layer


def whole_norm(tensors: Tensors) -> Tensor:
    return torch.cat([x.flatten() for x in tensors]).norm()


def clipped_whole(params: Tensors, grads: Tensors, memory: Memory) -> list[Tensor]:
    return [g * min(0.7 / (float(whole_norm(grads)) + 1e-6), 1.0) for g in grads]


def clipped_groups(params: Tensors, grads: Tensors, memory: Memory) -> list[Tensor]:
    return [*clipped_whole(params, grads[:2], memory), *clipped_whole(params, grads[2:], memory)]


def clipped_tensors(params: Tensors, grads: Tensors, memory: Memory) -> list[Tensor]:
    return [clipped_whole(params, [g], memory)[0] for g in grads]


def clipped_elements(params: Tensors, grads: Tensors, memory: Memory) -> list[Tensor]:
    return [g.clamp(-0.3, 0.3) for g in grads]


def clipped_by_quantile(params: Tensors, grads: Tensors, memory: Memory) -> list[Tensor]:
    total = float(whole_norm(grads))
    limit = memory.kept.get("q", total)
    memory.kept["q"] = limit * math.exp(0.2 * (0.4 - (total <= limit)))
    return [g * min(limit / (total + 1e-6), 1.0) for g in grads]


def clipped_units(params: Tensors, grads: Tensors, memory: Memory) -> list[Tensor]:
    found = []
    for p, g in zip(params, grads, strict=True):
        limit, length = unit_norms(p).clamp(min=1.2) * 0.3, unit_norms(g)
        found.append(torch.where(length < limit, g, g * limit / length.clamp(min=1e-6)))
    return found


def less_means(params: Tensors, grads: Tensors, memory: Memory) -> list[Tensor]:
    return [g - g.mean(tuple(range(1, g.ndim)), keepdim=True) if g.ndim > 1 else g for g in grads]


def with_slow_part(params: Tensors, grads: Tensors, memory: Memory) -> list[Tensor]:
    found = []
    for k, g in enumerate(grads):
        slow = 0.9 * memory.kept[k] + 0.1 * g if k in memory.kept else g
        memory.kept[k] = slow
        found.append(g + 1.5 * slow)
    return found


def as_long_as_weights(params: Tensors, added: Tensors, memory: Memory) -> list[Tensor]:
    return [u * LR * p.norm() / u.norm() for p, u in zip(params, added, strict=True)]


def no_shorter_rows(params: Tensors, added: Tensors, memory: Memory) -> list[Tensor]:
    pairs = zip(params, added, strict=True)
    return [u * (LR * 2.0 * unit_norms(p) / unit_norms(u)).clamp(min=1.0) for p, u in pairs]


def no_longer_than_before(params: Tensors, added: Tensors, memory: Memory) -> list[Tensor]:
    found = []
    for k, u in enumerate(added):
        length = min(float(u.norm()), 0.9 * memory.kept.get(k, math.inf))
        found.append(u * length / u.norm())
        memory.kept[k] = length
    return found


LAYERS: dict[str, tuple[Transform, Callable[[Update, Memory], Update]]] = {
    "all": (transforms.clip_by_norm(0.7), of_gradients(clipped_whole)),
    "group": (transforms.clip_by_norm(0.7, "group"), of_gradients(clipped_groups)),
    "tensor": (transforms.clip_by_norm(0.7, "tensor"), of_gradients(clipped_tensors)),
    "elements": (transforms.clip_by_value(0.3), of_gradients(clipped_elements)),
    "quantile": (transforms.clip_by_quantile(0.4, 0.2), of_gradients(clipped_by_quantile)),
    "units": (transforms.adaptive_clipping(0.3, 1.2), of_gradients(clipped_units)),
    "means": (transforms.centralized(), of_gradients(less_means)),
    "slow": (transforms.grokfast(1.5, 0.9), of_gradients(with_slow_part)),
    "ratio": (transforms.trust_ratio(), of_updates(as_long_as_weights)),
    "floor": (transforms.update_floor(2.0, "row"), of_updates(no_shorter_rows)),
    "growth": (transforms.norm_growth_limited(0.9), of_updates(no_longer_than_before)),
}
# Of those that have an option in common, one.
FREE = [name for name in LAYERS if name not in ("all", "group", "tensor")]


@st.composite
def orders(draw: st.DrawFn) -> list[str]:
    """Names of layers, the innermost first."""
    chosen = draw(st.lists(st.sampled_from(FREE), max_size=4, unique=True))
    clip = draw(st.sampled_from([None, "all", "group", "tensor"]))
    return draw(st.permutations([*chosen, clip] if clip else chosen))


def expected(names: Sequence[str]) -> list[Tensor]:
    update = momentum_rule(Memory())
    for name in names:
        update = LAYERS[name][1](update, Memory())
    params = [x.double() for x in begun()]
    for k in range(STEPS):
        params = update(params, [g.double() for g in gradients(k)])
    return params


def differing(names: Sequence[str], backend: str) -> float:
    """How far parameters end from what they should be, relative to their size, at most."""
    params = [Parameter(x.double()) for x in begun()]
    optimizer = made(params, names, backend)
    for k in range(STEPS):
        given_now = [g.double() for g in gradients(k)]
        for p, g in zip(params, given_now, strict=True):
            p.grad = g.clone()
        optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(params, given_now, strict=True))
    assert {c.backend for c in optimizer._engine.choices.values()} == {backend}
    pairs = zip(params, expected(names), strict=True)
    return max(float((p.detach() - q).norm() / q.norm()) for p, q in pairs)


def made(params: list[Parameter], names: Sequence[str], backend: str) -> Any:
    groups = [{"params": params[:2]}, {"params": params[2:]}]
    around = [LAYERS[name][0] for name in names]
    return optim.SGD(groups, lr=LR, momentum=MOMENTUM, transforms=around, **BACKENDS[backend])


def check(names: Sequence[str]) -> None:
    found = {backend: differing(names, backend) for backend in BACKENDS}
    assert all(difference < 1e-11 for difference in found.values()), found


@settings(max_examples=3, derandomize=True, deadline=None, database=None)
@given(orders())
def test_any_order_is_its_layers(names: list[str]) -> None:
    check(names)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, database=None)
@given(orders())
def test_many_orders_are_their_layers(names: list[str]) -> None:
    check(names)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "names",
    [("tensor", "elements"), ("means", "units"), ("ratio", "growth"), ("quantile", "group")],
)
def test_layers_do_not_commute(names: tuple[str, str], backend: str) -> None:
    """The order is seen: the other one's end is far from this one's."""
    inner, outer = expected(names), expected(names[::-1])
    assert max(float((a - b).norm() / b.norm()) for a, b in zip(inner, outer, strict=True)) > 1e-4
    assert differing(names, backend) < 1e-11
