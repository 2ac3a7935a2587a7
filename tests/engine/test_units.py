"""Sums over the units of a tensor, ``p[i]``, in every back end, against the rule in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.engine.running import class_of
from tests.fuzz.apart import Returned, apart
from thalweg.optim.optimizer import MODES
from thalweg.rule import Rule, State, dimensions, lerp, maximum, mean, norm, where
from thalweg.rule import sum as sum_of
from thalweg.rule.program import ordered

BACKENDS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "foreach": {"fused": False, "foreach": True},
    "eager": {"fused": False},
}
on_every_backend = pytest.mark.parametrize("backend", BACKENDS)
SHAPES = [
    (),
    (1,),
    (7,),
    (1, 9),
    (9, 1),
    (5, 8),
    (0, 3),
    (3, 0),
    (4, 3, 2, 2),
    (3, 20000),
    (700, 3),
]


def by_units(p: Any, g: Any, s: Any, h: Any) -> Any:
    """Sums of units, of tensors and of all, each of what depends on the ones before."""
    g = g / (1 + norm(g, "unit"))
    s.buf = lerp(s.buf, g - mean(g, "unit"), 0.25)
    largest = maximum(sum_of(s.buf * s.buf, "unit"), 0.01 * mean(g * g))
    scaled = s.buf / (largest + norm(p) + sum_of(abs(g), "all") + norm(p * g, "group"))
    return p - h.lr * scaled - where(dimensions(g) > 1, h.lr * g, 0.0)


RULE = Rule(by_units, {"buf": 0.0}, name="by_units")


def reference(params: list[Tensor], given: list[list[Tensor]]) -> list[Tensor]:
    """The rule's lines once more, on float64 tensors that sum over the others by hand."""
    params = [p.double().clone() for p in params]
    bufs = [torch.zeros_like(p) for p in params]
    for gradients in given:
        scaled = []
        for g in gradients:
            g = g.double()
            axes = tuple(range(1, g.ndim)) if g.ndim > 1 else tuple(range(g.ndim))
            scaled.append(
                g / (1 + (g * g).sum(axes, keepdim=True).sqrt()) if axes else g / (1 + abs(g))
            )
        total = sum(abs(g).sum() for g in scaled)
        of_group = sum(((p * g) ** 2).sum() for p, g in zip(params, scaled, strict=True)).sqrt()
        for k, (p, g) in enumerate(zip(params, scaled, strict=True)):
            axes = tuple(range(1, g.ndim)) if g.ndim > 1 else tuple(range(g.ndim))

            def of_unit(x: Tensor, axes: tuple[int, ...] = axes) -> Tensor:
                return x.sum(axes, keepdim=True) if axes else x

            count = of_unit(torch.ones_like(g))
            bufs[k] = bufs[k] + 0.25 * (g - of_unit(g) / count - bufs[k])
            largest = torch.maximum(of_unit(bufs[k] ** 2), 0.01 * (g * g).mean())
            step = bufs[k] / (largest + p.norm() + total + of_group)
            params[k] = p - 0.5 * step - (0.5 * g if g.ndim > 1 else 0.0)
    return params


def drawn(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def optimizer_for(params: list[Parameter], **options: Any) -> Any:
    return class_of(RULE)(params, {**MODES, "lr": 0.5, **options})


def stepped(params: list[Parameter], given: list[list[Tensor]], **options: Any) -> Any:
    optimizer = optimizer_for(params, **options)
    for gradients in given:
        for p, g in zip(params, gradients, strict=True):
            p.grad = g
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@on_every_backend
def test_sums_over_units(backend: str, dtype: torch.dtype) -> None:
    start, given = drawn(0), [[g.to(dtype) for g in drawn(k)] for k in (1, 2, 3)]
    params = [Parameter(x.to(dtype).clone()) for x in start]
    optimizer = stepped(params, given, **BACKENDS[backend])
    assert {c.backend for c in optimizer._engine.choices.values()} == {backend}
    near = (
        {"rtol": 1e-12, "atol": 1e-12} if dtype is torch.float64 else {"rtol": 2e-5, "atol": 2e-6}
    )
    for p, x, wanted in zip(params, start, reference(start, given), strict=True):
        torch.testing.assert_close(p.detach().double(), wanted, **near)
        assert p.numel() < 2 or not torch.equal(p, x.to(dtype))


@on_every_backend
def test_layouts_of_parameters_and_gradients(backend: str) -> None:
    """Units that do not lie one behind the other have no kernel; gradients may lie as they like."""
    torch.manual_seed(3)
    start = [torch.randn(4, 3, 2, 2), torch.randn(6, 5), torch.randn(6, 5)]
    given = [[torch.randn_like(x) for x in start] for _ in range(2)]
    laid = [
        start[0].contiguous(memory_format=torch.channels_last),
        start[1].t().contiguous().t(),
        start[2],
    ]
    params = [Parameter(x.clone(memory_format=torch.preserve_format)) for x in laid]
    turned = [[g.mT.contiguous().mT for g in gradients] for gradients in given]
    optimizer = stepped(params, turned, **BACKENDS[backend])
    found = [c.backend for c in optimizer._engine.choices.values()]
    assert found == (["cpu", "eager", "cpu"] if backend == "cpu" else [backend] * 3)
    for p, wanted in zip(params, reference(start, given), strict=True):
        torch.testing.assert_close(p.detach().double(), wanted, rtol=2e-5, atol=2e-6)


@on_every_backend
def test_units_of_complex_parameters_are_of_both_parts(backend: str) -> None:
    """A complex matrix is as a real one with twice the columns, a vector as one twice as long."""
    for shape in ((4, 3), (6,)):
        torch.manual_seed(4)
        x, g = torch.randn(shape, dtype=torch.complex64), torch.randn(shape, dtype=torch.complex64)
        p, q = (
            Parameter(x.clone()),
            Parameter(torch.view_as_real(x).flatten(len(shape) - 1).clone()),
        )
        stepped([p], [[g]] * 2, **BACKENDS[backend])
        stepped([q], [[torch.view_as_real(g).flatten(len(shape) - 1)]] * 2, **BACKENDS[backend])
        flat = torch.view_as_real(p.detach()).flatten(len(shape) - 1)
        torch.testing.assert_close(flat, q.detach(), rtol=1e-6, atol=1e-7)
        assert not torch.equal(p, x)


@on_every_backend
def test_absent_gradients_take_no_part(backend: str) -> None:
    first, second = Parameter(torch.ones(3, 2)), Parameter(torch.ones(4, 2))
    alone = Parameter(torch.ones(3, 2))
    g = torch.arange(6.0).view(3, 2)
    optimizer = optimizer_for([first, second], **BACKENDS[backend])
    for k in range(2):
        first.grad, second.grad = g, None if k else torch.zeros(4, 2)
        optimizer.step()
    stepped([alone], [[g], [g]], **BACKENDS[backend])
    torch.testing.assert_close(first, alone, rtol=1e-6, atol=1e-7)
    assert torch.equal(second, torch.ones(4, 2))


def test_sums_over_units_do_not_depend_on_threads() -> None:
    ends = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            params = [Parameter(x) for x in drawn(0)]
            stepped(params, [drawn(1), drawn(2)])
            ends.append([p.detach().clone() for p in params])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *ends))


def test_differentiable_steps_sum_over_units() -> None:
    x, g = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def end(x: Tensor, g: Tensor) -> Tensor:
        p = x.clone()
        optimizer = optimizer_for([p], differentiable=True)
        p.grad = g
        optimizer.step()
        return p

    torch.testing.assert_close(end(x, g), reference([x], [[g]])[0], rtol=1e-12, atol=1e-12)
    leaves = x.requires_grad_(), g.requires_grad_()
    assert torch.autograd.gradcheck(end, leaves)


def test_a_scalar_state_is_no_place_for_the_sums_of_units() -> None:
    def wrong(p: Any, g: Any, s: Any, h: Any) -> Any:
        s.last = norm(g, "unit")
        return p - g

    p = Parameter(torch.ones(2, 2))
    p.grad = torch.ones(2, 2)
    optimizer = class_of(Rule(wrong, {"last": State(scalar=True)}))([p], {**MODES, "lr": 0.1})
    with pytest.raises(TypeError, match="state 'last' holds one number per parameter"):
        optimizer.step()
    assert torch.equal(p, torch.ones(2, 2))


def chained(steps: int) -> int:
    """A scalar state that is fed by a number that each step takes twice; how many nodes it has."""

    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        x = norm(g)
        for _ in range(steps):
            x = x * (x + 1)
        s.last = x
        return p - g

    made = Rule(rule, {"last": State(scalar=True)}, name="chained")
    return len(ordered([node for _, node in made.program({}, [1.0, 0.0]).fed]))


def test_numbers_that_are_used_twice_are_looked_at_once() -> None:
    """Otherwise tracing takes a time that doubles with each step of the chain."""
    found = apart(chained, 60, longest=10)
    assert isinstance(found, Returned), found
    assert found.value > 120
