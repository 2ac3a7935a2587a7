"""Running a formula's program over the elements of tensors."""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from thalweg.engine.backends.cpu.chunks import chunk_table
from thalweg.engine.backends.cpu.kernel import Kernel
from thalweg.engine.backends.cpu.printer import ARGUMENTS, compile_stage
from thalweg.engine.backends.cpu.threads import WORTH_A_THREAD
from thalweg.engine.formats import compute_type, format_of
from thalweg.engine.layout import Integers
from thalweg.engine.passes.base import ArgumentBlock, Pass
from thalweg.rule.formula import FormulaProgram

# All chunks are of tensor 0, whose constants are in row 0 of the table of constants.
_TENSOR_ROWS = (ctypes.c_int64 * 1)(0)
_SPANS = 64  # into so many, at least, a large number of elements is divided


class ElementPass(Pass[int, list[float]]):
    """A formula's program for operands of these dtypes, with these constants.

    ``run(count, *addresses)`` goes over ``count`` elements of each tensor and returns the sums. The
    addresses are of the program's operands, those to write among them: dense tensors of one layout.

    Args:
        program: the program.
        dtypes: of each of its operands.
        constants: the values of the program's scalars.
    """

    def __init__(
        self,
        program: FormulaProgram,
        dtypes: Sequence[torch.dtype],
        constants: Sequence[float],
    ) -> None:
        super().__init__(f"{len(program.operands)}q", ARGUMENTS)
        formats = {}
        for name, dtype in zip(program.operands, dtypes, strict=True):
            form = format_of(dtype)
            assert form is not None, "the caller has checked the dtypes"
            formats[name] = form
        self._kernel = compile_stage(program, 0, formats)
        wide = compute_type(tuple(formats.values())) == "float64"
        scalar: Any = ctypes.c_double if wide else ctypes.c_float
        self._constants = (scalar * len(constants))(*constants)
        self._sizes = len(program.operands), len(program.stage.reductions)

    def _new_block(self, key: int) -> "_Block":
        return _Block(self._kernel, _layout(key), *self._sizes, self._constants)


class _Layout:
    """How a number of elements is divided into chunks, and chunks into spans."""

    def __init__(self, count: int) -> None:
        chunks, spans, blocks = chunk_table([count])
        # Memory is read faster in longer stretches; a span is what a thread takes at a time.
        spans = np.append(spans[: -1 : max(1, len(spans) // _SPANS)], spans[-1])
        self._arrays: tuple[Integers, Integers] = chunks, spans  # kernels read them
        self.chunks, self.spans = chunks.ctypes.data, spans.ctypes.data
        self.span_count = len(spans) - 1
        self.sum_blocks = int(blocks[-1])
        self.most_threads = min(self.span_count, count // WORTH_A_THREAD)


_layout = lru_cache(maxsize=256)(_Layout)


class _Block(ArgumentBlock[list[float]]):
    """The arguments of a call on so many elements; only the addresses of the tensors change."""

    def __init__(
        self, kernel: Kernel, layout: _Layout, operands: int, sums: int, constants: Any
    ) -> None:
        super().__init__(kernel, ARGUMENTS + operands, layout.most_threads)
        self._kept = layout, constants  # the arguments are addresses of these
        self._partials = np.zeros((sums, layout.sum_blocks))
        self.arguments[:ARGUMENTS] = [
            0,
            layout.spans,
            layout.span_count,
            layout.chunks,
            self.address + 8 * ARGUMENTS,
            1,
            ctypes.addressof(_TENSOR_ROWS),
            ctypes.addressof(constants),
            len(constants),
            self._partials.ctypes.data,
            layout.sum_blocks,
        ]
        # Where there is one block of elements, its sums are those of all.
        self._only_block = self._partials[:, 0] if layout.sum_blocks == 1 else None

    def found(self) -> list[float]:
        only = self._only_block
        sums: list[float] = (self._partials.sum(axis=1) if only is None else only).tolist()
        return sums
