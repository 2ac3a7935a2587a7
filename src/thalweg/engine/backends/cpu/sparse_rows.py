"""Rows of a sparse gradient: each row present is a tensor to the kernel."""

import numpy as np
import numpy.typing as npt
import torch

from thalweg.engine.backends.cpu import addresses
from thalweg.engine.backends.cpu.chunks import EqualTensors
from thalweg.engine.backends.cpu.unit import G, KernelUnit
from thalweg.engine.layout import Integers, memory_order
from thalweg.engine.scalars import Floats


class SparseUnit(KernelUnit):
    """One parameter with a sparse gradient: the rows present are the kernel's tensors.

    The parameter is contiguous; a row is a stretch of it, and of every state, that the gradient's
    coalesced values cover.
    """

    _table_of_rows = EqualTensors(0, 0)

    def _make_reader(self, lib: addresses.Library | None) -> addresses.Reader | None:
        return None

    def holds(self) -> bool:
        (slot,) = self.slots
        gradient = slot.gradient
        if gradient is None or gradient.dtype is not self._gradient_dtype:
            return False
        if not gradient.is_sparse or memory_order(slot.param) != self._orders[0]:
            return False
        gradient = gradient.coalesce()
        values = gradient.values().contiguous()
        self._copies = [values]
        count = values[0].numel() if len(values) else 0
        flat = _flat_rows(gradient)
        rows = self._table_of_rows
        if rows.elements != count or rows.tensors < len(flat):
            # With room, as the next batch may hold a few rows more.
            self._table_of_rows = rows = EqualTensors(2 * len(flat), count)
        self._place(*rows.first(len(flat)), len(flat), count * len(flat))
        sizes = [count * self.formats[name].itemsize for name in self.program.operands]
        for row in self._columns:
            self.addresses[row] += flat * sizes[row]  # from where the whole tensor begins
        self.addresses[G] = values.data_ptr() + np.arange(len(flat)) * sizes[G]
        self._one_row = np.zeros(len(flat), dtype=np.int64)
        return True

    def _constants(
        self, stage: int, sums: list[Floats], totals: list[float]
    ) -> tuple[Floats, Integers]:
        return self.scalars.values, self._one_row


def _flat_rows(gradient: torch.Tensor) -> npt.NDArray[np.int64]:
    """The number of each row present, counted over the sparse dimensions in memory order."""
    sparse_shape = gradient.shape[: gradient.sparse_dim()]
    flat = torch.zeros(gradient.values().shape[0], dtype=torch.int64)
    for index, size in zip(gradient.indices(), sparse_shape, strict=True):
        flat = flat * size + index
    return flat.numpy()
