"""Layout: any dense tensor anywhere in memory is updated, each element once, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Parameter

import thalweg.optim as optim
from tests.engine.running import Twins, class_of, close, optimizer_of
from thalweg.engine.backends.cpu.chunks import CHUNK, SPAN, EqualTensors, chunk_table
from thalweg.engine.backends.cpu.printer import BLOCK
from thalweg.engine.layout import (
    is_dense,
    memory_order,
)
from thalweg.optim.optimizer import MODES
from thalweg.rule import Rule

COUNT = st.one_of(
    st.integers(0, 200),
    st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK]),
    st.integers(0, 5 * CHUNK),
)


@settings(deadline=None)
@given(counts=st.lists(COUNT, max_size=60))
def test_chunks_cover_each_element_once(counts: list[int]) -> None:
    chunks, spans, blocks = chunk_table(counts)
    assert chunks.dtype == spans.dtype == blocks.dtype == np.int64
    assert chunks.flags.c_contiguous
    ends = [0] * len(counts)
    for tensor, start, count, block in chunks.tolist():
        assert start == ends[tensor], "chunks of a tensor follow each other"
        assert 0 < count <= CHUNK
        assert start % BLOCK == 0, "a block lies in one chunk"
        assert block == blocks[tensor] + start // BLOCK
        ends[tensor] += count
    assert ends == counts
    assert blocks.tolist() == np.cumsum([0, *(-(-c // BLOCK) for c in counts)]).tolist()


@settings(deadline=None)
@given(counts=st.lists(COUNT, max_size=200))
def test_spans_partition_the_chunks(counts: list[int]) -> None:
    chunks, spans, _ = chunk_table(counts)
    assert spans[0] == 0
    assert spans[-1] == len(chunks)
    assert (np.diff(spans) > 0).all()
    work = [int(chunks[a:b, 2].sum()) for a, b in pairwise(spans)]
    assert all(elements < 2 * SPAN for elements in work), "no thread gets far more than others"
    together = pairwise(work)
    assert all(a + b >= SPAN / 2 for a, b in together), "small tensors are taken by the dozen"


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    order=st.randoms(use_true_random=False),
    step=st.integers(1, 2),
)
def test_dense_means_every_place_once(shape: list[int], order, step: int) -> None:
    dims = list(range(len(shape)))
    order.shuffle(dims)
    base = torch.empty([shape[d] for d in dims])
    permuted = base.permute([dims.index(d) for d in range(len(shape))])
    assert tuple(permuted.shape) == tuple(shape)
    assert is_dense(permuted)
    if permuted.numel():
        sliced = torch.empty(2 * permuted.numel())[::step].as_strided(
            shape, [step * s for s in permuted.stride()]
        )
        places = {
            sum(i * s for i, s in zip(index, sliced.stride(), strict=True))
            for index in np.ndindex(*shape)
        }
        assert is_dense(sliced) == (places == set(range(sliced.numel())))


def test_memory_order_ignores_what_no_element_shows() -> None:
    x = torch.empty(3, 1, 4)
    assert memory_order(x) == memory_order(x.as_strided((3, 1, 4), (4, 99, 1))) == ((4, 3), (1, 4))
    assert memory_order(torch.empty(())) == ()
    assert memory_order(x.transpose(0, 2)) != memory_order(x)
    assert not is_dense(torch.empty(4).expand(3, 4))
    assert not is_dense(torch.empty(4, 4)[:, :2])


def layouts() -> dict[str, torch.Tensor]:
    return {
        "transposed": torch.randn(5, 7).t(),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "size one": torch.randn(6, 4).as_strided((6, 1, 4), (4, 17, 1)),
        "0-d": torch.randn(()),
        "empty": torch.randn(0, 3),
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "sliced": torch.randn(6, 8)[:, ::2],
        "reversed rows": torch.randn(9)[2:7],
    }


def adam(params, **options):
    return optim.Adam(params, lr=0.05, weight_decay=0.01, **options)


@pytest.mark.parametrize("gradients", ["alike", "contiguous", "transposed", "expanded"])
def test_parameters_of_any_layout(gradients: str) -> None:
    values = layouts()
    twins = Twins([torch.randn(2)], adam)
    for own, optimizer in twins.each():
        own.clear()
        for value in values.values():
            p = Parameter(torch.empty_strided(value.shape, value.stride()))
            p.data.copy_(value)
            own.append(p)
        optimizer.param_groups[0]["params"] = own
    for _ in range(3):
        twins.gradients()
        for own in twins.params:
            for p in own:
                if gradients == "contiguous":
                    p.grad = p.grad.contiguous()
                elif gradients == "transposed" and p.dim() > 1:
                    p.grad = p.grad.transpose(0, -1).contiguous().transpose(0, -1)
                elif gradients == "expanded":
                    p.grad = torch.full((), 0.5).expand(p.shape)
        twins.step()
    chosen = {c.backend for c in twins.optimizers[0]._engine.choices.values()}
    assert chosen == {"cpu", "eager"}  # the sliced one has no kernel
    fast, params = twins.optimizers[0], twins.params[0]
    for name, p in zip(values, params, strict=True):
        assert fast.state[p]["exp_avg"].shape == p.shape
        moved = p.detach() != values[name]
        assert moved.all(), f"{name} was skipped"
        if name != "sliced":
            assert memory_order(fast.state[p]["exp_avg"]) == memory_order(p)


def test_an_expanded_parameter_is_refused_as_by_torch() -> None:
    p = torch.ones(1).expand(4).requires_grad_()
    p.grad = torch.ones(4)
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        optim.SGD([p], lr=0.1).step()


SIZES = [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK]


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_views_at_any_offset_with_guards_around(offset: int) -> None:
    """Parameters and gradients are views into flat buffers, as buckets and flat models are."""
    gap = 5
    total = sum(SIZES) + gap * (len(SIZES) + 1) + offset
    flat, bucket = torch.randn(total), torch.randn(total + 1)
    params, places = [], []
    at = offset
    for size in SIZES:
        at += gap
        places.append(slice(at, at + size))
        p = flat[at : at + size].requires_grad_()
        p.grad = bucket[at + 1 : at + 1 + size]  # off by one element: another alignment
        params.append(p)
        at += size
    before, gradients = flat.detach().clone(), bucket.clone()
    wanted = before.clone()
    for place in places:
        g = gradients[place.start + 1 : place.stop + 1]
        wanted[place] = before[place] - 0.5 * g
    optim.SGD(params, lr=0.5, fused=True).step()
    assert torch.equal(flat.detach(), wanted)
    assert torch.equal(bucket, gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_views_of_other_formats(dtype: torch.dtype) -> None:
    flat = torch.randn(CHUNK + 20).to(dtype)
    p = flat[3 : CHUNK + 11].requires_grad_()
    p.grad = torch.ones_like(p)
    wanted = flat.clone()
    wanted[3 : CHUNK + 11] -= 0.5
    optim.SGD([p], lr=0.5, fused=True).step()
    close(flat.detach(), wanted)


def test_no_elements_at_all() -> None:
    for shapes in ([(0,)], [(0,), (2, 0)], [(0,), (3,)]):
        params, optimizer = optimizer_of(
            Rule(lambda p, g, s, h: p - g, name="descent"),
            [torch.ones(s) for s in shapes],
            [torch.ones(s) for s in shapes],
            fused=True,
        )
        optimizer.step()
        assert all((p == 0).all() for p in params)
        assert optimizer.step_count == 1


def test_a_state_of_another_layout_is_laid_out_anew() -> None:
    value = torch.randn(2, 3, 4, 4)
    buffer = torch.randn(2, 3, 4, 4)
    p = Parameter(value.to(memory_format=torch.channels_last))
    p.grad = torch.ones_like(p)
    rule = Rule(lambda p, g, s, h: p + s.x, {"x": 0.0}, name="adds")
    optimizer = class_of(rule)([p], {**MODES, "fused": True})
    optimizer.state[p] = {"x": buffer.clone()}
    optimizer.step()
    assert torch.equal(p.detach(), value + buffer)
    assert memory_order(optimizer.state[p]["x"]) == memory_order(p)


@pytest.mark.parametrize("elements", [0, 1, 104, CHUNK, CHUNK + 1, 3 * CHUNK])
@pytest.mark.parametrize("tensors", [0, 1, 2, 97, 200])
def test_the_first_of_equal_tensors_have_the_table_of_so_many(tensors: int, elements: int) -> None:
    chunks, spans = EqualTensors(200, elements).first(tensors)
    expected = chunk_table([elements] * tensors)
    assert np.array_equal(chunks, expected[0])
    assert np.array_equal(spans, expected[1])
    assert chunks.flags.c_contiguous
