"""Running a row formula's program over the rows of tensors."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from thalweg.engine.backends.cpu.kernel import Kernel, compile_source
from thalweg.engine.backends.cpu.threads import WORTH_A_THREAD
from thalweg.engine.formats import format_of
from thalweg.engine.passes.base import ArgumentBlock, Pass
from thalweg.engine.passes.row_printer import ARGUMENTS, BAD, IGNORED, TAKEN, RowPrinter
from thalweg.engine.passes.row_spelling import LANES
from thalweg.rule.rows import RowProgram

# How elements lie, C-contiguous: [outer, elements of a row, inner]; outer x inner rows.
Sizes = tuple[int, int, int]


class RowPass(Pass[Sizes, tuple[float, int, int]]):
    """A row formula's program for operands of a dtype.

    Args:
        program: the program.
        dtype: of all operands but indices.
        in_place: the derivative by ``x`` overwrites x; the caller passes one tensor as both.
    """

    def __init__(self, program: RowProgram, dtype: torch.dtype, in_place: bool = False) -> None:
        operands, constants = len(program.operands), len(program.constants)
        super().__init__(f"{ARGUMENTS - IGNORED}q{operands}q{constants}d", IGNORED)
        self.program = program
        form = format_of(dtype)
        assert form is not None, "the caller has checked the dtype"
        self._format, self._in_place = form, in_place
        self._kernels: dict[bool, Kernel] = {}

    def kernel(self, across: bool) -> Kernel:
        """The kernel that runs along rows or across them."""
        if across not in self._kernels:
            way = "across" if across else "along"
            name = f"{self.program.name}_{way}_{self._format.name}"
            title = f"{self.program.name}, {way} rows, {self._format.name}"
            text = RowPrinter(self.program, self._format, across, self._in_place).source()
            self._kernels[across] = compile_source(name, title, text)
        return self._kernels[across]

    def __call__(
        self,
        addresses: Sequence[int],
        constants: Sequence[float],
        sizes: Sizes,
        ignored: int | None = None,
        averaged: bool = False,
    ) -> tuple[float, int]:
        """Go over the rows of dense tensors.

        Args:
            addresses: of the program's operands, those to write among them.
            constants: the values of the program's scalars.
            sizes: how the elements lie.
            ignored: rows with this index take no part: their value and derivatives are 0. None:
                every row takes part.
            averaged: divide the sum and the derivatives by the number of rows that take part.

        Returns:
            The sum of the rows' values, and the number of a row whose index is no place in it, or
            -1.
        """
        every = ignored is None
        total, wrong_row, taken = self.run(
            sizes, ignored or 0, every, 0, averaged, 0, *addresses, *constants
        )
        if averaged:
            total = total / taken if taken else math.nan
        return total, wrong_row

    def _new_block(self, key: Sizes) -> "_Block":
        kernel = self.kernel(across=key[2] > 1)
        return _Block(kernel, key, len(self.program.operands), len(self.program.constants))


class _Block(ArgumentBlock[tuple[float, int, int]]):
    """The arguments of a call on rows of these sizes.

    It finds the sum of the values, the number of a row whose index is wrong or -1, and the number
    of rows that take part where the sum is averaged.
    """

    def __init__(self, kernel: Kernel, sizes: Sizes, operands: int, constants: int) -> None:
        outer, count, inner = sizes
        rows_each = LANES if inner > 1 else 1
        blocks = outer * -(-inner // rows_each)
        elements = max(1, count * min(rows_each, inner))
        # By the sizes alone, so that sums do not depend on the number of threads.
        blocks_each = max(1, WORTH_A_THREAD // elements)
        tickets = -(-blocks // blocks_each)
        super().__init__(kernel, ARGUMENTS + operands + constants, most_threads=tickets)
        self._totals = np.zeros(tickets)
        self.arguments[:IGNORED] = [
            0,
            tickets,
            blocks_each,
            blocks,
            outer * inner,
            count,
            inner,
            self.address + 8 * ARGUMENTS,
            self.address + 8 * (ARGUMENTS + operands),
            self._totals.ctypes.data,
        ]

    def found(self) -> tuple[float, int, int]:
        totals, arguments = self._totals, self.arguments
        total = totals.item() if len(totals) == 1 else float(totals.sum())
        return total, arguments[BAD] - 1, arguments[TAKEN]
