"""How the source of a row kernel spells operands, constants and the numbers of a row."""

from thalweg.engine.backends.cpu.loops import indented
from thalweg.engine.formats import Plain, compute_type
from thalweg.rule.rows import Kind, RowProgram
from thalweg.rule.symbols import Level, Symbol

LANES = 128  # rows that a block has, where rows are neighbours in memory
IN_PLACE = "x"  # the operand that its derivative may overwrite


class RowSpelling:
    """The names in a kernel's source, and the loads and stores of its operands.

    In the source ``i`` is the place in the row, ``lane`` (across rows) the row within the block;
    ``c0`` is a constant in the kernel's type and ``d0`` the same in float64; ``r0`` is a number of
    the row.

    Args:
        program: the program that is printed.
        form: of all operands but indices.
        across: whether a loop runs across rows, not along them.
        in_place: whether the derivative by ``x`` overwrites x.
    """

    def __init__(self, program: RowProgram, form: Plain, across: bool, in_place: bool) -> None:
        self.program = program
        self.form = form
        self.across = across
        self.in_place = in_place
        self.compute = compute_type((form,))
        self.constants = {c: i for i, c in enumerate(program.constants)}
        self.numbers: dict[Symbol, str] = {}  # of the row, in float64
        self.indices = [n for n, kind in program.kinds.items() if kind is Kind.INDEX]

    def new_number(self, node: Symbol) -> str:
        """Name a number of the row, to be assigned to."""
        name = f"r{sum(n.op != 'index' for n in self.numbers)}"
        name = f"{name}[lane]" if self.across else name
        # Lanes hold numbers, so a condition is one that is not 0.
        self.numbers[node] = f"({name} != 0.0)" if self.across and node.is_condition else name
        return name

    def number(self, node: Symbol) -> str:
        """A constant or a number of the row, in float64."""
        if node.level is Level.SCALAR:
            return f"d{self.constants[node]}"
        return self.numbers[node]

    def element_at(self, operand: str) -> str:
        """Where the loop's element of an operand lies."""
        across = self.across and self.program.kinds[operand] is Kind.ELEMENT
        return "i * inner + lane" if across else "i"

    @property
    def row_at(self) -> str:
        """Where the number of an operand with one for each row lies."""
        return "lane" if self.across else "0"

    def load(self, operand: str, place: str, compute: str) -> str:
        return self.form.load.format(x=f"at_{operand}[{place}]", compute=compute)

    def store(self, operand: str, place: str, value: str) -> str:
        return f"at_{operand}[{place}] = {self.form.store.format(x=value)}"

    def unless_ignored(self, value: str, otherwise: str) -> str:
        """The value, or something else in a lane whose row takes no part."""
        if not (self.across and self.indices):
            return value  # along rows, a row that takes no part is skipped as a whole
        return f"({value} if taken[lane] != 0.0 else {otherwise})"

    def for_lanes(self, lines: list[str]) -> list[str]:
        """The lines for each row of the block."""
        if not self.across or not lines:
            return lines
        return ["for lane in range(lanes):", *indented(lines)]
