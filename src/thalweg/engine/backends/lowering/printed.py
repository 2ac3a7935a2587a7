"""The lines that every printed function has: scalars taken apart, an instruction each."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from thalweg.engine.backends.lowering.instructions import Instruction, Lowered


class Kinds(NamedTuple):
    """What a printed function is made for, besides its stage; it knows them by these names.

    Attributes:
        compute: the dtype of arithmetic.
        accumulate: the dtype of sums.
        as_stored: what the parameter is stored as.
        inner: how many dimensions of the numbers are none of the parameters': 1 if complex.
    """

    compute: torch.dtype
    accumulate: torch.dtype
    as_stored: torch.dtype
    inner: int


def scalar_lines(lowered: Lowered) -> list[str]:
    """Name the scalars, which arrive as ``k``."""
    names = "".join(f"k{i}, " for i in range(len(lowered.scalars)))
    return [f"{names}= k"] if names else []


def instruction_lines(lowered: Lowered, spelled: Callable[[Instruction], str]) -> list[str]:
    """Each instruction as a back end spells it, then let go of what is not used any more."""
    lines = []
    for instruction in lowered.instructions:
        comment = f"  # {instruction.line}" if instruction.line else ""
        lines.append(f"{spelled(instruction)}{comment}")
        if instruction.frees:
            lines.append(f"del {', '.join(instruction.frees)}")
    return lines
