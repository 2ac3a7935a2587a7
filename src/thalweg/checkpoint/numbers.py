"""What the numbers of a tensor are like, and how two tensors differ; copied are only pieces."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.engine.readable import memory_of, overlaps

PIECE = 1 << 15  # elements looked at together: they stay in the cache, and torch starts no threads

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SMALL = 2  # bytes of an element; of those below, torch can compute with few


@dataclass(frozen=True)
class Numbers:
    """What the elements of a tensor are like.

    Attributes:
        nan: how many are not a number.
        infinite: how many are infinite.
        rms: root mean square of the finite ones; None if there are none, or if they are no floating
            point or complex numbers.
    """

    nan: int = 0
    infinite: int = 0
    rms: float | None = None


@dataclass(frozen=True)
class Changed:
    """How two tensors of one dtype and shape differ.

    Attributes:
        different: elements that differ in any bit.
        equal: of these, those that are the same number: zeros of both signs, or NaNs.
        nonfinite_a: of the others, those that are NaN or infinite in the first tensor.
        nonfinite_b: in the second.
        largest: the largest difference of two finite elements.
        relative: the largest difference as a share of the larger of both, 0 to 2.
        overall: the norm of the difference as a share of the first tensor's; of finite elements.
            None if they are no floating point or complex numbers, or nothing differs.
    """

    different: int = 0
    equal: int = 0
    nonfinite_a: int = 0
    nonfinite_b: int = 0
    largest: float = 0.0
    relative: float = 0.0
    overall: float | None = None


def numbers(tensor: Tensor) -> Numbers:
    """Count what is not finite, and give the root mean square of the rest.

    Elements of an expanded tensor that are the same memory are one.

    >>> numbers(torch.tensor([1.0, -1.0, math.nan, math.inf]))
    Numbers(nan=1, infinite=1, rms=1.0)
    >>> numbers(torch.tensor([3, -3]))
    Numbers(nan=0, infinite=0, rms=None)
    """
    nan = infinite = count = 0
    norm = 0.0
    for part in components(tensor):
        if not (part.is_floating_point() or part.is_complex()):
            continue
        for (piece,) in pieces(memory_of(part)):
            values = _computable(piece)
            own = _norm(values)
            if not math.isfinite(own):
                nans = int(values.isnan().sum())
                infinities = int(values.isinf().sum()) - _both(values)
                nan, infinite = nan + nans, infinite + infinities
                values = values[values.isfinite()]
                largest = float(values.abs().max()) if len(values) else 0.0
                own = largest * _norm(_wide(values) / largest) if largest else 0.0
            count += len(values)
            norm = math.hypot(norm, own)
    return Numbers(nan, infinite, norm / math.sqrt(count) if count else None)


def changed(a: Tensor, b: Tensor) -> Changed:
    """How two tensors of the same dtype and shape differ.

    >>> changed(torch.tensor([4.0, 0.0, math.nan]), torch.tensor([2.0, -0.0, math.nan]))
    Changed(different=2, equal=1, nonfinite_a=0, nonfinite_b=0, largest=2.0, relative=0.5,
    overall=0.5)
    """
    different = equal = nonfinite_a = nonfinite_b = 0
    largest = relative = apart = 0.0
    parts = list(zip(*_compared(a, b), strict=True))
    for one, other in parts:
        for x, y in pieces(one, other):
            where = _bits(x) != _bits(y)
            where = where.any(-1) if where.ndim > 1 else where
            if not (found := int(where.count_nonzero())):
                continue
            different += found
            inexact = x.is_floating_point() or x.is_complex()
            x, y = _wide(x), _wide(y)
            gap = (x - y).abs()
            if not math.isfinite(float(gap.max())):
                x, y, gap = x[where], y[where], gap[where]
                finite = x.isfinite() & y.isfinite()
                alike = (x == y) | (x.isnan() & y.isnan())
                nonfinite_a += int((~x.isfinite() & ~alike).count_nonzero())
                nonfinite_b += int((~y.isfinite() & ~alike).count_nonzero())
                equal += int((~finite & alike).count_nonzero())
                x, y, gap, where = x[finite], y[finite], gap[finite], finite[finite]
                if not len(gap):
                    continue
            if inexact:
                equal += int((where & (gap == 0)).count_nonzero())
            else:  # integers above 2^53 are rounded here; they differ by one at least
                gap = torch.where(where, gap.clamp(min=1), gap)
            largest = max(largest, float(gap.max()))
            apart = math.hypot(apart, _norm(gap))
            share = gap.div_(torch.maximum(x.abs(), y.abs()))
            relative = max(relative, float(share.nan_to_num_(0.0, 2.0).max()))  # 0 / 0; above 1e308
    whole = sum(one.numel() for one, _ in parts) if overlaps_both(a, b) else a.numel()
    overall = _overall(apart, a, whole) if different else None
    return Changed(different, equal, nonfinite_a, nonfinite_b, largest, relative, overall)


def _compared(a: Tensor, b: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    if overlaps_both(a, b) and a.stride() == b.stride():
        return [memory_of(a.detach())], [memory_of(b.detach())]
    return components(a), components(b)


def overlaps_both(a: Tensor, b: Tensor) -> bool:
    """Whether both have more elements than memory, as those of ``expand`` have."""
    return all(
        each.layout is torch.strided and not each.is_meta and overlaps(each) for each in (a, b)
    )


def _overall(norm: float, a: Tensor, elements: int) -> float | None:
    first = numbers(a)
    if first.rms is None:
        return None
    whole = first.rms * math.sqrt(elements - first.nan - first.infinite)
    return norm / whole if whole else math.inf if norm else 0.0


def components(tensor: Tensor) -> list[Tensor]:
    """The dense tensors that hold a tensor's numbers: itself, or those of its layout."""
    if tensor.is_meta:
        return []
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.is_quantized:
        return [tensor.int_repr(), tensor.dequantize()]
    return [tensor.detach()]


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape in flat pieces; only one that is not contiguous is copied.

    >>> [len(piece) for (piece,) in pieces(torch.zeros(3, PIECE // 2))]
    [32768, 16384]
    """
    first = tensors[0]
    if first.numel() <= PIECE:
        if first.numel():
            yield tuple(each.reshape(-1) for each in tensors)
        return
    rows = max(1, PIECE // (first.numel() // len(first)))
    for start in range(0, len(first), rows):
        cut = tuple(each[start : start + rows] for each in tensors)
        yield from pieces(*(each[0] if rows == 1 else each for each in cut))


def _computable(values: Tensor) -> Tensor:
    """In a dtype that torch computes with."""
    return values.float() if not values.is_complex() and values.itemsize < _SMALL else values


def _norm(values: Tensor) -> float:
    wide = torch.complex128 if values.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(values, dtype=wide))


def _both(values: Tensor) -> int:
    """Complex numbers of which one part is NaN and the other infinite: they count as NaN."""
    return int((values.isnan() & values.isinf()).sum()) if values.is_complex() else 0


def _bits(values: Tensor) -> Tensor:
    values = values.resolve_conj().resolve_neg()
    real = torch.view_as_real(values) if values.is_complex() else values
    return real.contiguous().view(_BITS[real.itemsize])


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.complex128) if values.is_complex() else _computable(values).double()
