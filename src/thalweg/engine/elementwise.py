"""One pass over the elements of a few tensors of one shape: what a loss needs of the engine.

A step runs over thousands of tensors and keeps a plan; a pass is called with other tensors each
time, and with few, so that what counts is the time of a call.
"""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import numpy as np
import torch

from thalweg.engine import threads
from thalweg.engine.cpu import ARGUMENTS, compile_stage
from thalweg.engine.formats import compute_type, format_of
from thalweg.engine.layout import Integers, chunk_table
from thalweg.engine.units import WORTH_A_THREAD
from thalweg.rule.formula import FormulaProgram

_Arguments = ctypes.c_int64 * ARGUMENTS
_ROW = (ctypes.c_int64 * 1)(0)  # every chunk is of tensor 0, whose constants are row 0
_ROW_ADDRESS = ctypes.addressof(_ROW)


class _Layout:
    """How so many elements are cut up."""

    def __init__(self, count: int) -> None:
        self._arrays: tuple[Integers, ...] = chunk_table([count])
        chunks, spans, blocks = self._arrays
        self.chunks, self.spans = chunks.ctypes.data, spans.ctypes.data
        self.span_count = len(spans) - 1
        self.blocks = int(blocks[-1])


_layout = lru_cache(maxsize=256)(_Layout)


class Pass:
    """A formula's program for operands of these dtypes.

    Args:
        program: the program.
        dtypes: of each of its operands.
    """

    def __init__(self, program: FormulaProgram, dtypes: Sequence[torch.dtype]) -> None:
        formats = {}
        for name, dtype in zip(program.operands, dtypes, strict=True):
            form = format_of(dtype)
            assert form is not None, "asked for before"
            formats[name] = form
        compute = compute_type(tuple(formats.values()))
        self._scalar = ctypes.c_double if compute == "float64" else ctypes.c_float
        self._kernel = compile_stage(program, 0, formats)
        self._sums = len(program.stage.reductions)
        self._addresses = ctypes.c_int64 * len(program.operands)

    def run(self, tensors: Sequence[torch.Tensor], constants: Sequence[float]) -> list[float]:
        """Go over the elements of dense tensors of one layout; return the sums.

        Args:
            tensors: the program's operands, those to write among them.
            constants: the program's scalars.
        """
        count = tensors[0].numel()
        layout = _layout(count)
        addresses = self._addresses(*[t.data_ptr() for t in tensors])
        table = (self._scalar * len(constants))(*constants)
        partials = (ctypes.c_double * (self._sums * layout.blocks))()
        arguments = _Arguments(
            0,
            layout.spans,
            layout.span_count,
            layout.chunks,
            ctypes.addressof(addresses),
            1,
            _ROW_ADDRESS,
            ctypes.addressof(table),
            len(constants),
            ctypes.addressof(partials),
            layout.blocks,
        )
        wanted = min(torch.get_num_threads(), layout.span_count, count // WORTH_A_THREAD)
        threads.run(self._kernel, ctypes.addressof(arguments), wanted)
        if layout.blocks <= 1:
            return list(partials) if layout.blocks else [0.0] * self._sums
        sums = np.asarray(partials).reshape(self._sums, layout.blocks).sum(axis=1)
        return cast(list[float], sums.tolist())
