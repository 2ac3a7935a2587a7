"""The CPU back end of row formulas: a program's passes over a row printed as Numba source.

A generated kernel works through rows, each several times while it is in cache: what one pass sums
up, the next one takes. Rows lie in memory in one of two ways. *Along*: the elements of a row are
neighbours, and a loop runs along the row. *Across*: the rows are neighbours (classes before
pixels), and a loop runs across as many rows at a time as keep the processor's lanes busy.
"""

from collections.abc import Mapping, Sequence

from thalweg.engine.backends.cpu.kernel import ENTRY
from thalweg.engine.backends.cpu.loops import indented
from thalweg.engine.backends.cpu.printer import BLOCK, SHORT
from thalweg.engine.backends.cpu.spelling import ELEMENTARY, SPELLED_IN
from thalweg.engine.formats import Plain, compute_type
from thalweg.rule.formula import FACTOR
from thalweg.rule.program import Stage, ordered
from thalweg.rule.rows import Kind, RowProgram
from thalweg.rule.symbols import Level, Symbol

# Places in the argument block, each an int64.
TICKET, TICKETS, BLOCKS_EACH, BLOCKS, ROWS, COUNT, INNER, ADDRESSES, CONSTANTS, TOTALS = range(10)
IGNORED, BAD, AVERAGED, TAKEN = range(10, 14)
ARGUMENTS = 14

LANES = 128  # rows that are worked through at a time where they are neighbours
IN_PLACE = "x"  # the operand that its derivative may take the place of

_HEAD = f"""\
from thalweg.engine.backends.cpu.intrinsics import larger_of


def work(arguments):
    a = int64_pointer(arguments)
    tickets, blocks_each, blocks, rows = a[{TICKETS}], a[{BLOCKS_EACH}], a[{BLOCKS}], a[{ROWS}]
    count, inner, ignored = a[{COUNT}], a[{INNER}], a[{IGNORED}]
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


class Printer:
    """Prints a program for operands in a format, along or across rows."""

    def __init__(self, program: RowProgram, form: Plain, across: bool, in_place: bool) -> None:
        self.program = program
        self.format = form
        self.across = across
        self.in_place = in_place
        self.compute = compute_type((form,))
        self.kept = self._kept()
        self.numbers: dict[Symbol, str] = {}  # of the row, as float64
        self.constants = {c: i for i, c in enumerate(program.constants)}
        self.indices = [n for n, kind in program.kinds.items() if kind is Kind.INDEX]

    def source(self) -> str:
        setup = []
        for c, i in self.constants.items():
            condition = " != 0.0" if c.is_condition else ""
            setup.append(f"d{i} = constants[{i}]{condition}")
            setup.append(f"c{i} = d{i}" if condition else f"c{i} = {self.compute}(d{i})")
        setup += self._averaging()
        body = self._block()
        work = _HEAD.format(
            compute=self.compute,
            setup="\n".join(indented([*setup, *self._scratches()])),
            body="\n".join(indented(body, 12)),
        )
        return work + ENTRY

    def _averaging(self) -> list[str]:
        """Count the rows that take part, and divide what all derivatives are multiplied by."""
        if not self.indices or self.program.value is None:
            return []
        at = list(self.program.kinds).index(self.indices[0])
        factor = [i for c, i in self.constants.items() if c.detail == f"h.{FACTOR}"]
        return [
            f"if a[{AVERAGED}] != 0:",
            f"    indices = int64_pointer(addresses[{at}])",
            "    number = 0",
            "    for row in range(rows):",
            "        number += 1 if indices[row] != ignored else 0",
            f"    a[{TAKEN}] = number",
            *[f"    d{i} = d{i} / float64(number)" for i in factor],
            *[f"    c{i} = {self.compute}(d{i})" for i in factor],
        ]

    def _kept(self) -> dict[Symbol, str]:
        """Values that take long to compute, and the results that hold them until the last pass."""
        if len(self.program.stages) < 2:
            return {}
        *earlier, last = self.program.stages
        # Without rounding it, that is.
        room = [n for n, _ in last.stores] if self.format.storage == self.compute else []
        slow = [n for n in last.body if n.op in ELEMENTARY]
        made = {n for stage in earlier for n in stage.body}
        kept = dict(zip([n for n in slow if n in made], room, strict=False))
        if self.in_place and kept:
            # It takes x's place, so no pass after it may load x.
            keeper = min(k for k, s in enumerate(earlier) for n in s.body if n in kept)
            for stage in self.program.stages[keeper + 1 :]:
                if IN_PLACE in _loaded(stage, kept if stage is last else {}):
                    return {}
        return kept

    # -------------------------------------------------------------------- a block of rows

    def _scratches(self) -> list[str]:
        """Room for the numbers of the rows of a block."""
        if not self.across:
            return []
        made = [f"{name} = float64_scratch({LANES})" for name in self._numbers_of_rows()]
        return [*made, f"taken = float64_scratch({LANES})"]

    def _numbers_of_rows(self) -> list[str]:
        nodes = [n for nodes in self.program.between for n in nodes]
        nodes += [r for stage in self.program.stages for r in stage.reductions]
        return [f"r{k}" for k in range(len(dict.fromkeys(nodes)))]

    def _block(self) -> list[str]:
        lines = self._pointers()
        passes = []
        for k, nodes in enumerate(self.program.between):
            passes += self._between(nodes)
            if k < len(self.program.stages):
                passes += self._pass(self.program.stages[k])
        passes += self._finish()
        if self.across:
            return [*lines, *self._taken_lanes(), *passes]
        if not self.indices:
            return [*lines, *passes]
        return [*lines, *self._taken_row(), *indented(passes), "else:", *indented(self._zeros())]

    def _pointers(self) -> list[str]:
        if self.across:
            lines = [
                f"of_each = (inner + {LANES - 1}) // {LANES}",
                f"outer, first = block // of_each, block % of_each * {LANES}",
                f"lanes = inner - first if inner - first < {LANES} else {LANES}",
                "row, start = outer * inner + first, outer * inner * count + first",
            ]
        else:
            lines = ["row, start = block, block * count"]
        for k, (name, kind) in enumerate(self.program.kinds.items()):
            storage, size = self.format.storage, self.format.itemsize
            if kind is Kind.INDEX:
                storage, size = "int64", 8
            offset = {Kind.ELEMENT: f" + {size} * start", Kind.COLUMN: ""}.get(
                kind, f" + {size} * row"
            )
            if self.in_place and name == f"_d_{IN_PLACE}":
                lines.append(f"at_{name} = at_{IN_PLACE}")
                continue
            lines.append(f"at_{name} = {storage}_pointer(addresses[{k}]{offset})")
        return lines

    def _taken_row(self) -> list[str]:
        """Whether a row takes part, that is, whether its index is one of the row's."""
        (name,) = self.indices
        return [
            f"index = at_{name}[0]",
            "if (index != ignored) & ((index < 0) | (index >= count)):",
            f"    a[{BAD}] = row + 1",
            "if (index != ignored) & (index >= 0) & (index < count):",
        ]

    def _taken_lanes(self) -> list[str]:
        if not self.indices:
            return []
        (name,) = self.indices
        return [
            "for lane in range(lanes):",
            f"    index = at_{name}[lane]",
            "    inside = (index >= 0) & (index < count)",
            "    if (index != ignored) & (not inside):",
            f"        a[{BAD}] = row + lane + 1",
            "    taken[lane] = 1.0 if (index != ignored) & inside else 0.0",
        ]

    def _zeros(self) -> list[str]:
        """A row that takes no part: its value and its derivatives are 0."""
        lines = []
        for name, _ in self.program.row_stores:
            lines.append(f"at_{name}[0] = {self._stored('zero')}")
        for stage in self.program.stages:
            for name, _ in stage.stores:
                lines += ["for i in range(count):", f"    at_{name}[i] = {self._stored('zero')}"]
        return lines or ["pass"]

    # -------------------------------------------------------------------- numbers of the row

    def _between(self, nodes: Sequence[Symbol]) -> list[str]:
        lines = []
        for node in nodes:
            if node.op == "index":
                self.numbers[node] = f"at_{node.detail}[lane]" if self.across else "index"
                continue
            text = self._number(node)
            name = self._named(node)
            if self.across and node.is_condition:
                text = f"1.0 if {text} else 0.0"
            lines.append(f"{name} = {text}  # {node.line}")
        return self._for_lanes(lines)

    def _named(self, node: Symbol) -> str:
        """A new name for a number of the row."""
        name = f"r{len(self.numbers) - len(self._index_nodes())}"
        name = f"{name}[lane]" if self.across else name
        self.numbers[node] = f"({name} != 0.0)" if self.across and node.is_condition else name
        return name

    def _index_nodes(self) -> list[Symbol]:
        return [n for n in self.numbers if n.op == "index"]

    def _number(self, node: Symbol) -> str:
        if node.op == "count":
            return "float64(count)"
        place = "lane" if self.across else "0"
        if node.op == "row":
            return self._loaded(node.detail, place, "float64")
        if node.op == "pick":
            load, index = node.args
            at = self._row_name(index)
            if self.across and self.program.kinds[load.detail] is Kind.ELEMENT:
                at = f"{at} * inner + lane"
            picked = self._loaded(load.detail, at, "float64")
            return _if_taken(picked, "0.0") if self.across else picked
        return SPELLED_IN["float64"][node.op].format(*(self._row_name(a) for a in node.args))

    def _row_name(self, node: Symbol) -> str:
        if node.level is Level.SCALAR:
            return f"d{self.constants[node]}"
        return self.numbers[node]

    def _for_lanes(self, lines: list[str]) -> list[str]:
        if not self.across or not lines:
            return lines
        return ["for lane in range(lanes):", *indented(lines)]

    def _finish(self) -> list[str]:
        """Store the numbers of the row, and sum its value up."""
        lines = []
        masked = self.across and self.indices
        place = "lane" if self.across else "0"
        for name, node in self.program.row_stores:
            value = self._row_name(node)
            value = _if_taken(value, "0.0") if masked else value
            lines.append(f"at_{name}[{place}] = {self._stored(value)}")
        if self.program.value is not None:
            value = self._row_name(self.program.value)
            value = _if_taken(value, "0.0") if masked else value
            lines.append(f"total = total + {value}")
        return self._for_lanes(lines)

    # -------------------------------------------------------------------- passes

    def _pass(self, stage: Stage) -> list[str]:
        names: dict[Symbol, str] = {}
        before = []
        for c in stage.constants:
            if c.level is Level.SCALAR:
                names[c] = f"c{self.constants[c]}"
            elif c.is_condition or c.op == "index":
                names[c] = self.numbers[c]
            elif self.across:
                names[c] = f"{self.compute}({self.numbers[c]})"
            else:
                names[c] = f"e{self.numbers[c]}"
                before.append(f"{names[c]} = {self.compute}({self.numbers[c]})")
        loop = self._elements(stage, names)
        return [*before, *self._looped(stage, names, loop)]

    def _elements(self, stage: Stage, names: dict[Symbol, str]) -> list[str]:
        """What is done with one element; ``names`` then has what became of each node."""
        last = stage is self.program.stages[-1]
        kept = self.kept if last else {}
        needed = set(_needed(stage, kept))
        loaded = _loaded(stage, kept)
        lines = []
        for name in stage.loads:
            if name in loaded:
                lines.append(f"x_{name} = {self._loaded(name, self._place(name), self.compute)}")
        for node in stage.body:
            if node not in needed:
                continue
            names[node] = f"v{len(names)}"
            if node in kept:
                text = f"at_{kept[node]}[{self._place(kept[node])}]"
            elif node.op == "is_at":
                text = f"i == {self.numbers[node.args[0]]}"
            else:
                arguments = (self._element_name(a, names) for a in node.args)
                text = SPELLED_IN[self.compute][node.op].format(*arguments)
            lines.append(f"{names[node]} = {text}  # {node.line}")
        masked = self.across and self.indices
        for name, node in stage.stores:
            value = self._element_name(node, names)
            value = _if_taken(value, "zero") if masked else value
            lines.append(f"at_{name}[{self._place(name)}] = {self._stored(value)}")
        if not last:
            for node, name in self.kept.items():
                if node in needed:
                    lines.append(f"at_{name}[{self._place(name)}] = {names[node]}")
        return lines

    def _element_name(self, node: Symbol, names: Mapping[Symbol, str]) -> str:
        return f"x_{node.detail}" if node.op == "load" else names[node]

    def _place(self, name: str) -> str:
        across = self.across and self.program.kinds[name] is Kind.ELEMENT
        return "i * inner + lane" if across else "i"

    def _looped(self, stage: Stage, names: Mapping[Symbol, str], loop: list[str]) -> list[str]:
        """The loops of a pass: over the elements, and over their values to sum them up.

        A float64 sum in the loop halves the lanes of all that it computes in float32: where that is
        much, values are kept and summed in a loop of their own.
        """
        slow = any(n.op in ELEMENTARY for n in stage.body)
        apart = slow or len(stage.body) > SHORT
        rooms, begin, summing, end = [], [], [], []
        for r in stage.reductions:
            number, value = self._named(r), self._element_name(r.args[0], names)
            k = number.split("[")[0]
            if r.op == "largest":
                largest = f"m{k}[lane]" if self.across else f"m{k}"
                if self.across:
                    rooms.append(f"m{k} = {self.compute}_scratch({LANES})")
                begin.append(f"{largest} = {self.compute}(-math.inf)")
                loop.append(f"{largest} = larger_of({largest}, {value})")
                end.append(f"{number} = float64({largest})")
                continue
            begin.append(f"{number} = float64(0.0)")
            if apart and r.args[0] in self.kept:
                name = self.kept[r.args[0]]
                value = f"at_{name}[{self._place(name)}]"
            elif apart:
                rooms.append(f"of_{k} = {self.compute}_scratch({LANES if self.across else BLOCK})")
                place = "lane" if self.across else "i - begin"
                loop.append(f"of_{k}[{place}] = {value}")
                value = f"of_{k}[{place}]"
            if self.across:  # a sum in each lane
                summing.append(f"{number} = {number} + float64({value})")
            else:
                summing.append(f"{number} = add_in_any_order({number}, float64({value}))")
        if self.across:
            inner = ["for lane in range(lanes):", *indented(loop if apart else loop + summing)]
            inner += self._for_lanes(summing) if apart else []
            return [
                *rooms,
                *self._for_lanes(begin),
                "for i in range(count):",
                *indented(inner),
                *self._for_lanes(end),
            ]
        if not apart or not summing:
            return [*begin, "for i in range(count):", *indented(loop + summing), *end]
        return [
            *rooms,
            *begin,
            f"for begin in range(0, count, {BLOCK}):",
            f"    end = begin + {BLOCK}",
            "    end = end if end < count else count",
            "    for i in range(begin, end):",
            *indented(loop, 8),
            "    for i in range(begin, end):",
            *indented(summing, 8),
            *end,
        ]

    def _loaded(self, name: str, place: str, compute: str) -> str:
        return self.format.load.format(x=f"at_{name}[{place}]", compute=compute)

    def _stored(self, value: str) -> str:
        return self.format.store.format(x=value)


def _if_taken(value: str, otherwise: str) -> str:
    """A value of a row that takes part."""
    return f"({value} if taken[lane] != 0.0 else {otherwise})"


def _needed(stage: Stage, kept: Mapping[Symbol, str]) -> list[Symbol]:
    """The nodes that a pass computes or loads, where some are kept from an earlier one."""
    results = [node for _, node in stage.stores] + [r.args[0] for r in stage.reductions]
    return ordered(results, kept, elements_only=True)


def _loaded(stage: Stage, kept: Mapping[Symbol, str]) -> set[str]:
    return {n.detail for n in _needed(stage, kept) if n.op == "load"}
