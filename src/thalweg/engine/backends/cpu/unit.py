"""Units of work: parameters that one program updates together, by a kernel or eagerly.

All units of a step go through the same calls: ``prepare`` (scalars, nothing changed yet), ``run``
for each stage, ``finish`` (counts and versions).
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from thalweg.engine.backends.cpu import addresses, threads
from thalweg.engine.backends.cpu.chunks import chunk_table
from thalweg.engine.backends.cpu.printer import (
    ADDRESSES,
    ARGUMENTS,
    BLOCKS,
    CHUNKS,
    CONSTANTS,
    PARTIALS,
    ROWS,
    SPAN_COUNT,
    SPANS,
    TENSORS,
    TICKET,
    WIDTH,
    compile_stage,
)
from thalweg.engine.backends.cpu.threads import WORTH_A_THREAD
from thalweg.engine.formats import REAL_PARTS, compute_type, format_of
from thalweg.engine.layout import PLAIN_TENSORS, Integers, memory_order
from thalweg.engine.scalars import Floats, Scalars, ScalarStates
from thalweg.engine.slots import Slot
from thalweg.rule import Program
from thalweg.rule.program import compile_function
from thalweg.rule.symbols import Level

G = 1  # the gradient's row in the address table, whose rows are p, g and the states

_ARRAY_NAMES: dict[str, Any] = {
    **{name: getattr(np, name) for name in ("divide", "power", "sqrt", "exp", "log")},
    **{name: getattr(np, name) for name in ("maximum", "minimum", "where", "abs")},
    **{name: getattr(np, name) for name in ("log1p", "expm1", "tanh")},
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "atan": np.arctan,
    "sign": lambda x: np.subtract(x > 0, x < 0, dtype=float),  # 0 for NaN
    "invert": np.logical_not,
    "nan": np.nan,
    "inf": np.inf,
}


class KernelUnit:
    """Dense parameters of the same formats, updated by one call of the CPU kernel a stage."""

    def __init__(
        self,
        program: Program,
        slots: Sequence[Slot],
        states: ScalarStates,
        gradient: torch.dtype,
        sparse: bool,
    ) -> None:
        self.program = program
        self._sparse = sparse  # sparse gradients were agreed to
        self.slots = slots
        self.scalars = Scalars(program, slots, states)
        first = slots[0]
        assert first.state is not None
        dtypes = {"p": first.param.dtype, "g": gradient}
        dtypes |= {name: first.state[name].dtype for name in program.states}
        formats = {name: format_of(dtype) for name, dtype in dtypes.items()}
        self.formats = {name: f for name, f in formats.items() if f is not None}
        assert len(self.formats) == len(formats)
        self.kernels = [compile_stage(program, k, self.formats) for k in range(len(program.stages))]
        compute = compute_type(tuple(self.formats.values()))
        self._compute = np.float64 if compute == "float64" else np.float32
        # The tensors of each row of the address table whose addresses rarely change: all but g's.
        self._columns = {
            row: [s.param if name == "p" else _state(s, name) for s in slots]
            for row, name in enumerate(program.operands)
            if row != G
        }
        written = [
            tensor
            for row, column in self._columns.items()
            for tensor in column
            if program.operands[row] in program.writes
        ]
        place = {c: i for i, c in enumerate(program.constants)}
        self._scalar_columns = [
            [place[c] for c in stage.constants if c.level is Level.SCALAR]
            for stage in program.stages
        ]
        self._gradient_dtype = gradient
        self._orders = [memory_order(s.param) for s in slots]
        self._arguments = np.zeros(ARGUMENTS, dtype=np.int64)
        self._call = self._arguments.ctypes.data
        self._table: npt.NDArray[Any] = np.empty((0, 0))
        self._rows: Integers = np.empty(0, dtype=np.int64)
        self._lay_out([s.param.numel() * _parts(s.param) for s in slots])
        self._copies: list[torch.Tensor] = []
        lib = addresses.library()
        self._versions = addresses.Versions(lib, written)
        self._reader = self._make_reader(lib)

    def _make_reader(self, lib: addresses.Library | None) -> addresses.Reader | None:
        if lib is None or any(s.param.is_complex() for s in self.slots):
            return None  # a complex gradient may be lazily conjugated, which only Python is asked
        params, *states = self._columns.values()
        flat = [tensor for column in states for tensor in column]
        values = [s.value for s in self.slots if s.value is not None]
        return addresses.Reader(lib, params, flat, self.addresses, self._gradient_dtype, values)

    def _lay_out(self, counts: Sequence[int]) -> None:
        """The static half of a call: chunks, spans, and the space for addresses."""
        self._counts = np.asarray(counts, dtype=np.int64)
        chunks, spans, self._blocks = chunk_table(counts)
        self._arguments[BLOCKS] = self._blocks[-1]
        self._place(chunks, spans, len(counts), int(self._counts.sum()))

    def _place(self, chunks: Integers, spans: Integers, tensors: int, elements: int) -> None:
        """Point the call to a chunk table, and to space for as many tensors' addresses."""
        self._chunks, self._spans, self.work = chunks, spans, elements
        self.addresses = np.zeros((len(self.program.operands), tensors), dtype=np.int64)
        for row, column in self._columns.items():
            self.addresses[row, :] = [t.data_ptr() for t in column]
        arguments = self._arguments
        arguments[SPANS] = self._spans.ctypes.data
        arguments[SPAN_COUNT] = len(self._spans) - 1
        arguments[CHUNKS] = self._chunks.ctypes.data
        arguments[ADDRESSES] = self.addresses.ctypes.data
        arguments[TENSORS] = tensors

    def holds(self) -> bool:
        """Whether parameters, states and gradients are what and where the unit was built for.

        Reads the gradients' addresses on the way; one of another layout is copied into the
        parameter's.
        """
        self._copies = []
        if self._reader is not None and self._reader.read():
            return True
        for row, column in self._columns.items():
            now = np.fromiter(map(torch.Tensor.data_ptr, column), np.int64, len(column))
            if not np.array_equal(now, self.addresses[row]):
                return False
        gradients = self.addresses[G]
        for t, (slot, order) in enumerate(zip(self.slots, self._orders, strict=True)):
            p, g = slot.param, slot.gradient
            if g is None or g.dtype is not self._gradient_dtype or type(g) not in PLAIN_TENSORS:
                return False
            if p.is_neg() or p.is_conj():
                return False
            if memory_order(p) != order or g.shape != p.shape or g.device.type != "cpu":
                return False
            if g.layout is not torch.strided:
                if not (self._sparse and g.is_sparse):
                    return False
                g = g.to_dense()
            if memory_order(g) != order or g.is_neg() or g.is_conj():
                g = torch.empty_like(p, dtype=g.dtype).copy_(g)
            if g is not slot.gradient:
                self._copies.append(g)
            gradients[t] = g.data_ptr()
        return True

    def prepare(self) -> bool:
        return self.scalars.prepare()

    def run(self, stage: int, sums: list[Floats], totals: list[float]) -> list[Floats]:
        """Run one stage; given all reductions of earlier stages, return this stage's.

        Args:
            stage: its number.
            sums: one array over tensors for each earlier reduction.
            totals: elements in all units.
        """
        self._set_constants(*self._constants(stage, sums, totals))
        reductions = len(self.program.stages[stage].reductions)
        if reductions:
            partials = np.empty((reductions, self._blocks[-1]))
            self._arguments[PARTIALS] = partials.ctypes.data
        self._arguments[TICKET] = 0
        wanted = min(torch.get_num_threads(), len(self._spans) - 1, self.work // WORTH_A_THREAD)
        # While other Python threads run, nothing may free a gradient under the kernel.
        alive = [s.gradient for s in self.slots] if wanted > 1 else None
        threads.run(self.kernels[stage], self._call, wanted)
        del alive
        return [self._sum(row) for row in partials] if reductions else []

    def finish(self) -> None:
        self.scalars.finish()
        # Autograd cannot see a kernel's writes: without this, backward through a graph recorded
        # before the step would silently use the new values.
        self._versions.bump()
        self._copies = []

    def _set_constants(self, values: Floats, rows: Integers) -> None:
        """Hand the constants over, in the same memory as long as there are as many."""
        if values.shape != self._table.shape or rows is not self._rows:
            self._table = np.empty(values.shape, dtype=self._compute)
            self._rows = rows
            self._arguments[ROWS] = rows.ctypes.data
            self._arguments[CONSTANTS] = self._table.ctypes.data
            self._arguments[WIDTH] = values.shape[1]
        self._table[...] = values

    def _constants(
        self, stage: int, sums: list[Floats], totals: list[float]
    ) -> tuple[Floats, Integers]:
        """The float64 constants of a stage, row by row, and each tensor's row."""
        values, rows = self.scalars.values, self.scalars.rows
        if len(self.program.stages) == 1:
            return values, rows
        columns, wanted = self._scalar_columns[stage], self.program.stages[stage].constants
        if len(columns) == len(wanted):
            return values[:, columns], rows
        expanded = values[rows]
        between = _between(self.program, stage)
        with np.errstate(all="ignore"):
            reduced = between(list(expanded.T), sums, self._counts.astype(float), totals[0])
        table = np.empty((len(rows), len(wanted)))
        table[:, : len(columns)] = expanded[:, columns]
        for k, value in enumerate(reduced):
            table[:, len(columns) + k] = value
        return table, np.arange(len(rows), dtype=np.int64)

    def _sum(self, partials: Floats) -> Floats:
        """The partial sums of each tensor added up, in the order of its blocks."""
        starts = self._blocks[:-1]
        result = np.zeros(len(starts))
        some = starts < self._blocks[1:]
        if some.any():
            result[some] = np.add.reduceat(partials, starts[some])
        return result


@cache
def _between(program: Program, stage: int) -> Callable[..., list[Any]]:
    return compile_function(program.between_source(stage), "between", _ARRAY_NAMES)


def _state(slot: Slot, name: str) -> torch.Tensor:
    assert slot.state is not None
    tensor: torch.Tensor = slot.state[name]
    return tensor


def _parts(tensor: torch.Tensor) -> int:
    return 2 if tensor.dtype in REAL_PARTS else 1
