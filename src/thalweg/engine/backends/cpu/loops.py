"""The loops of a kernel over a chunk: blocks within blocks, and the elements within the smallest.

What needs all values of a block before it can go on (a partial sum, a format whose scale is the
largest of them) has lines around the loop over the block's elements. Blocks of different sizes lie
within each other, since each size divides the next.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class Blocks:
    """What is done around the elements of each block of one size.

    Attributes:
        size: elements of a block; a chunk's last one may have fewer.
        first: the variable that holds the block's first element, counted from the chunk's.
        end: the variable that holds the end of its elements.
        begin: lines before its elements.
        finish: lines after them.
    """

    size: int
    first: str = "first"
    end: str = "end"
    begin: list[str] = field(default_factory=list)
    finish: list[str] = field(default_factory=list)

    def elements(self, lines: Iterable[str]) -> list[str]:
        """A loop over the block's elements."""
        return [f"for i in range({self.first}, {self.end}):", *indented(lines)]


def nested(blocks: Sequence[Blocks], element: Iterable[str]) -> list[str]:
    """Loops over a chunk's blocks, the largest outermost, and over the elements inside.

    Args:
        blocks: by falling size.
        element: the lines for element ``i``.
    """
    if not blocks:
        return ["for i in range(count):", *indented(element)]
    lines = blocks[-1].elements(element)
    ends = ["count", *(b.end for b in blocks)]
    firsts = ["0", *(b.first for b in blocks)]
    for b, first, end in reversed(list(zip(blocks, firsts, ends, strict=False))):
        inner = [
            *b.begin,
            f"{b.end} = {b.first} + {b.size}",
            f"{b.end} = {b.end} if {b.end} < {end} else {end}",
            *lines,
            *b.finish,
        ]
        lines = [f"for {b.first} in range({first}, {end}, {b.size}):", *indented(inner)]
    return lines


def indented(lines: Iterable[str], by: int = 4) -> list[str]:
    return [" " * by + line for line in lines]
