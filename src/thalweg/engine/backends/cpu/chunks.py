"""How the work on many tensors is cut into chunks, and chunks into spans."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from thalweg.engine.backends.cpu.printer import BLOCK
from thalweg.engine.layout import Integers

CHUNK = 4 * BLOCK  # elements of one tensor that one thread works through at a time
SPAN = CHUNK  # elements that a thread takes at a time, of one tensor or of many small ones


def chunk_table(counts: Sequence[int]) -> tuple[Integers, Integers, Integers]:
    """Cut tensors of these element counts into chunks, and chunks into spans.

    Returns:
        chunks ``[n, 4]``: tensor, first element, elements, number of its first block;
        spans ``[m + 1]``: where each span of chunks begins, and the end;
        blocks ``[tensors + 1]``: where each tensor's partial sums begin, and the end.
    """
    sizes = np.asarray(counts, dtype=np.int64)
    pieces = -(-sizes // CHUNK)
    tensor = np.repeat(np.arange(len(sizes)), pieces)
    first_piece = np.cumsum(pieces) - pieces
    start = (np.arange(len(tensor)) - first_piece[tensor]) * CHUNK
    blocks = np.concatenate([[0], np.cumsum(-(-sizes // BLOCK))]).astype(np.int64)
    count = np.minimum(sizes[tensor] - start, CHUNK)
    chunks = np.stack([tensor, start, count, blocks[tensor] + start // BLOCK], axis=1)
    # A span ends with the chunk that fills it: whole chunks alone, small tensors by the dozen.
    filled = np.cumsum(count) // SPAN
    ends = np.flatnonzero(np.diff(filled)) + 1
    spans = np.concatenate([[0], ends, [len(chunks)]])
    return np.ascontiguousarray(chunks, dtype=np.int64), np.unique(spans).astype(np.int64), blocks


class ChunkTable:
    """The chunks of some tensors, and where each tensor's stand.

    Args:
        counts: how many elements each tensor has.

    Attributes:
        whole: chunks and spans of all tensors; see :func:`chunk_table`.
        blocks: where each tensor's partial sums begin, and the end.
        numbers: how many elements all have.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        chunks, spans, self.blocks = chunk_table(counts)
        self.whole = chunks, spans
        self.numbers = sum(counts)

    def of(self, tensor: int) -> slice:
        """Where a tensor's chunks stand in the table."""
        column = self.whole[0][:, 0]
        return slice(*np.searchsorted(column, [tensor, tensor + 1]).tolist())

    def sums(self, partials: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The partial sums of each tensor added up, in the order of its blocks."""
        starts = self.blocks[:-1]
        result = np.zeros(len(starts))
        some = starts < self.blocks[1:]
        if some.any():
            result[some] = np.add.reduceat(partials, starts[some])
        return result


class EqualTensors:
    """The chunk table of tensors of one size, made for many at once; that of fewer begins it.

    Args:
        tensors: at most so many are asked for.
        elements: of each.
    """

    def __init__(self, tensors: int, elements: int) -> None:
        self.tensors, self.elements = tensors, elements
        self._chunks, self._spans, _ = chunk_table([elements] * tensors)
        self._pieces = -(-elements // CHUNK)

    def first(self, tensors: int) -> tuple[Integers, Integers]:
        """Chunks and spans of so many; see :func:`chunk_table`."""
        chunks = self._chunks[: tensors * self._pieces]
        return chunks, np.append(self._spans[self._spans < len(chunks)], len(chunks))
