"""Units of work: parameters that one program updates together, by a kernel or eagerly.

All units of a step go through the same calls: ``prepare`` (scalars, nothing changed yet), ``run``
for each stage, ``finish`` (counts and versions).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from thalweg.engine import eager, native, threads
from thalweg.engine.cpu import (
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
from thalweg.engine.formats import REAL_PARTS, compute_type, format_of
from thalweg.engine.layout import EqualTensors, Integers, chunk_table, memory_order
from thalweg.engine.slots import ScalarStates, Slot
from thalweg.rule import Program, Rule
from thalweg.rule.functions import AllTensors
from thalweg.rule.program import compile_function, number
from thalweg.rule.symbols import Level

G = 1  # the gradient's row in the address table, whose rows are p, g and the states

# Tensor types whose data_ptr() is where their elements are.
PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)

Floats = npt.NDArray[np.float64]

# Elements for which waking another thread pays.
WORTH_A_THREAD = 32768

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


_FIRST: Integers = np.zeros(1, dtype=np.int64)


class Scalars:
    """The scalars of one program for some parameters: one row of constants for each distinct case.

    Parameters of the same group with the same step and scalar states share a row.
    """

    def __init__(self, program: Program, slots: Sequence[Slot], states: ScalarStates) -> None:
        self._program = program
        self._states = states
        self._segments = _by_group(slots)
        self._indices = _indices(slots)
        self._columns = [states.names.index(name) for name, _ in program.scalar_outputs]
        self._one_step = np.eye(1, len(states.names))  # adds one to the count, which comes first
        self.rows: Integers = np.zeros(len(slots), dtype=np.int64)
        self.values: Floats = np.zeros((1, len(program.constants)))
        self._next: Floats = np.zeros((0, 0))

    def prepare(self) -> bool:
        """Evaluate the prologue for each row; False if a switch is no longer as it was traced."""
        program, columns = self._program, self._columns
        after = self._states.rows[self._indices] + self._one_step
        inputs = after.copy() if columns else after
        values: list[Sequence[float]] = []
        for options, start, stop in self._segments:
            block = inputs[start:stop]
            if len(block) == 1 or (block == block[0]).all():
                cases, case = block[:1], _FIRST
            else:
                cases, case = _distinct(block)
            self.rows[start:stop] = case + len(values)
            results = []
            for row in cases.tolist():
                found = program.scalars(options, row)
                if found is None:
                    return False
                values.append(found[0])
                results.append(found[1])
            if columns:
                after[start:stop, columns] = np.asarray(results)[case]
        self.values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
        self._next = after
        return True

    def finish(self) -> None:
        self._states.rows[self._indices] = self._next


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
        lib = native.library()
        self._versions = native.Versions(lib, written)
        self._reader = self._make_reader(lib)

    def _make_reader(self, lib: native.Library | None) -> native.Reader | None:
        if lib is None or any(s.param.is_complex() for s in self.slots):
            return None  # a complex gradient may be lazily conjugated, which only Python is asked
        params, *states = self._columns.values()
        flat = [tensor for column in states for tensor in column]
        values = [s.value for s in self.slots if s.value is not None]
        return native.Reader(lib, params, flat, self.addresses, self._gradient_dtype, values)

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
        addresses = self.addresses[G]
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
            addresses[t] = g.data_ptr()
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


class SparseUnit(KernelUnit):
    """One parameter with a sparse gradient: the rows present are the kernel's tensors.

    The parameter is contiguous; a row is a stretch of it, and of every state, that the gradient's
    coalesced values cover.
    """

    _table_of_rows = EqualTensors(0, 0)

    def _make_reader(self, lib: native.Library | None) -> native.Reader | None:
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


class EagerUnit:
    """Parameters updated by calling the rule with tensors, one by one."""

    def __init__(
        self, rule: Rule, program: Program, slot: Slot, states: ScalarStates, sparse_rows: bool
    ) -> None:
        self.rule = rule
        self._sparse_rows = sparse_rows
        self._planned_for = self._signature(slot)
        self.program = program
        self.slots = [slot]
        self.states = states
        self._gradient: torch.Tensor | None = None

    @staticmethod
    def _signature(slot: Slot) -> tuple[Any, ...]:
        p, g = slot.param, slot.gradient
        return (p.dtype, p.device, p.shape) + (
            () if g is None else (g.dtype, g.device, g.shape, g.layout)
        )

    def holds(self) -> bool:
        (slot,) = self.slots
        self._gradient = slot.gradient
        return self._signature(slot) == self._planned_for

    def prepare(self) -> bool:
        (slot,) = self.slots
        row = self.states.rows[slot.index].copy()
        row[0] += 1
        self._row = dict(zip(self.states.names, row.tolist(), strict=True))
        return self.program.scalars(slot.group, row.tolist()) is not None

    def update(self, totals: list[torch.Tensor]) -> torch.Tensor | None:
        """Update the parameter, or return its part of a sum over all tensors that is not known."""
        (slot,) = self.slots
        assert slot.state is not None
        assert self._gradient is not None
        differentiable = bool(slot.group.get("differentiable"))
        with torch.set_grad_enabled(differentiable), AllTensors(totals):
            p, g = slot.param, self._gradient
            rows: tuple[torch.Tensor, ...] | None = None
            states = {name: slot.state[name] for name in self.program.states}
            if g.is_sparse and not self._sparse_rows:
                g = g.to_dense()
            if g.is_sparse:
                g = g.coalesce()
                rows = tuple(g.indices())
                p, g = p[rows], g.values()
                states = {name: tensor[rows] for name, tensor in states.items()}
            elif differentiable:
                p = p.clone()  # autograd may keep it, and the copy_ below would invalidate that
            try:
                new, tensors, scalars = eager.apply(self.rule, p, g, states, slot.group, self._row)
            except AllTensors.Incomplete as incomplete:
                return incomplete.part
            self._store(slot.param, new, rows)
            for name, tensor in tensors.items():
                if differentiable:
                    slot.state.put(name, tensor)
                else:
                    self._store(slot.state[name], tensor, rows)
            for name, value in scalars.items():
                self._row[name] = number(value)
        return None

    @staticmethod
    def _store(
        target: torch.Tensor, value: torch.Tensor, rows: tuple[torch.Tensor, ...] | None
    ) -> None:
        if rows is None:
            target.copy_(value)
        else:
            target.index_put_(rows, value)

    def finish(self) -> None:
        (slot,) = self.slots
        self.states.rows[slot.index] = [self._row[name] for name in self.states.names]
        self._gradient = None  # its memory may be wanted


@cache
def _between(program: Program, stage: int) -> Callable[..., list[Any]]:
    return compile_function(program.between_source(stage), "between", _ARRAY_NAMES)


def _state(slot: Slot, name: str) -> torch.Tensor:
    assert slot.state is not None
    tensor: torch.Tensor = slot.state[name]
    return tensor


def _parts(tensor: torch.Tensor) -> int:
    return 2 if tensor.dtype in REAL_PARTS else 1


def _distinct(rows: Floats) -> tuple[Floats, Integers]:
    """The distinct rows, and the number of each row among them.

    As ``np.unique`` with an axis, which takes several times as long, and makes a ``TypeError`` of a
    Ctrl-C that comes while it compares.
    """
    order = np.lexsort(rows.T)
    ordered = rows[order]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    case = np.empty(len(rows), dtype=np.int64)
    case[order] = np.cumsum(first) - 1
    return ordered[first], case


def _indices(slots: Sequence[Slot]) -> Any:
    """The slots' rows: a slice (a view, no copy) where they follow each other."""
    indices = [s.index for s in slots]
    if indices == list(range(indices[0], indices[0] + len(indices))):
        return slice(indices[0], indices[-1] + 1)
    return np.asarray(indices)


def _by_group(slots: Sequence[Slot]) -> list[tuple[Mapping[str, Any], int, int]]:
    """(options, start, stop) of each run of slots of one group; slots come in group order."""
    segments: list[tuple[Mapping[str, Any], int, int]] = []
    for k, slot in enumerate(slots):
        if segments and segments[-1][0] is slot.group:
            options, start, _ = segments[-1]
            segments[-1] = (options, start, k + 1)
        else:
            segments.append((slot.group, k, k + 1))
    return segments


def _flat_rows(gradient: torch.Tensor) -> npt.NDArray[np.int64]:
    """The number of each row present, counted over the sparse dimensions in memory order."""
    sparse_shape = gradient.shape[: gradient.sparse_dim()]
    flat = torch.zeros(gradient.values().shape[0], dtype=torch.int64)
    for index, size in zip(gradient.indices(), sparse_shape, strict=True):
        flat = flat * size + index
    return flat.numpy()
