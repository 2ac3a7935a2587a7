"""What is counted in tensors, beside NumPy on the whole of them."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from thalweg.checkpoint import numbers as module
from thalweg.checkpoint.numbers import Changed, Numbers, changed, numbers, pieces

FLOATS = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2,
)  # fmt: skip
INTEGERS = (torch.int64, torch.int32, torch.uint8, torch.bool, torch.uint16, torch.uint64)
LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.t().contiguous().t(),
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "flat": lambda x: x.reshape(-1),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 7)


def drawn(dtype: torch.dtype, seed: int = 0, shape: tuple[int, ...] = (5, 11)) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if dtype in INTEGERS:
        return (values.abs() * 3).to(torch.int32).to(dtype)
    return values.to(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_and_infinity_are_counted_and_the_rest_measured(
    dtype: torch.dtype, layout: str
) -> None:
    x = drawn(dtype)
    values = x.double()
    bad = {3: math.nan, 20: math.nan, 54: math.nan}
    if dtype is not torch.float8_e4m3fn:  # which has no infinity
        bad |= {0: math.inf, 30: -math.inf}
    values.view(-1)[list(bad)] = torch.tensor(list(bad.values()), dtype=torch.float64)
    found = numbers(LAYOUTS[layout](values.float().to(dtype)))
    kept = values[values.isfinite()].numpy()
    assert (found.nan, found.infinite) == (3, len(bad) - 3)
    assert found.rms == pytest.approx(np.sqrt((kept**2).mean()), rel=1e-6)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_are_finite(dtype: torch.dtype) -> None:
    assert numbers(drawn(dtype)) == Numbers()


def test_neither_large_nor_small_numbers_are_lost() -> None:
    for factor in (1e200, 1e-200):
        x = torch.tensor([3.0, 4.0] * 9, dtype=torch.float64) * factor
        assert numbers(x).rms == pytest.approx(math.sqrt(12.5) * factor)
    assert numbers(torch.full((9,), math.nan)) == Numbers(nan=9)
    assert numbers(torch.zeros(9)).rms == 0
    assert numbers(torch.zeros(0, 3)) == Numbers()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_complex_numbers_and_other_layouts() -> None:
    odd = [complex(3, 4), complex(math.nan, 1), complex(1, math.inf), complex(math.nan, math.inf)]
    assert numbers(torch.tensor(odd)) == Numbers(nan=2, infinite=1, rms=pytest.approx(5.0))
    x = torch.zeros(4, 4)
    x[1, 2], x[3, 0] = math.nan, 2.0
    for other in (x.to_sparse(), x.to_sparse_csr(), x.to_sparse_csc()):
        assert numbers(other) == Numbers(nan=1, rms=2.0)
    assert numbers(torch.zeros(3, device="meta")) == Numbers()


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (100,), (3, 50), (50, 3), (2, 1, 20), (1, 99)])
def test_pieces_are_small_views_that_make_up_the_whole(shape: tuple[int, ...]) -> None:
    x = torch.arange(math.prod(shape)).reshape(shape)
    found = [piece for (piece,) in pieces(x)]
    assert all(0 < len(piece) <= 7 for piece in found)
    assert torch.equal(torch.cat([*found, x.new_zeros(0)]), x.reshape(-1))
    assert {piece.untyped_storage().data_ptr() for piece in found} <= {
        x.untyped_storage().data_ptr()
    }


def expected(a: Tensor, b: Tensor) -> Changed:
    """The same, one element after the other."""
    width = {8: "d", 4: "f"}[a.itemsize]
    found: dict[str, Any] = dict(different=0, equal=0, nonfinite_a=0, nonfinite_b=0)
    gaps, shares = [0.0], [0.0]
    squares = 0.0
    for x, y in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True):
        if struct.pack(width, x) == struct.pack(width, y):
            continue
        found["different"] += 1
        if x == y:
            found["equal"] += 1
        found["nonfinite_a"] += not math.isfinite(x)
        found["nonfinite_b"] += not math.isfinite(y)
        if math.isfinite(x) and math.isfinite(y):
            gaps.append(abs(x - y))
            shares.append(abs(x - y) / (max(abs(x), abs(y)) or 1))
            squares += (x - y) ** 2
    norm = math.sqrt(sum(x * x for x in a.reshape(-1).tolist() if math.isfinite(x)))
    return Changed(
        **found,
        largest=pytest.approx(max(gaps)),
        relative=pytest.approx(max(shares)),
        overall=pytest.approx(math.sqrt(squares) / norm) if found["different"] else None,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_changes_are_those_of_a_look_at_each_element(
    dtype: torch.dtype, layout: str, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -2.0], dtype=dtype)
    a = drawn(dtype, seed)
    where = torch.rand(a.shape, generator=draw) < 0.4
    a[where] = special[torch.randint(7, (int(where.sum()),), generator=draw)]
    b = a.clone()
    where = torch.rand(a.shape, generator=draw) < 0.4
    b[where] = special[torch.randint(7, (int(where.sum()),), generator=draw)]
    assert changed(LAYOUTS[layout](a), LAYOUTS["contiguous"](b).reshape(
        LAYOUTS[layout](a).shape
    )) == expected(a, b)  # fmt: skip


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_one_element_that_changed_is_found(dtype: torch.dtype) -> None:
    a = drawn(dtype)
    for i in range(a.numel()):
        b = a.clone()
        bits = b.view(torch.uint8).view(-1)
        bits[i * a.itemsize] = bits[i * a.itemsize] ^ 1
        if dtype is torch.bool and bool((b.view(torch.uint8) > 1).any()):
            continue
        found = changed(a, b)
        assert found.different == 1
        assert found.largest > 0 or found.equal or found.nonfinite_b
    assert changed(a, a.clone()) == Changed()


def test_nans_that_are_written_otherwise_differ_in_bits_and_not_in_number() -> None:
    a = torch.tensor([0x7FC00000, 0x7FC00000], dtype=torch.int32).view(torch.float32)
    b = torch.tensor([0x7FC00001, 0x7FC00000], dtype=torch.int32).view(torch.float32)
    assert changed(a, b) == Changed(different=1, equal=1, overall=None)
    found = changed(torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]))
    assert found == Changed(different=1, equal=1, overall=0.0)


def test_integers_that_no_float_tells_apart_differ_by_one() -> None:
    found = changed(torch.tensor([2**60]), torch.tensor([2**60 + 1]))
    assert (found.different, found.largest, found.equal) == (1, 1.0, 0)


def test_complex_numbers_count_once() -> None:
    found = changed(torch.tensor([1j, 2 + 2j]), torch.tensor([-1j, 2 + 2j]))
    assert (found.different, found.largest, found.relative) == (1, 2.0, 2.0)


def test_a_difference_too_large_for_a_float_is_infinite() -> None:
    x = torch.tensor([1e308, 1.0], dtype=torch.float64)
    found = changed(x, -x)
    assert (found.largest, found.relative) == (math.inf, 2.0)
    assert (found.nonfinite_a, found.nonfinite_b) == (0, 0)
