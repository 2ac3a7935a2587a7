"""Running a row formula's program: the passes over rows that a loss needs of the engine."""

import ctypes
import math
import struct
from collections.abc import Sequence

import numpy as np
import torch

from thalweg.engine.backends.cpu import threads
from thalweg.engine.backends.cpu.kernel import Kernel, compile_source
from thalweg.engine.backends.cpu.threads import WORTH_A_THREAD
from thalweg.engine.formats import format_of
from thalweg.engine.passes.row_printer import (
    ARGUMENTS,
    AVERAGED,
    BAD,
    IGNORED,
    LANES,
    TAKEN,
    TICKET,
    Printer,
)
from thalweg.rule.rows import RowProgram

NO_INDEX = -(2**63)  # to be ignored: every index takes part
KEPT_SIZES = 64  # for which a pass keeps its argument blocks


class _Block:
    """The arguments of a call, kept from call to call: only addresses and constants change.

    Attributes:
        arguments: the argument block, and behind it the addresses and the constants.
        address: where that lies.
        threads: more are of no use.
    """

    def __init__(self, sizes: tuple[int, int, int], operands: int, constants: int) -> None:
        outer, count, inner = sizes
        rows_each = LANES if inner > 1 else 1
        blocks = outer * -(-inner // rows_each)
        elements = max(1, count * min(rows_each, inner))
        # By the sizes alone, so that sums do not depend on the threads.
        blocks_each = max(1, WORTH_A_THREAD // elements)
        self.threads = -(-blocks // blocks_each)
        self.totals = np.zeros(self.threads)
        self.arguments = (ctypes.c_int64 * (ARGUMENTS + operands + constants))()
        self.address = ctypes.addressof(self.arguments)
        self.arguments[:ARGUMENTS] = [
            0,
            self.threads,
            blocks_each,
            blocks,
            outer * inner,
            count,
            inner,
            self.address + 8 * ARGUMENTS,
            self.address + 8 * (ARGUMENTS + operands),
            self.totals.ctypes.data,
            NO_INDEX,
            *(0, 0, 0),
        ]


class RowPass:
    """A row formula's program for operands of a dtype.

    Args:
        program: the program.
        dtype: of all operands but indices.
        in_place: the derivative by ``x`` is laid where x was; both are the same tensor.
    """

    def __init__(self, program: RowProgram, dtype: torch.dtype, in_place: bool = False) -> None:
        self.program = program
        form = format_of(dtype)
        assert form is not None, "asked for before"
        self._format, self._in_place = form, in_place
        self._kernels: dict[bool, Kernel] = {}
        operands, constants = len(program.operands), len(program.constants)
        self._write = struct.Struct(f"={operands}q{constants}d").pack_into
        self._free: dict[tuple[int, int, int], list[_Block]] = {}
        self._sizes = operands, constants

    def kernel(self, across: bool) -> Kernel:
        """The kernel that runs along rows or across them."""
        if across not in self._kernels:
            way = "across" if across else "along"
            name = f"{self.program.name}_{way}_{self._format.name}"
            title = f"{self.program.name}, {way} rows, {self._format.name}"
            text = Printer(self.program, self._format, across, self._in_place).source()
            self._kernels[across] = compile_source(name, title, text)
        return self._kernels[across]

    def __call__(
        self,
        addresses: Sequence[int],
        constants: Sequence[float],
        sizes: tuple[int, int, int],
        ignored: int = NO_INDEX,
        averaged: bool = False,
    ) -> tuple[float, int]:
        """Go over the rows of dense tensors.

        Args:
            addresses: of the program's operands, those to write among them.
            constants: the program's scalars.
            sizes: how the elements lie: ``[outer, elements of a row, inner]``, C-contiguous; there
                are outer x inner rows.
            ignored: rows with this index take no part: their value and derivatives are 0.
            averaged: divide the sum and the derivatives by the number of rows that take part.

        Returns:
            The sum of the rows' values, and the number of a row whose index is none of its
            elements', or -1.
        """
        kernel = self.kernel(across=sizes[2] > 1)
        # A block is in one place at a time: other threads, and destructors that run here, take
        # another.
        try:
            block = self._free[sizes].pop()
        except LookupError:
            block = _Block(sizes, *self._sizes)
        arguments = block.arguments
        self._write(arguments, 8 * ARGUMENTS, *addresses, *constants)
        arguments[TICKET], arguments[IGNORED], arguments[BAD] = 0, ignored, 0
        arguments[AVERAGED] = averaged
        wanted = min(block.threads, torch.get_num_threads()) if block.threads > 1 else 1
        threads.run(kernel, block.address, wanted)
        totals = block.totals
        total = totals.item() if len(totals) == 1 else float(totals.sum())
        if averaged:
            taken = arguments[TAKEN]
            total = total / taken if taken else math.nan
        found = total, arguments[BAD] - 1
        free = self._free.get(sizes)
        if free is not None:
            free.append(block)
            return found
        if len(self._free) >= KEPT_SIZES:
            self._free.clear()
        self._free[sizes] = [block]
        return found
