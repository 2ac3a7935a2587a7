"""The CPU back end of row formulas: a program printed as the source of one kernel.

The kernel works through rows, each several times while it is in cache: what one stage sums up, the
next one uses. Rows lie in memory in one of two ways. *Along*: the elements of a row are neighbours,
and a loop runs along the row. *Across*: the rows are neighbours (classes before pixels), and a loop
runs across a block of so many rows as keep the processor's lanes busy.
"""

from collections.abc import Sequence

from thalweg.engine.backends.cpu.loops import indented
from thalweg.engine.backends.cpu.spelling import SPELLED_IN
from thalweg.engine.formats import Plain
from thalweg.engine.passes.row_loops import LoopPrinter
from thalweg.engine.passes.row_spelling import IN_PLACE, LANES, RowSpelling
from thalweg.rule.formula import FACTOR
from thalweg.rule.rows import Kind, RowProgram
from thalweg.rule.symbols import Symbol

# Places in the argument block, each an int64. From IGNORED on they are written at each call.
TICKET, TICKETS, BLOCKS_EACH, BLOCKS, ROWS, COUNT, INNER, ADDRESSES, CONSTANTS, TOTALS = range(10)
IGNORED, EVERY, BAD, AVERAGED, TAKEN = range(10, 15)
ARGUMENTS = 15

_HEAD = f"""\
from thalweg.engine.backends.cpu.intrinsics import larger_of


def work(arguments):
    a = int64_pointer(arguments)
    tickets, blocks_each, blocks, rows = a[{TICKETS}], a[{BLOCKS_EACH}], a[{BLOCKS}], a[{ROWS}]
    count, inner, ignored, every = a[{COUNT}], a[{INNER}], a[{IGNORED}], a[{EVERY}] != 0
    addresses = int64_pointer(a[{ADDRESSES}])
    constants, totals = float64_pointer(a[{CONSTANTS}]), float64_pointer(a[{TOTALS}])
    zero, one = {{compute}}(0.0), {{compute}}(1.0)
{{setup}}
    ticket = take(arguments)
    while ticket < tickets:
        total = float64(0.0)
        end_block = (ticket + 1) * blocks_each
        for block in range(ticket * blocks_each, end_block if end_block < blocks else blocks):
{{body}}
        totals[ticket] = total
        ticket = take(arguments)
"""


class RowPrinter:
    """Prints a program for operands in a format, along or across rows.

    Args:
        program: the program.
        form: the format of all operands but indices.
        across: whether loops run across rows, not along them.
        in_place: whether the derivative by ``x`` overwrites x.
    """

    def __init__(self, program: RowProgram, form: Plain, across: bool, in_place: bool) -> None:
        self._program = program
        self._across = across
        self._spelling = RowSpelling(program, form, across, in_place)
        self._loops = LoopPrinter(self._spelling)

    def source(self) -> str:
        """The source, up to the header that all kernels share."""
        spelling = self._spelling
        setup = []
        for c, i in spelling.constants.items():
            condition = " != 0.0" if c.is_condition else ""
            setup.append(f"d{i} = constants[{i}]{condition}")
            setup.append(f"c{i} = d{i}" if condition else f"c{i} = {spelling.compute}(d{i})")
        setup += self._averaging()
        body = self._block()
        work = _HEAD.format(
            compute=spelling.compute,
            setup="\n".join(indented([*setup, *self._scratches()])),
            body="\n".join(indented(body, 12)),
        )
        return work

    def _averaging(self) -> list[str]:
        """Count the rows that take part; divide the factor of all derivatives by their number."""
        spelling = self._spelling
        if not spelling.indices or self._program.value is None:
            return []
        at = list(self._program.kinds).index(spelling.indices[0])
        factor = [i for c, i in spelling.constants.items() if c.detail == f"h.{FACTOR}"]
        return [
            f"if a[{AVERAGED}] != 0:",
            f"    indices = int64_pointer(addresses[{at}])",
            "    number = 0",
            "    for row in range(rows):",
            "        number += 1 if (indices[row] != ignored) | every else 0",
            f"    a[{TAKEN}] = number",
            *[f"    d{i} = d{i} / float64(number)" for i in factor],
            *[f"    c{i} = {spelling.compute}(d{i})" for i in factor],
        ]

    def _scratches(self) -> list[str]:
        """Memory for the numbers of the rows of a block."""
        if not self._across:
            return []
        nodes = [n for nodes in self._program.between for n in nodes]
        nodes += [r for stage in self._program.stages for r in stage.reductions]
        numbers = [f"r{k}" for k in range(len(dict.fromkeys(nodes)))]
        return [f"{name} = float64_scratch({LANES})" for name in (*numbers, "taken")]

    def _block(self) -> list[str]:
        """One row, or across rows one block of them, from its addresses to its sum."""
        lines = []
        for k, nodes in enumerate(self._program.between):
            lines += self._numbers(nodes)
            if k < len(self._program.stages):
                lines += self._loops.stage(self._program.stages[k])
        lines += self._row_results()
        before = [*self._pointers(), *self._part_taking()]
        if self._across or not self._spelling.indices:
            return [*before, *lines]
        return [*before, *indented(lines), "else:", *indented(self._zeros())]

    def _pointers(self) -> list[str]:
        """The first element of the row or block in each operand."""
        if self._across:
            lines = [
                f"of_each = (inner + {LANES - 1}) // {LANES}",
                f"outer, first = block // of_each, block % of_each * {LANES}",
                f"lanes = inner - first if inner - first < {LANES} else {LANES}",
                "row, start = outer * inner + first, outer * inner * count + first",
            ]
        else:
            lines = ["row, start = block, block * count"]
        form = self._spelling.form
        for k, (name, kind) in enumerate(self._program.kinds.items()):
            storage, size = form.storage, form.itemsize
            if kind is Kind.INDEX:
                storage, size = "int64", 8
            offset = {Kind.ELEMENT: f" + {size} * start", Kind.COLUMN: ""}.get(
                kind, f" + {size} * row"
            )
            if self._spelling.in_place and name == f"_d_{IN_PLACE}":
                lines.append(f"at_{name} = at_{IN_PLACE}")
                continue
            lines.append(f"at_{name} = {storage}_pointer(addresses[{k}]{offset})")
        return lines

    def _part_taking(self) -> list[str]:
        """Whether each row takes part: whether its index is one of the row's, and not ignored.

        Along rows the last line is an ``if``; what follows is for rows that do.
        """
        if not self._spelling.indices:
            return []
        (name,) = self._spelling.indices
        if not self._across:
            return [
                f"index = at_{name}[0]",
                "inside = (index >= 0) & (index < count)",
                "counts = (index != ignored) | every",
                "if counts & (not inside):",
                f"    a[{BAD}] = row + 1",
                "if counts & inside:",
            ]
        return [
            "for lane in range(lanes):",
            f"    index = at_{name}[lane]",
            "    inside = (index >= 0) & (index < count)",
            "    counts = (index != ignored) | every",
            "    if counts & (not inside):",
            f"        a[{BAD}] = row + lane + 1",
            "    taken[lane] = 1.0 if counts & inside else 0.0",
        ]

    def _zeros(self) -> list[str]:
        """The value and derivatives of a row that takes no part."""
        spelling = self._spelling
        lines = [spelling.store(name, "0", "zero") for name, _ in self._program.row_stores]
        for stage in self._program.stages:
            for name, _ in stage.stores:
                lines += ["for i in range(count):", f"    {spelling.store(name, 'i', 'zero')}"]
        return lines or ["pass"]

    def _numbers(self, nodes: Sequence[Symbol]) -> list[str]:
        """Compute these numbers of the row."""
        spelling = self._spelling
        lines = []
        for node in nodes:
            if node.op == "index":
                spelling.numbers[node] = f"at_{node.detail}[lane]" if self._across else "index"
                continue
            text = self._number(node)
            if self._across and node.is_condition:
                text = f"1.0 if {text} else 0.0"
            lines.append(f"{spelling.new_number(node)} = {text}  # {node.line}")
        return spelling.for_lanes(lines)

    def _number(self, node: Symbol) -> str:
        spelling = self._spelling
        if node.op == "count":
            return "float64(count)"
        if node.op == "row":
            return spelling.load(node.detail, spelling.row_at, "float64")
        if node.op == "pick":
            load, index = node.args
            at = spelling.number(index)
            if self._across and self._program.kinds[load.detail] is Kind.ELEMENT:
                at = f"{at} * inner + lane"
            return spelling.unless_ignored(spelling.load(load.detail, at, "float64"), "0.0")
        return SPELLED_IN["float64"][node.op].format(*map(spelling.number, node.args))

    def _row_results(self) -> list[str]:
        """Store the numbers of the row, and add its value to the sum."""
        spelling = self._spelling
        lines = []
        for name, node in self._program.row_stores:
            value = spelling.unless_ignored(spelling.number(node), "0.0")
            lines.append(spelling.store(name, spelling.row_at, value))
        if self._program.value is not None:
            value = spelling.unless_ignored(spelling.number(self._program.value), "0.0")
            lines.append(f"total = total + {value}")
        return spelling.for_lanes(lines)
