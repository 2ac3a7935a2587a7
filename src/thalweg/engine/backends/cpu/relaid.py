"""Gradients whose numbers lie otherwise than the parameter's: laid out anew, a piece at a time.

A transposed or expanded gradient, a sparse one that counts as dense, one that is lazily negated or
conjugated: the kernel reads a copy in the parameter's order. A copy of all of it would be as large
as the parameter, and with many such gradients the peak of memory; so pieces of them go through one
buffer of a few megabytes, each followed by a call of the kernel.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from thalweg.engine.backends.cpu.chunks import CHUNK, ChunkTable
from thalweg.engine.formats import REAL_PARTS
from thalweg.engine.layout import Integers, in_memory_order

PIECE = 64 * CHUNK  # numbers that are laid out at a time: a megabyte's, in float32 four

Batch = tuple[list[tuple[int, int]], Integers, Integers]


def relaid_pieces(
    gradients: Sequence[tuple[int, torch.Tensor, torch.Tensor | None]],
    chunks: ChunkTable,
    dtype: torch.dtype,
) -> Iterator[Batch]:
    """Lay gradients out anew, piece by piece.

    Args:
        gradients: which tensor each is of in the chunk table, the parameter, the gradient.
        chunks: the table.
        dtype: of the gradients.

    Yields:
        For each tensor of a batch the address that its gradient would begin at, if all of it lay
        there where a piece of it does; chunks and spans to go over. Valid until the next.
    """
    parts = 2 if dtype in REAL_PARTS else 1
    buffer = torch.empty(PIECE // parts, dtype=dtype, device="cpu")
    begin, size = buffer.data_ptr(), buffer.element_size() // parts
    bases: list[tuple[int, int]] = []
    batch: list[Integers] = []
    filled = 0
    for t, param, gradient in gradients:
        if gradient is None:
            continue
        if gradient.is_sparse:
            gradient = gradient.to_dense()
        ordered = in_memory_order(gradient.detach(), param)
        rows = chunks.whole[0][chunks.of(t)]
        first = 0
        while first < len(rows):
            # As many chunks as there is room for.
            room = np.searchsorted(np.cumsum(rows[first:, 2]), PIECE - filled, side="right")
            if room == 0 or (bases and bases[-1][0] == t):
                yield _batch(bases, batch)
                bases, batch, filled = [], [], 0
                continue
            taken = rows[first : first + int(room)]
            start, count = int(taken[0, 1]), int(taken[:, 2].sum())
            target = buffer[filled // parts : (filled + count) // parts]
            copy_range(ordered, start // parts, (start + count) // parts, target)
            bases.append((t, begin + size * (filled - start)))
            batch.append(taken)
            # Chunks begin at even numbers, so that complex ones stay whole.
            filled += count
            first += int(room)
    if batch:
        yield _batch(bases, batch)


def _batch(bases: list[tuple[int, int]], batch: list[Integers]) -> Batch:
    chunks = np.ascontiguousarray(np.concatenate(batch))
    return bases, chunks, np.arange(len(chunks) + 1, dtype=np.int64)


def copy_range(source: torch.Tensor, start: int, stop: int, target: torch.Tensor) -> None:
    """Copy the elements start to stop of a tensor, counted in row-major order.

    Args:
        source: the tensor, of any strides.
        start, stop: which of its elements.
        target: where they go, one-dimensional.
    """
    if stop <= start:
        return
    if stop - start == source.numel():
        target.view(source.shape).copy_(source)
        return
    if source.dim() == 1:
        target.copy_(source[start:stop])
        return
    row = source[0].numel()
    first, last = -(-start // row), stop // row
    if first > last:  # within one row
        copy_range(source[last], start - last * row, stop - last * row, target)
        return
    head, tail = first * row - start, stop - last * row
    if head:
        copy_range(source[first - 1], row - head, row, target[:head])
    if last > first:
        whole = source[first:last]
        target[head : head + whole.numel()].view(whole.shape).copy_(whole)
    if tail:
        copy_range(source[last], 0, tail, target[len(target) - tail :])
