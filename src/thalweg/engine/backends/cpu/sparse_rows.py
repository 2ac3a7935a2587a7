"""The rows of a sparse gradient: each row present is a tensor to the kernel."""

from collections.abc import Sequence

import numpy as np
import torch

from thalweg.engine.backends.cpu import addresses
from thalweg.engine.backends.cpu.chunks import EqualTensors
from thalweg.engine.backends.cpu.printer import ROWS
from thalweg.engine.backends.cpu.unit import G, KernelUnit
from thalweg.engine.layout import Integers, memory_order
from thalweg.engine.overlaps import Ranges


class SparseRowsUnit(KernelUnit):
    """One parameter with a sparse gradient, of which the rows that are present are updated.

    The parameter is contiguous; a row is a stretch of it, and of every state, that the gradient's
    coalesced values cover.
    """

    _table_of_rows = EqualTensors(0, 0)
    _row_cases: Integers = np.zeros(0, dtype=np.int64)

    def _make_reader(
        self, lib: addresses.Library | None, states: Sequence[Sequence[torch.Tensor]]
    ) -> addresses.Reader | None:
        return None

    def look(self, exposed: bool) -> bool:
        """Coalesce the gradient and find the rows that it holds.

        Raises:
            RuntimeError: the gradient's indices are out of range, or its values of another size
                than the rows.
        """
        self.begin(exposed)
        self._storages, self.moved = [], False
        begins = {}
        for row, (tensor,) in self._columns.items():
            if not self._is_planned(tensor, 0, self._dtypes[row]):
                return False
            begins[row] = self._place_of(tensor)
        (slot,) = self.slots
        gradient = slot.gradient
        self.absent = [0] if gradient is None else []
        if gradient is None:
            return True
        if not self._is_planned_gradient(gradient, slot.param):
            return False
        if memory_order(slot.param) != self._orders[0]:
            return False
        flat, values = rows_present(gradient, self.program.name, slot.gradient_name)
        self._gradients = [values]
        count = values[0].numel() if len(values) else 0
        table = self._table_of_rows
        if table.elements != count or table.tensors < len(flat):
            # With room, as the next batch may hold a few rows more.
            self._table_of_rows = table = EqualTensors(2 * len(flat), count)
        self.addresses = np.zeros((len(self._dtypes), len(flat)), dtype=np.int64)
        for row, begin in begins.items():
            self.addresses[row] = begin + flat * count * self._dtypes[row].itemsize
        size = values.element_size()
        self.addresses[G] = self._place_of(values) + np.arange(len(flat)) * count * size
        self._place(*table.first(len(flat)), len(flat), count * len(flat))
        self._row_cases = np.zeros(len(flat), dtype=np.int64)
        self._arguments[ROWS] = self._row_cases.ctypes.data
        return True

    def ranges(self) -> Ranges:
        """Where all rows are of the parameter and its states."""
        tensors = [tensor for (tensor,) in self._columns.values()]
        starts = np.asarray([tensor.data_ptr() for tensor in tensors], dtype=np.int64)
        sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
        stops = starts + np.asarray(sizes, dtype=np.int64)
        slots = np.full(len(tensors), self.slots[0].index)
        return Ranges(starts, stops, slots, np.ones(len(tensors), dtype=np.int64))


def rows_present(gradient: torch.Tensor, name: str, what: str) -> tuple[Integers, torch.Tensor]:
    """The rows that a sparse gradient holds, and its values there, contiguous.

    Rows are numbered over the sparse dimensions in memory order.

    Args:
        gradient: any sparse COO tensor; its indices were perhaps never checked.
        name, what: of the optimizer and the gradient, in messages.

    Raises:
        RuntimeError: an index is out of range.
    """
    sparse_shape = gradient.shape[: gradient.sparse_dim()]
    indices = gradient._indices().detach().to("cpu")
    for dimension, size in enumerate(sparse_shape if indices.numel() else ()):
        low, high = (int(x) for x in indices[dimension].aminmax())
        if low < 0 or high >= size:
            raise RuntimeError(
                f"{name}: {what} is sparse and holds index {low if low < 0 else high} of "
                f"dimension {dimension}, whose size is {size}. Build it with "
                "check_invariants=True to see where it comes from"
            )
    gradient = gradient.detach().coalesce()
    values = gradient.values().contiguous()
    flat = torch.zeros(len(values), dtype=torch.int64, device="cpu")
    for index, size in zip(gradient.indices(), sparse_shape, strict=True):
        flat = flat * size + index
    rows, where = torch.unique(flat, return_inverse=True)
    if len(rows) == len(flat):
        return flat.numpy(), values
    # It has said that it is coalesced, but holds a row twice.
    return rows.numpy(), torch.zeros_like(values[: len(rows)]).index_add_(0, where, values)
