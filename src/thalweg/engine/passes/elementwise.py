"""Running a formula's program over the elements of tensors."""

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from thalweg.engine.backends.cpu.chunks import chunk_table
from thalweg.engine.backends.cpu.printer import ARGUMENTS, compile_stage
from thalweg.engine.backends.cpu.threads import WORTH_A_THREAD
from thalweg.engine.formats import compute_type, format_of
from thalweg.engine.layout import Integers
from thalweg.engine.passes.argument_blocks import ArgumentBlock, ArgumentBlocks
from thalweg.rule.formula import FormulaProgram

# All chunks are of tensor 0, whose constants are in row 0 of the table of constants.
_TENSOR_ROWS = (ctypes.c_int64 * 1)(0)
_SPANS = 64  # into so many, at least, a large number of elements is divided

# Tensors that have escaped from a transform of functions look like others, and have no memory.
is_wrapped: Callable[[torch.Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor

# On for any device: cheaper to ask than for one device by name.
autocast_is_on: Callable[[], bool] = torch._C._is_any_autocast_enabled


class ElementPass:
    """A formula's program for operands of these dtypes, with these constants.

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
        formats = {}
        for name, dtype in zip(program.operands, dtypes, strict=True):
            form = format_of(dtype)
            assert form is not None, "the caller has checked the dtypes"
            formats[name] = form
        self._kernel = compile_stage(program, 0, formats)
        wide = compute_type(tuple(formats.values())) == "float64"
        scalar: Any = ctypes.c_double if wide else ctypes.c_float
        operands, sums = len(program.operands), len(program.stage.reductions)
        make = partial(_Block, operands, sums, (scalar * len(constants))(*constants))
        self._blocks: ArgumentBlocks[int, _Block] = ArgumentBlocks(make, f"{operands}q", ARGUMENTS)

    def __call__(self, count: int, addresses: Sequence[int]) -> list[float]:
        """Go over the elements of dense tensors of one layout; return the sums.

        Args:
            count: how many elements each has.
            addresses: of the program's operands, those to write among them.
        """
        block = self._blocks.run(self._kernel, count, *addresses)
        sums: list[float] = (
            block.partials.sum(axis=1) if block.sums is None else block.sums
        ).tolist()
        self._blocks.give_back(count, block)
        return sums


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


class _Block(ArgumentBlock):
    """The arguments of a call on so many elements; only the addresses of the tensors change.

    Attributes:
        partials: the sums of each block of elements.
        sums: the same where there is one such block, else None.
    """

    def __init__(self, operands: int, sums: int, constants: Any, count: int) -> None:
        super().__init__(ARGUMENTS + operands)
        layout = _layout(count)
        self._kept = layout, constants  # the arguments are addresses of these
        self.partials = np.zeros((sums, layout.sum_blocks))
        self.sums = self.partials[:, 0] if layout.sum_blocks == 1 else None
        self.most_threads = layout.most_threads
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
            self.partials.ctypes.data,
            layout.sum_blocks,
        ]
