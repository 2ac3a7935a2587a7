"""Formulas of rows: one value for each row of the operands, traced with their derivatives.

Cross entropy is one. A row formula sums over the row and picks elements of it:

>>> from thalweg.rule.functions import logsumexp, pick
>>> def cross_entropy(x, y, h):
...     return logsumexp(x) - pick(x, y)
>>> formula = RowFormula(cross_entropy, y=Kind.INDEX)
>>> program = formula.program("sum", {"_factor": 1.0}, ["x", "y"], wanted=["x"])
>>> for stage in program.stages:
...     print([r.op for r in stage.reductions], [name for name, _ in stage.stores])
['largest'] []
['reduce'] []
[] ['_d_x']

The largest of the row is found in the first pass over it, the sum of exponentials in the second,
and the third stores the derivative.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from thalweg.rule.formula import (
    BACKWARD,
    EACH,
    SUM,
    UPSTREAM,
    Scalars,
    Traced,
    scalars_of,
    stores_of,
)
from thalweg.rule.program import Stage, ordered, stage_of
from thalweg.rule.symbols import Graph, Level, Symbol


class Kind(Enum):
    """What an operand has a number for."""

    ELEMENT = "element"  # each element of each row
    COLUMN = "column"  # each element, the same in every row: the weights of classes
    ROW = "row"  # each row
    INDEX = "index"  # each row: a place in it


ROW_WISE = (Kind.ROW, Kind.INDEX)
REDUCTIONS = ("reduce", "largest")


@dataclass(frozen=True, eq=False)
class RowProgram:
    """Passes over each row, for one setting of the switches.

    Attributes:
        name: the formula's.
        operands: every operand, those given first.
        kinds: what each has a number for.
        stages: the passes over a row's elements.
        between: the numbers of the row to compute before each pass, and after the last.
        row_stores: operands with a number for each row, and what is stored in them.
        value: the row's value, to sum up; None where it is not asked for.
        constants: the SCALAR nodes that all of this takes.
        scalars: their values for these options, in float64; None if the program does not hold for
            them.
    """

    name: str
    operands: tuple[str, ...]
    kinds: Mapping[str, Kind]
    stages: tuple[Stage, ...]
    between: tuple[tuple[Symbol, ...], ...]
    row_stores: tuple[tuple[str, Symbol], ...]
    value: Symbol | None
    constants: tuple[Symbol, ...]
    scalars: Scalars = field(repr=False)


class RowFormula(Traced[RowProgram]):
    """A function of rows, and the programs traced from it so far.

    Values, and derivatives from above, are one for each row.

    Args:
        function: ``function(x, y, ..., h)``; operands are given by the names of its parameters,
            and those with a default may be left out. Returns a number for each row.
        kinds: what the operands have a number for; each element, if not said.
    """

    def __init__(self, function: Callable[..., Any], **kinds: Kind) -> None:
        super().__init__(function)
        self.kinds = kinds
        self._kinds_of: dict[tuple[str, ...], tuple[Kind, ...]] = {}

    def kinds_of(self, operands: tuple[str, ...]) -> tuple[Kind, ...]:
        """What each of these operands has a number for."""
        found = self._kinds_of.get(operands)
        if found is None:
            found = tuple(self.kinds.get(name, Kind.ELEMENT) for name in operands)
            self._kinds_of[operands] = found
        return found

    def _symbols(self, operands: Sequence[str]) -> tuple[Graph, dict[str, Symbol]]:
        graph, kinds = Graph(scopes=("row",)), self.kinds_of(tuple(operands))
        if kinds.count(Kind.INDEX) > 1:
            raise TypeError(f"{self.name}: at most one operand may be an index")
        make = {Kind.ROW: graph.row, Kind.INDEX: graph.index}
        return graph, {
            name: make.get(kind, graph.load)(name)
            for name, kind in zip(operands, kinds, strict=True)
        }

    def _check(self, value: Any) -> None:
        if (
            not isinstance(value, Symbol)
            or value.level is not Level.REDUCED
            or value.is_condition
            or value.op == "index"
        ):
            raise TypeError(
                f"{self.name}: the formula must return one number for each row, got {value!r}; "
                "sum over the row"
            )

    def _trace(
        self, kind: str, options: Mapping[str, Any], operands: Sequence[str], wanted: Sequence[str]
    ) -> RowProgram:
        graph, h, value, by = self.expressions(options, operands, wanted)
        kinds = dict(zip(operands, self.kinds_of(tuple(operands)), strict=True))
        kinds |= {f"_d_{name}": kinds[name] for name in wanted}
        kinds |= {EACH: {"_value": Kind.ROW}, BACKWARD: {UPSTREAM: Kind.ROW}}.get(kind, {})
        stores = stores_of(kind, value, by, wanted, h, graph.row)
        results = [node for _, node in stores] + ([value] if kind == SUM else [])
        element_stores = [s for s in stores if kinds[s[0]] not in ROW_WISE]
        stages, between = _stages(results, element_stores, operands)
        used = [c for s in stages for c in s.constants] + [n for nodes in between for n in nodes]
        taken = used + [a for n in used for a in n.args] + results
        constants = [c for c in dict.fromkeys(taken) if c.level is Level.SCALAR]
        return RowProgram(
            name=f"{self.name}_{kind}",
            operands=tuple(kinds),
            kinds=kinds,
            stages=stages,
            between=between,
            row_stores=tuple(s for s in stores if kinds[s[0]] in ROW_WISE),
            value=value if kind == SUM else None,
            constants=tuple(constants),
            scalars=scalars_of(constants, graph, h),
        )


def _stages(
    results: Sequence[Symbol], stores: Sequence[tuple[str, Symbol]], operands: Sequence[str]
) -> tuple[tuple[Stage, ...], tuple[tuple[Symbol, ...], ...]]:
    """The passes that give these results, and the numbers of the row around each."""
    used = ordered(results)
    reductions = [n for n in used if n.op in REDUCTIONS]
    last = max([r.args[0].stage for r in reductions] + [n.stage for _, n in stores], default=-1)
    stages = []
    for k in range(last + 1):
        reduced = [r for r in reductions if r.args[0].stage == k]
        stored = stores if k == last else []
        nodes = [r.args[0] for r in reduced] + [node for _, node in stored]
        stages.append(stage_of(nodes, stored, reduced, operands))
    own = [n for n in used if n.level is Level.REDUCED and n.op not in REDUCTIONS]
    between = [tuple(n for n in own if n.stage == k) for k in range(last + 2)]
    return tuple(stages), tuple(between)
