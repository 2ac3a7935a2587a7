"""Dense parameters that are updated by one call of a CPU kernel for each stage."""

import ctypes
from collections.abc import Mapping, Sequence
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
from thalweg.engine.overlaps import Ranges
from thalweg.engine.reduced import reduced_constants, values_between
from thalweg.engine.scalars import Floats, ScalarStates
from thalweg.engine.slots import Slot
from thalweg.engine.torch_internals import SCALAR_TYPES, missing_memory
from thalweg.rule import Program
from thalweg.rule.symbols import Level

G = 1  # the gradient's place among a program's operands, which are p, g and the states

# Elements from which a kernel lets other Python threads run meanwhile; several threads always do.
WORTH_LETTING_GO = 2**20
WORTH_HOLDING = min(WORTH_LETTING_GO, 2 * threads.WORTH_A_THREAD)


class KernelUnit(Unit):
    """Dense parameters of the same dtypes, updated by one call of the kernel for each stage."""

    def __init__(self, program: Program, slots: Sequence[Slot], scalars: ScalarStates) -> None:
        super().__init__(program, slots, scalars)
        kind = slots[0].kind
        assert kind is not None
        self._kind = kind
        self._given = slots[0].value is not None
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
        self._parts = 2 if slots[0].param.is_complex() else 1
        self.moved = True

        self.addresses = np.zeros((len(self._buffers), len(slots)), dtype=np.int64)
        # An array of ctypes, whose single elements are set faster than NumPy's.
        self._arguments = (ctypes.c_int64 * (ARGUMENTS + self._seeded))()
        self._call = ctypes.addressof(self._arguments)
        self._table: npt.NDArray[Any] = np.empty((0, 0))
        self._shape = (0, 0)
        self._cases: Integers = np.empty(0, dtype=np.int64)
        self._chunks = ChunkTable(self.numbers)
        self._lets_go = self._chunks.numbers >= WORTH_LETTING_GO
        # While others run they may drop a gradient, and between stages signals are handled.
        self._holds = len(stages) > 1 or self._lets_go or self._chunks.numbers >= WORTH_HOLDING
        self._relaid: list[int] = []
        self._gradients: list[torch.Tensor | None] | None = None  # held for this step
        self._storages: list[Any] = []  # likewise
        self._exposed = False
        self._located = False  # the addresses of the states are known
        self._by_reader = False
        self._place(*self._chunks.whole, len(slots), sum(self.numbers))
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
        if lib is not None and self._reader is not None:
            self._alone = addresses.AtOnce(lib, [self._reader])

    def _make_reader(
        self, lib: addresses.Library | None, states: Sequence[Sequence[torch.Tensor]]
    ) -> addresses.Reader | None:
        if lib is None or any(s.param.is_complex() for s in self.slots):
            return None  # a complex tensor may be lazily conjugated, which only Python is asked
        if not all(self._whole) or any(dtype not in SCALAR_TYPES for dtype in self._dtypes):
            return None
        return addresses.Reader(lib, self._columns[0], states, self._dtypes, self.addresses)

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

    def prepare(self, exposed: bool) -> bool:
        """Compute the constants, and hand over those that no later sum has a part in.

        What an option of a class of its own does when it becomes a number is done here.
        """
        if not super().prepare(exposed):
            return False
        if len(self.program.stages) == 1:
            self._set_constants(self.constants.values, self.constants.case_of)
        else:
            values = self.constants.values
            table = np.asarray(values, dtype=np.float64)
            self._by_case = table.reshape(len(values), -1)
        return True

    def look(self, exposed: bool) -> bool:
        """Read all addresses; a gradient of another layout is noted, to be laid out anew."""
        self.begin(exposed)
        reader = self._reader
        self._by_reader = reader is not None and reader.read()
        if self._by_reader:
            self.take_in()
            return True
        return self._look_one_by_one()

    def begin(self, exposed: bool) -> None:
        """Hold what the step needs, and say what is to be read."""
        self._exposed = exposed
        self._gradients = None
        if self._holds or self._given:
            self._gradients = self._read_gradients()
        if self._reader is not None:
            self._reader.prepare(exposed or not self._located, self._gradients)

    def take_in(self) -> None:
        """Take in what the reader has found."""
        reader = self._reader
        assert reader is not None
        self._located = self._by_reader = True
        self._relaid = []
        self.absent = np.flatnonzero(reader.absent).tolist() if reader.any_absent else []
        self.moved = self.moved or reader.moved

    def _read_gradients(self) -> list[torch.Tensor | None]:
        if self._given:
            return [s.value for s in self.slots]
        return [p.grad for p in self._columns[0]]

    def _look_one_by_one(self) -> bool:
        if self._gradients is None:
            self._gradients = self._read_gradients()
        self._storages, self.moved = [], True
        for row, column in self._columns.items():
            for t, tensor in enumerate(column):
                if not self._is_planned(tensor, t, self._dtypes[row], self._whole[row]):
                    return False
                self.addresses[row, t] = self._place_of(tensor)
        absent, relaid = [], []
        for t, (slot, gradient) in enumerate(zip(self.slots, self._gradients, strict=True)):
            self.addresses[G, t] = 0
            if gradient is None:
                absent.append(t)
                continue
            if not self._is_planned_gradient(gradient, slot.param):
                return False
            if self._kind.sparse or not self._is_planned(gradient, t, self._kind.dtype):
                relaid.append(t)
            else:
                self.addresses[G, t] = self._place_of(gradient)
        self.absent, self._relaid = absent, relaid
        return True

    def _is_planned_gradient(self, gradient: torch.Tensor, p: torch.Tensor) -> bool:
        """Whether a gradient is of the kind that was planned for, in whatever layout."""
        return (
            type(gradient) in PLAIN_TENSORS
            and not missing_memory(gradient)
            and gradient.dtype is self._kind.dtype
            and gradient.is_sparse is self._kind.sparse
            and gradient.shape == p.shape
            and gradient.device.type == "cpu"
        )

    def _is_planned(
        self, tensor: torch.Tensor, t: int, dtype: torch.dtype, whole: bool = True
    ) -> bool:
        """Whether a tensor's numbers lie as the parameter's did, or flat if it is not whole."""
        return (
            type(tensor) in PLAIN_TENSORS
            and tensor.dtype is dtype
            and tensor.layout is torch.strided
            and tensor.device.type == "cpu"
            and not missing_memory(tensor)
            and (memory_order(tensor) == self._orders[t] if whole else tensor.is_contiguous())
            and not (tensor.is_neg() or tensor.is_conj() or tensor.is_inference())
        )

    def _place_of(self, tensor: torch.Tensor) -> int:
        """The address of a dense tensor, whose memory is held until the step is through.

        Raises:
            RuntimeError: the tensor reaches beyond its storage.
        """
        storage = tensor.untyped_storage()
        self._storages.append(storage)
        needed = (tensor.storage_offset() + tensor.numel()) * tensor.element_size()
        if tensor.numel() and needed > storage.nbytes():
            raise RuntimeError(
                f"{self.program.name}: a tensor of shape {tuple(tensor.shape)} needs {needed} "
                f"bytes of its storage, which has {storage.nbytes()}: it was resized. Resize it "
                "back, or replace the tensor"
            )
        return tensor.data_ptr()

    def ranges(self) -> Ranges:
        """Where the operands were at the last look."""
        rows, tensors = self.addresses.shape
        numbers = np.asarray(self.numbers) // self._parts
        sizes = [
            -(-numbers // buffer.elements) * dtype.itemsize
            for (_, buffer), dtype in zip(self._buffers, self._dtypes, strict=True)
        ]
        starts = self.addresses.ravel()
        stops = starts + np.concatenate(sizes) * (starts != 0)
        slots = np.tile([s.index for s in self.slots], rows)
        written = np.ones((rows, tensors), dtype=np.int64)
        written[G] = 0
        return Ranges(starts, stops, slots, written.ravel())

    def avoid(self, starts: Integers, stops: Integers) -> None:
        """Notice gradients that come to overlap with these ranges, and only further moves."""
        super().avoid(starts, stops)
        if self._reader is not None:
            self._reader.avoid(starts, stops)

    # ---- running ----------------------------------------------------------------------------

    def run(self, stage: int, known: Known) -> list[Floats]:
        """Run one stage: a call for all tensors, and one for each piece that is laid out anew."""
        if len(self.program.stages) > 1:
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
        if self.program.clears and stage == len(self.program.stages) - 1:
            for gradient in self._copied():
                gradient.detach().zero_()
        return [self._chunks.sums(row) for row in partials] if reductions else []

    def _run_kernel(self, stage: int) -> None:
        wanted = self._threads()
        if not self._by_reader or (wanted > 1 and not threads.openmp_pool_address()):
            self._arguments[TICKET] = 0
            threads.run(self.kernels[stage], self._call, wanted, self._lets_go)
        elif not self._alone.run([self.call(stage)], self._lets_go or wanted > 1):
            self.moved = True
            raise RuntimeError(
                f"{self.program.name}: a parameter, gradient or state has changed its memory while "
                "the step ran; a step must not be changed by what it calls"
            )

    def _threads(self) -> int:
        return threads.of_use(self._most_threads)

    def call(self, stage: int) -> tuple[int, int, int]:
        """A stage's kernel, where its arguments are, and on how many threads it is to run."""
        return self.kernels[stage].address, self._call, self._threads()

    @property
    def reader(self) -> addresses.Reader | None:
        """What reads the operands of its one stage, whose kernel may follow at once."""
        (*earlier, last) = self.program.stages
        return None if earlier or last.reductions or self._seeded else self._reader

    @property
    def lets_go(self) -> bool:
        """Whether other Python threads run while its kernel does."""
        return self._lets_go or self._threads() > 1

    def _run_relaid(self, stage: int) -> None:
        usual, work = self._placed, self.work
        assert self._gradients is not None
        gradients = [(t, self.slots[t].param, self._gradients[t]) for t in self._relaid]
        for pieces, chunks, spans in relaid_pieces(gradients, self._chunks, self._kind.dtype):
            self.addresses[G, [t for t, _ in pieces]] = [address for _, address in pieces]
            count = int(chunks[:, 2].sum())
            self._place(chunks, spans, len(self.slots), count)
            self._run_kernel(stage)
        self.addresses[G, self._relaid] = 0  # in the next stage's first call they take no part
        self._place(*usual, len(self.slots), work)

    def _copied(self) -> Sequence[torch.Tensor]:
        """The gradients of which the kernel has had a copy."""
        held = self._gradients or []
        return [g for g in (held[t] for t in self._relaid) if g is not None]

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

    def let_go(self) -> None:
        self._gradients, self._storages = None, []
        if self._reader is not None:
            self._reader.let_go()

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
        """The float64 constants of a stage, case by case, and the case of each of its tensors."""
        by_case, cases = self._by_case, self._cases_of_tensors()
        columns, reduced = self._stage_scalars[stage], reduced_constants(self.program, stage)
        if not reduced:
            return by_case[:, columns], cases
        by_tensor = by_case[cases]
        found = values_between(self.program, stage, list(by_tensor.T), *self._by_tensor(known))
        table = np.empty((len(cases), len(columns) + len(reduced)))
        table[:, : len(columns)] = by_tensor[:, columns]
        for k, value in enumerate(found):
            table[:, len(columns) + k] = value
        return table, np.arange(len(cases), dtype=np.int64)

    def _cases_of_tensors(self) -> Integers:
        """The case of each tensor of the kernel's table; the same array at each step."""
        return self.constants.case_of

    def _by_tensor(self, known: Known) -> tuple[Known, Mapping[str, Floats]]:
        """What is known of each tensor of the kernel's table: sums, and counts by scope."""
        return known, self.sizes


def _scalar_columns(program: Program, stage: int) -> list[int]:
    """The places among the program's constants of those that a stage takes."""
    place = {c: i for i, c in enumerate(program.constants)}
    return [place[c] for c in program.stages[stage].constants if c.level is Level.SCALAR]
