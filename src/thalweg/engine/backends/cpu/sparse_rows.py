"""The rows of a sparse gradient: each row present is a tensor to the kernel."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from thalweg.engine.backends.base import Known
from thalweg.engine.backends.cpu import addresses
from thalweg.engine.backends.cpu.chunks import EqualTensors
from thalweg.engine.backends.cpu.unit import G, KernelUnit
from thalweg.engine.layout import PLAIN_TENSORS, Integers, memory_order
from thalweg.engine.scalars import Floats


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
        """Coalesce the gradient and find the rows that it holds."""
        self._exposed = exposed
        (slot,) = self.slots
        for row, (tensor,) in self._columns.items():
            if not self._is_planned(tensor, 0, self._dtypes[row]):
                return False
        gradient = slot.gradient
        self.absent = [0] if gradient is None else []
        if gradient is None:
            return True
        if gradient.dtype is not self._kind.dtype or not gradient.is_sparse:
            return False
        if gradient.shape != slot.param.shape or type(gradient) not in PLAIN_TENSORS:
            return False
        if memory_order(slot.param) != self._orders[0]:
            return False
        gradient = gradient.coalesce()
        values = gradient.values().contiguous()
        self._held = [values]
        count = values[0].numel() if len(values) else 0
        flat = _flat_rows(gradient)
        table = self._table_of_rows
        if table.elements != count or table.tensors < len(flat):
            # With room, as the next batch may hold a few rows more.
            self._table_of_rows = table = EqualTensors(2 * len(flat), count)
        self.addresses = np.zeros((len(self._dtypes), len(flat)), dtype=np.int64)
        for row, (tensor,) in self._columns.items():
            self.addresses[row] = tensor.data_ptr() + flat * count * tensor.element_size()
        begin, size = values.data_ptr(), values.element_size()
        self.addresses[G] = begin + np.arange(len(flat)) * count * size
        self._place(*table.first(len(flat)), len(flat), count * len(flat))
        self._row_cases = np.zeros(len(flat), dtype=np.int64)
        return True

    def _stage_constants(self, stage: int, known: Known) -> tuple[Floats, Integers]:
        return np.asarray(self.constants.values, dtype=np.float64), self._row_cases


def _flat_rows(gradient: torch.Tensor) -> npt.NDArray[np.int64]:
    """The number of each row present, counted over the sparse dimensions in memory order."""
    sparse_shape = gradient.shape[: gradient.sparse_dim()]
    flat = torch.zeros(gradient.values().shape[0], dtype=torch.int64, device="cpu")
    for index, size in zip(gradient.indices(), sparse_shape, strict=True):
        flat = flat * size + index
    return flat.numpy()
