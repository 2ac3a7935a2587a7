"""A pass: reads, writes and sums over tensors of any number of elements and format."""

import ctypes
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from thalweg.engine.passes.elementwise import ElementPass, _Layout
from thalweg.rule.formula import EACH, FACTOR, SUM, Formula

SIZES = [0, 1, 2, 63, 4095, 4096, 4097, 16384, 16385, 100_003]


def product(x: Any, y: Any, h: Any) -> Any:
    return x * y * h.factor


def run(
    x: torch.Tensor, y: torch.Tensor, wanted: tuple[str, ...] = ("x",)
) -> tuple[float, list[torch.Tensor]]:
    options = {"factor": 0.5, FACTOR: 4.0}
    program = Formula(product).program(SUM, options, ["x", "y"], wanted)
    operands = {"x": x, "y": y}
    written = [torch.empty_like(operands[name]) for name in wanted]
    operands |= {f"_d_{name}": tensor for name, tensor in zip(wanted, written, strict=True)}
    tensors = [operands[name] for name in program.operands]
    constants = program.scalars(options)
    assert constants is not None
    kernel = ElementPass(program, [t.dtype for t in tensors], constants)
    (total,) = kernel.run(x.numel(), *[t.data_ptr() for t in tensors])
    return total, written


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sum_and_derivatives(size: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(size)
    x, y = (torch.randn(size, generator=generator, dtype=dtype) for _ in range(2))
    total, (dx, dy) = run(x, y, ("x", "y"))
    exact = math.fsum((x.double() * y.double() * 0.5).tolist())
    tolerance = 1e-6 if dtype is torch.float32 else 1e-13
    assert total == pytest.approx(exact, rel=tolerance, abs=tolerance * max(1, size) ** 0.5)
    assert torch.equal(dx, y * 0.5 * 4.0)
    assert torch.equal(dy, x * 0.5 * 4.0)


@pytest.mark.parametrize("pair", [(torch.bfloat16, torch.float32), (torch.float16, torch.bfloat16)])
def test_operands_of_different_formats(pair: tuple[torch.dtype, torch.dtype]) -> None:
    x, y = (torch.linspace(-2, 2, 1000).to(dtype) for dtype in pair)
    total, (dx,) = run(x, y)
    assert total == pytest.approx((x.double() * y.double() * 0.5).sum().item(), rel=1e-5)
    assert dx.dtype is pair[0]
    assert torch.equal(dx, (y.float() * 2).to(pair[0]))


def test_the_sum_does_not_depend_on_threads() -> None:
    x, y = torch.randn(1_000_003), torch.randn(1_000_003)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            total, (dx,) = run(x, y)
            found.append((total, dx))
    finally:
        torch.set_num_threads(before)
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("size", [100, 200_003])
def test_one_pass_in_many_threads_at_once(size: int) -> None:
    """Each call writes where it was told to, and returns its own sum."""
    options = {"factor": 0.5, FACTOR: 4.0}
    program = Formula(product).program(SUM, options, ["x", "y"], ["x"])
    constants = program.scalars(options)
    assert constants is not None
    kernel = ElementPass(program, [torch.float32] * 3, constants)
    assert program.operands == ("x", "y", "_d_x")

    def work(value: int) -> bool:
        x, y, dx = torch.full((size,), float(value)), torch.ones(size), torch.empty(size)
        addresses = [t.data_ptr() for t in (x, y, dx)]
        for _ in range(20):
            y.fill_(value + 1.0)
            (total,) = kernel.run(size, *addresses)
            if total != 0.5 * value * (value + 1) * size or not (dx == 2 * y).all():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(16)))


@pytest.mark.parametrize("count", [1, 16384, 16385, 64 * 16384 + 1, 300 * 16384 + 5])
def test_spans_cover_every_chunk_once(count: int) -> None:
    layout = _Layout(count)
    spans = (ctypes.c_int64 * (layout.span_count + 1)).from_address(layout.spans)
    chunks = -(-count // 16384)
    assert spans[0] == 0
    assert spans[layout.span_count] == chunks
    lengths = [b - a for a, b in itertools.pairwise(spans)]
    assert min(lengths) >= 1
    assert layout.span_count >= min(chunks // 2, 64)


def test_values_alone() -> None:
    program = Formula(product).program(EACH, {"factor": 2.0}, ["x", "y"])
    x, y, value = torch.arange(5.0), torch.ones(5), torch.empty(5)
    tensors = {"x": x, "y": y, "_value": value}
    constants = program.scalars({"factor": 2.0})
    assert constants is not None
    kernel = ElementPass(program, [torch.float32] * len(program.operands), constants)
    addresses = [tensors[name].data_ptr() for name in program.operands]
    assert kernel.run(5, *addresses) == []
    assert value.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
