"""Gradients in another layout than their parameters: read a piece at a time, never changed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

import thalweg.optim as optim
from thalweg.engine.backends.cpu import relaid
from thalweg.engine.backends.cpu.chunks import CHUNK


@given(st.data())
def test_a_range_is_copied_from_any_strides(data) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    order = data.draw(st.permutations(range(len(shape))))
    whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    inverse = [list(order).index(d) for d in range(len(shape))]
    source = whole.permute(*order).contiguous().permute(*inverse)
    start = data.draw(st.integers(0, whole.numel()))
    stop = data.draw(st.integers(start, whole.numel()))
    target = torch.full((stop - start,), -1)
    relaid.copy_range(source, start, stop, target)
    assert target.tolist() == list(range(start, stop))


SHAPES = {
    "many pieces": (300, 5000),
    "long rows": (2, 1_200_000),
    "four dimensions": (6, 7, 100, 301),
    "small": (3, 4),
}
LAYOUTS = {
    "turned": lambda g: g.flip(0).transpose(0, -1).contiguous().transpose(0, -1),
    "expanded": lambda g: g.flatten()[0].expand(g.shape),
    "negated": lambda g: torch._neg_view(g),
    "strided": lambda g: torch.stack([g, g])[1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_update_is_that_of_a_contiguous_gradient(shape, layout: str) -> None:
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(shape, generator=generator)
    gradient = LAYOUTS[layout](torch.randn(shape, generator=generator))
    found = []
    for given_as in (gradient, gradient.resolve_neg().contiguous()):
        params = [Parameter(value.clone()), Parameter(torch.zeros(5)), Parameter(value.clone())]
        params[0].grad, params[1].grad, params[2].grad = given_as, torch.ones(5), given_as
        optimizer = optim.Adam(params, lr=0.1)
        before = gradient.resolve_neg().clone()
        for _ in range(2):
            optimizer.step()
        assert torch.equal(gradient.resolve_neg(), before)
        assert {c.backend for c in optimizer._engine.choices.values()} == {"cpu"}
        found.append([p.detach() for p in params])
    assert all(map(torch.equal, *found)), "the same bits"
    assert not torch.equal(found[0][0], value)


def test_sums_over_relaid_gradients_are_those_of_contiguous_ones() -> None:
    from tests.engine.running import class_of
    from thalweg.optim.optimizer import MODES
    from thalweg.rule import Rule, norm

    rule = Rule(lambda p, g, s, h: p - g / norm(g) / norm(g, over="all"), name="n", counted=False)
    g = torch.randn(2000, 1000, generator=torch.Generator().manual_seed(0))
    found = []
    for given_as in (g.t().contiguous().t(), g):
        p, q = Parameter(torch.zeros_like(g)), Parameter(torch.zeros(3))
        p.grad, q.grad = given_as, torch.ones(3)
        class_of(rule)([p, q], {**MODES}).step()
        found.append((p.detach(), q.detach()))
    assert all(map(torch.equal, *found))


def test_complex_gradients_that_are_conjugated_or_turned() -> None:
    z = torch.randn(300, 200, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    found = []
    for g in (z.conj(), z.conj().resolve_conj(), z.conj().t().contiguous().t()):
        p = Parameter(torch.zeros_like(z))
        p.grad = g
        optim.SGD([p], lr=1.0).step()
        found.append(p.detach())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[0], -z.conj())


def test_one_buffer_serves_all_pieces(monkeypatch) -> None:
    sizes = []
    original = relaid.copy_range

    def counted(source, start, stop, target):
        sizes.append(target.numel())
        return original(source, start, stop, target)

    monkeypatch.setattr(relaid, "copy_range", counted)
    shape = (64, 3 * CHUNK)
    params = [Parameter(torch.zeros(shape)) for _ in range(2)]
    for p in params:
        p.grad = torch.ones(()).expand(shape)
    optim.SGD(params, lr=1.0).step()
    assert max(sizes) <= relaid.PIECE
    assert all((p == -1).all() for p in params)
