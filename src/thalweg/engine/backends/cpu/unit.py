"""Dense parameters that are updated by one call of a CPU kernel for each stage."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from thalweg.engine.backends.base import Known, Unit
from thalweg.engine.backends.cpu import addresses, threads
from thalweg.engine.backends.cpu.chunks import ChunkTable
from thalweg.engine.backends.cpu.printer import (
    ADDRESSES,
    ARGUMENTS,
    BLOCKS,
    CHUNKS,
    CONSTANTS,
    PARTIALS,
    ROWS,
    SEEDS,
    SPAN_COUNT,
    SPANS,
    TENSORS,
    TICKET,
    WIDTH,
    compile_stage,
)
from thalweg.engine.backends.cpu.relaid import relaid_pieces
from thalweg.engine.formats import buffers_of, compute_type, seeds_of
from thalweg.engine.layout import PLAIN_TENSORS, Integers, memory_order
from thalweg.engine.reduced import reduced_constants, values_between
from thalweg.engine.scalars import Floats, ScalarStates
from thalweg.engine.slots import Slot
from thalweg.engine.torch_internals import SCALAR_TYPES
from thalweg.rule import Program
from thalweg.rule.symbols import Level

G = 1  # the gradient's place among a program's operands, which are p, g and the states

# Elements from which a kernel lets other Python threads run meanwhile.
WORTH_LETTING_GO = 2**20


class KernelUnit(Unit):
    """Dense parameters of the same dtypes, updated by one call of the kernel for each stage."""

    def __init__(self, program: Program, slots: Sequence[Slot], scalars: ScalarStates) -> None:
        super().__init__(program, slots, scalars)
        kind = slots[0].kind
        assert kind is not None
        self._kind = kind
        self.formats = {name: slots[0].formats[name] for name in program.operands}
        # A row of the address table for each buffer of an operand.
        self._buffers = buffers_of(program.operands, self.formats)
        self._columns = {
            row: [s.tensor(buffer.name(operand)) for s in slots]
            for row, (operand, buffer) in enumerate(self._buffers)
            if row != G
        }
        self._dtypes = [
            kind.dtype if row == G else self._columns[row][0].dtype
            for row in range(len(self._buffers))
        ]
        # Of an operand that shares entries among elements the memory order says nothing.
        self._whole = [buffer.elements == 1 for _, buffer in self._buffers]
        self._seeded = any(form.seeded for form in self.formats.values())
        stages = range(len(program.stages))
        self.kernels = [compile_stage(program, k, self.formats, optional="g") for k in stages]
        compute = compute_type(self.formats.values())
        self._compute = np.float64 if compute == "float64" else np.float32
        self._stage_scalars = [_scalar_columns(program, k) for k in stages]
        self._orders = [memory_order(s.param) for s in slots]
        self._numbers = [s.numbers for s in slots]

        self.addresses = np.zeros((len(self._buffers), len(slots)), dtype=np.int64)
        # An array of ctypes, whose single elements are set faster than NumPy's.
        self._arguments = (ctypes.c_int64 * (ARGUMENTS + self._seeded))()
        self._call = ctypes.addressof(self._arguments)
        self._table: npt.NDArray[Any] = np.empty((0, 0))
        self._shape = (0, 0)
        self._cases: Integers = np.empty(0, dtype=np.int64)
        self._chunks = ChunkTable(self._numbers)
        # Several threads always let others run: see threads.run.
        self._lets_go = self._chunks.numbers >= min(WORTH_LETTING_GO, 2 * threads.WORTH_A_THREAD)
        self._relaid: list[int] = []
        self._held: list[torch.Tensor | None] = []
        self._exposed = False
        self._located = False  # the addresses of the states are known
        self._place(*self._chunks.whole, len(slots), sum(self._numbers))
        self._watch()

    def _watch(self) -> None:
        """What tells where the tensors are, and tells autograd that they were written."""
        lib = addresses.library()
        writes = self.program.writes
        states = [self._columns[row] for row in list(self._columns)[1:]]
        written = [
            column
            for row, column in self._columns.items()
            if row and self._buffers[row][0] in writes
        ]
        self._parameter_versions = addresses.Versions(lib, [self._columns[0]])
        self._state_versions = addresses.Versions(lib, written)
        self._reader = self._make_reader(lib, states)

    def _make_reader(
        self, lib: addresses.Library | None, states: Sequence[Sequence[torch.Tensor]]
    ) -> addresses.Reader | None:
        if lib is None or any(s.param.is_complex() for s in self.slots):
            return None  # a complex tensor may be lazily conjugated, which only Python is asked
        if not all(self._whole) or any(dtype not in SCALAR_TYPES for dtype in self._dtypes):
            return None
        values = [s.value for s in self.slots if s.value is not None]
        return addresses.Reader(lib, self._columns[0], states, self._dtypes, self.addresses, values)

    def _place(self, chunks: Integers, spans: Integers, tensors: int, work: int) -> None:
        """Let the next call go over these chunks of so many tensors."""
        self._placed = chunks, spans  # the call has their addresses
        self.work = work
        self._most_threads = min(len(spans) - 1, work // threads.WORTH_A_THREAD)
        arguments = self._arguments
        arguments[SPANS] = spans.ctypes.data
        arguments[SPAN_COUNT] = len(spans) - 1
        arguments[CHUNKS] = chunks.ctypes.data
        arguments[ADDRESSES] = self.addresses.ctypes.data
        arguments[TENSORS] = tensors
        arguments[BLOCKS] = self._chunks.blocks[-1]

    # ---- looking ----------------------------------------------------------------------------

    def look(self, exposed: bool) -> bool:
        """Read all addresses; a gradient of another layout is noted, to be laid out anew."""
        self._exposed = exposed
        if self._lets_go:  # another thread may drop a gradient while the kernel runs
            self._held = [s.gradient for s in self.slots]
        reader = self._reader
        if reader is not None and reader.read(exposed or not self._located):
            self._located = True
            self._relaid = []
            self.absent = np.flatnonzero(reader.absent).tolist() if reader.any_absent else []
            return True
        return self._look_one_by_one()

    def _look_one_by_one(self) -> bool:
        for row, column in self._columns.items():
            for t, tensor in enumerate(column):
                if not self._is_planned(tensor, t, self._dtypes[row], self._whole[row]):
                    return False
                self.addresses[row, t] = tensor.data_ptr()
        absent, relaid = [], []
        for t, slot in enumerate(self.slots):
            gradient = slot.gradient
            self.addresses[G, t] = 0
            if gradient is None:
                absent.append(t)
                continue
            if gradient.dtype is not self._kind.dtype or type(gradient) not in PLAIN_TENSORS:
                return False
            if gradient.shape != slot.param.shape or gradient.device.type != "cpu":
                return False
            if gradient.is_sparse is not self._kind.sparse:
                return False
            if self._kind.sparse or not self._is_planned(gradient, t, self._kind.dtype):
                relaid.append(t)
            else:
                self.addresses[G, t] = gradient.data_ptr()
        self.absent, self._relaid = absent, relaid
        return True

    def _is_planned(
        self, tensor: torch.Tensor, t: int, dtype: torch.dtype, whole: bool = True
    ) -> bool:
        """Whether a tensor's numbers lie as the parameter's did, or flat if it is not whole."""
        return (
            tensor.dtype is dtype
            and tensor.layout is torch.strided
            and (memory_order(tensor) == self._orders[t] if whole else tensor.is_contiguous())
            and not (tensor.is_neg() or tensor.is_conj() or tensor.is_inference())
        )

    # ---- running ----------------------------------------------------------------------------

    def run(self, stage: int, known: Known) -> list[Floats]:
        """Run one stage: a call for all tensors, and one for each piece that is laid out anew."""
        self._set_constants(*self._stage_constants(stage, known))
        reductions = len(self.program.stages[stage].reductions)
        if reductions:
            partials = np.zeros((reductions, self._chunks.blocks[-1]))
            self._arguments[PARTIALS] = partials.ctypes.data
        if self._seeded:
            self._seeds = seeds_of(self.slots, self.constants.steps())
            self._arguments[SEEDS] = self._seeds.ctypes.data
        self._run_kernel(stage)
        if self._relaid:
            self._run_relaid(stage)
        return [self._chunks.sums(row) for row in partials] if reductions else []

    def _run_kernel(self, stage: int) -> None:
        self._arguments[TICKET] = 0
        wanted = self._most_threads
        if wanted > 1:
            wanted = min(torch.get_num_threads(), wanted)
        threads.run(self.kernels[stage], self._call, wanted, self.work >= WORTH_LETTING_GO)

    def _run_relaid(self, stage: int) -> None:
        usual, work = self._placed, self.work
        gradients = [(t, self.slots[t]) for t in self._relaid]
        for pieces, chunks, spans in relaid_pieces(gradients, self._chunks, self._kind.dtype):
            self.addresses[G, [t for t, _ in pieces]] = [address for _, address in pieces]
            count = int(chunks[:, 2].sum())
            self._place(chunks, spans, len(self.slots), count)
            self._run_kernel(stage)
        self.addresses[G, self._relaid] = 0  # in the next stage's first call they take no part
        self._place(*usual, len(self.slots), work)

    def finish(self) -> None:
        """Count the step, and tell autograd of the writes that it cannot see."""
        super().finish()
        # Without this, backward through a graph recorded before the step would silently use the
        # new values. Nobody has recorded one of states that were never handed out.
        absent = None
        if self.absent:
            absent = np.zeros(len(self.slots), dtype=np.int64)
            absent[self.absent] = 1
        self._parameter_versions.bump(absent)
        if self._exposed:
            self._state_versions.bump(absent)
        self._held = []

    def _set_constants(self, values: Any, cases: Integers) -> None:
        """Hand the constants over, in the same memory as long as there are as many."""
        shape = len(values), len(values[0]) if len(values) else 0
        if shape != self._shape or cases is not self._cases:
            self._table = np.empty(shape, dtype=self._compute)
            self._shape, self._cases = shape, cases
            self._arguments[ROWS] = cases.ctypes.data
            self._arguments[CONSTANTS] = self._table.ctypes.data
            self._arguments[WIDTH] = shape[1]
        if shape[1]:
            self._table[...] = values

    def _stage_constants(self, stage: int, known: Known) -> tuple[Any, Integers]:
        """The float64 constants of a stage, case by case, and each tensor's case."""
        values, cases = self.constants.values, self.constants.case_of
        if len(self.program.stages) == 1:
            return values, cases
        columns, reduced = self._stage_scalars[stage], reduced_constants(self.program, stage)
        by_case = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
        if not reduced:
            return by_case[:, columns], cases
        by_tensor = by_case[cases]
        counts = np.asarray(self._numbers, dtype=np.float64)
        found = values_between(self.program, stage, list(by_tensor.T), known, counts)
        table = np.empty((len(cases), len(columns) + len(reduced)))
        table[:, : len(columns)] = by_tensor[:, columns]
        for k, value in enumerate(found):
            table[:, len(columns) + k] = value
        return table, np.arange(len(cases), dtype=np.int64)


def _scalar_columns(program: Program, stage: int) -> list[int]:
    """The places among the program's constants of those that a stage takes."""
    place = {c: i for i, c in enumerate(program.constants)}
    return [place[c] for c in program.stages[stage].constants if c.level is Level.SCALAR]
