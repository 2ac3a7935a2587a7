"""Running a formula's program over whole tensors: the little that a loss needs of the engine.

A step runs over thousands of tensors and keeps a plan; a pass is called with other tensors each
time, and with few, so that what counts is the time of a call.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from thalweg.engine.backends.cpu import threads
from thalweg.engine.backends.cpu.chunks import chunk_table
from thalweg.engine.backends.cpu.printer import ARGUMENTS, compile_stage
from thalweg.engine.backends.cpu.threads import WORTH_A_THREAD
from thalweg.engine.formats import compute_type, format_of
from thalweg.engine.layout import Integers
from thalweg.rule.formula import FormulaProgram

_ROW = (ctypes.c_int64 * 1)(0)  # every chunk is of tensor 0, whose constants are row 0
_ROW_ADDRESS = ctypes.addressof(_ROW)
_ADDRESSES = 8 * ARGUMENTS  # where a call's addresses of tensors begin, in bytes
_SPANS = 64  # into which many elements are cut, or more
_COUNTS = 64  # numbers of elements for which a pass keeps its calls

# Tensors that have escaped from a transform of functions look like others, and have no memory.
is_wrapped: Callable[[torch.Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor

# On for any device: cheaper to ask than for one device by name.
autocast_is_on: Callable[[], bool] = torch._C._is_any_autocast_enabled


class _Layout:
    """How so many elements are cut up."""

    def __init__(self, count: int) -> None:
        chunks, spans, blocks = chunk_table([count])
        # Memory is read faster in longer stretches; a span is what a thread takes at a time.
        spans = np.append(spans[: -1 : max(1, len(spans) // _SPANS)], spans[-1])
        self._kept: tuple[Integers, Integers] = chunks, spans
        self.chunks, self.spans = chunks.ctypes.data, spans.ctypes.data
        self.span_count = len(spans) - 1
        self.blocks = int(blocks[-1])
        self.most_threads = min(self.span_count, count // WORTH_A_THREAD)


_layout = lru_cache(maxsize=256)(_Layout)


class _Call:
    """Everything that a kernel is called with; only the addresses of the tensors change.

    Attributes:
        arguments: the argument block, and behind it the addresses.
        address: where that lies.
        most_threads: more are of no use.
        sums: where there is one block, its sums.
        partials: the sums of each block.
    """

    def __init__(self, layout: _Layout, operands: int, sums: int, constants: Any) -> None:
        self._kept = layout, constants  # the block holds their addresses
        self.partials = np.zeros((sums, layout.blocks))
        self.sums = self.partials[:, 0] if layout.blocks == 1 else None
        self.most_threads = layout.most_threads
        self.arguments = (ctypes.c_int64 * (ARGUMENTS + operands))()
        self.address = ctypes.addressof(self.arguments)
        self.arguments[:ARGUMENTS] = [
            0,
            layout.spans,
            layout.span_count,
            layout.chunks,
            self.address + _ADDRESSES,
            1,
            _ROW_ADDRESS,
            ctypes.addressof(constants),
            len(constants),
            self.partials.ctypes.data,
            layout.blocks,
        ]


class Pass:
    """A formula's program for operands of these dtypes, with these constants.

    Args:
        program: the program.
        dtypes: of each of its operands.
        constants: the program's scalars.
    """

    def __init__(
        self,
        program: FormulaProgram,
        dtypes: Sequence[torch.dtype],
        constants: Sequence[float],
    ) -> None:
        formats = {}
        for name, dtype in zip(program.operands, dtypes, strict=True):
            form = format_of(dtype)
            assert form is not None, "asked for before"
            formats[name] = form
        self._kernel = compile_stage(program, 0, formats)
        wide = compute_type(tuple(formats.values())) == "float64"
        scalar: Any = ctypes.c_double if wide else ctypes.c_float
        self._constants = (scalar * len(constants))(*constants)
        self._operands = len(program.operands)
        self._sums = len(program.stage.reductions)
        self._write = struct.Struct(f"={self._operands}q").pack_into
        self._free: dict[int, list[_Call]] = {}

    def run(self, count: int, addresses: Sequence[int]) -> list[float]:
        """Go over the elements of dense tensors of one layout; return the sums.

        Args:
            count: how many elements each has.
            addresses: of the program's operands, those to write among them.
        """
        free = self._free.get(count)
        if free is None:
            if len(self._free) >= _COUNTS:
                self._free.clear()
            free = self._free[count] = []
        # A call is in one place at a time: other threads, and destructors that run in here, take
        # another.
        try:
            call = free.pop()
        except IndexError:
            call = _Call(_layout(count), self._operands, self._sums, self._constants)
        self._write(call.arguments, _ADDRESSES, *addresses)
        call.arguments[0] = 0
        most = call.most_threads
        if most > 1:
            most = min(most, torch.get_num_threads())
        threads.run(self._kernel, call.address, most)
        sums: list[float] = (call.partials.sum(axis=1) if call.sums is None else call.sums).tolist()
        free.append(call)
        return sums
