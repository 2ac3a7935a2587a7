"""Programs with sums over the units of a tensor: each unit is a tensor to the kernel."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from thalweg.engine.backends.base import Known
from thalweg.engine.backends.cpu.chunks import ChunkTable
from thalweg.engine.backends.cpu.printer import ADDRESSES
from thalweg.engine.backends.cpu.unit import G, KernelUnit
from thalweg.engine.layout import Integers
from thalweg.engine.reduced import units_in
from thalweg.engine.scalars import Floats, ScalarStates
from thalweg.engine.slots import Slot
from thalweg.rule import Program


class SlicedUnit(KernelUnit):
    """Parameters whose units ``p[i]`` lie one behind the other in memory.

    The chunks of the kernel's table are parts of units, so that partial sums and constants are
    those of units. Sums over whole tensors are put together from them.
    """

    _of_slices: Integers | None = None
    _laid_out: Sequence[torch.Tensor] = ()  # the gradients of which there are copies

    def __init__(self, program: Program, slots: Sequence[Slot], scalars: ScalarStates) -> None:
        super().__init__(program, slots, scalars)
        units = np.asarray([units_in(slot.param.shape) for slot in slots], dtype=np.int64)
        numbers = np.asarray(self.numbers, dtype=np.int64)
        self._slot_of = np.repeat(np.arange(len(slots)), units)
        self._sizes = (numbers // np.maximum(units, 1))[self._slot_of]
        firsts = np.repeat(np.cumsum(units) - units, units)
        self._offsets = (np.arange(len(self._slot_of)) - firsts) * self._sizes
        self._of_slices = np.zeros((len(self._buffers), len(self._slot_of)), dtype=np.int64)
        self._cases_of_slices = np.zeros(len(self._slot_of), dtype=np.int64)
        self._chunks = ChunkTable(self._sizes.tolist())
        self._place(*self._chunks.whole, len(self._slot_of), self._chunks.numbers)

    def _place(self, chunks: Integers, spans: Integers, tensors: int, work: int) -> None:
        super()._place(chunks, spans, tensors, work)
        if self._of_slices is not None:
            self._arguments[ADDRESSES] = self._of_slices.ctypes.data

    def look(self, exposed: bool) -> bool:
        """Read all addresses; a gradient of another layout is laid out anew as a whole."""
        if not super().look(exposed):
            return False
        assert self._of_slices is not None
        assert self._gradients is not None
        self._laid_out = super()._copied()
        for t in self._relaid:
            gradient, param = self._gradients[t], self.slots[t].param
            assert gradient is not None
            like = torch.empty_like(param, dtype=gradient.dtype).detach()
            self._gradients[t] = copy = like.copy_(gradient.detach().to_dense())
            self.addresses[G, t] = self._place_of(copy)
        self._relaid = []
        for row, dtype in enumerate(self._dtypes):
            bases = self.addresses[row, self._slot_of]
            steps = self._offsets * (dtype.itemsize // self._parts)
            self._of_slices[row] = np.where(bases == 0, 0, bases + steps)
        return True

    def let_go(self) -> None:
        super().let_go()
        self._laid_out = ()

    def run(self, stage: int, known: Known) -> list[Floats]:
        """Run one stage; the values of a sum over units are those of all units."""
        found = super().run(stage, known)
        reductions = self.program.stages[stage].reductions
        return [
            values if node.detail == "unit" else self._of_tensors(values)
            for node, values in zip(reductions, found, strict=True)
        ]

    def _of_tensors(self, values: Floats) -> Floats:
        sums = np.zeros(len(self.slots))
        np.add.at(sums, self._slot_of, values)
        return sums

    def _copied(self) -> Sequence[torch.Tensor]:
        return self._laid_out

    def _cases_of_tensors(self) -> Integers:
        self._cases_of_slices[:] = self.constants.case_of[self._slot_of]
        return self._cases_of_slices

    def _by_tensor(self, known: Known) -> tuple[Known, Mapping[str, Floats]]:
        own = {
            node: values if node.detail == "unit" or not np.ndim(values) else values[self._slot_of]
            for node, values in known.items()
        }
        counts = {scope: each[self._slot_of] for scope, each in self.sizes.items()}
        return own, counts | {"unit": self._sizes.astype(np.float64)}


def are_in_order(param: torch.Tensor) -> bool:
    """Whether the units of a dense tensor lie one behind the other."""
    if param.ndim < 2 or param.shape[0] < 2 or param.numel() == 0:
        return True
    return param.stride(0) * param.shape[0] == param.numel()
