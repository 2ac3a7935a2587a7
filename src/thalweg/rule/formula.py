"""Formulas: elementwise functions of several tensors, traced with their derivatives.

A loss is one. It is plain Python on its operands and the options ``h``, and returns a number for
each element:

>>> def squared_error(x, y, h):
...     return (x - y) * (x - y)
>>> formula = Formula(squared_error)
>>> program = formula.program(SUM, {FACTOR: 1.0}, ["x", "y"], wanted=["x"])
>>> program.stage.loads, [name for name, _ in program.stage.stores]
(('x', 'y'), ['_d_x'])
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from thalweg.rule.derivative import gradients, simplified
from thalweg.rule.program import Stage, prologue_of, stage_of
from thalweg.rule.symbols import Graph, Symbol
from thalweg.rule.tracer import TracedHyperparameters

# What a program does with the elements' values and derivatives.
SUM, EACH, BACKWARD = "sum", "each", "backward"
UPSTREAM = "_upstream"  # the operand that holds what comes from above, in BACKWARD
FACTOR = "_factor"  # the option that every derivative is multiplied by, in SUM


# The constants of a program for some options, in float64; None if it does not hold for them.
Scalars = Callable[[Mapping[str, Any]], Sequence[float] | None]


@dataclass(frozen=True, eq=False)
class FormulaProgram:
    """One pass over the elements, for one setting of the switches.

    Attributes:
        name: the formula's.
        operands: every operand, those read first.
        stage: what is done with each element.
        scalars: the stage's constants for these options, in float64; None if the program does not
            hold for them.
    """

    name: str
    operands: tuple[str, ...]
    stage: Stage
    scalars: Scalars = field(repr=False)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.stage,)


class Expressions(NamedTuple):
    """What a formula becomes when it is called with symbols."""

    graph: Graph
    h: TracedHyperparameters
    value: Symbol
    derivatives: Sequence[Symbol]


class Formula:
    """An elementwise function, and the programs traced from it so far.

    Args:
        function: ``function(x, y, ..., h)``; operands are given by the names of its parameters,
            and those with a default may be left out.
        name: for messages and generated files; the function's name by default.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.function = function
        self.name = name or str(getattr(function, "__name__", "formula"))
        self._programs: dict[tuple[Any, ...], list[FormulaProgram]] = {}

    def __repr__(self) -> str:
        return f"Formula({self.name})"

    def program(
        self,
        kind: str,
        options: Mapping[str, Any],
        operands: Sequence[str],
        wanted: Sequence[str] = (),
    ) -> FormulaProgram:
        """The program for these options, traced at most once for each setting of the switches.

        Args:
            kind: ``"sum"`` sums the values up and stores the derivatives by the operands wanted,
                each times the option ``FACTOR``; ``"each"`` stores the values; ``"backward"``
                stores the derivatives times the operand ``_upstream``.
            options: what ``h`` holds.
            operands: the operands given.
            wanted: the operands to differentiate by; stored as ``_d_`` and their name.
        """
        programs = self._programs.setdefault((kind, *operands, None, *wanted), [])
        for program in programs:
            if program.scalars(options) is not None:
                return program
        program = self._trace(kind, options, operands, wanted)
        programs.append(program)
        return program

    def expressions(
        self, options: Mapping[str, Any], operands: Sequence[str], wanted: Sequence[str]
    ) -> Expressions:
        """The value and its derivatives by the operands wanted, newly traced."""
        graph = Graph()
        loads = {name: graph.load(name) for name in operands}
        h = TracedHyperparameters(self.name, graph, options, 1.0)
        value = self.function(**loads, h=h)
        return Expressions(graph, h, value, gradients(value, [loads[name] for name in wanted]))

    def _trace(
        self, kind: str, options: Mapping[str, Any], operands: Sequence[str], wanted: Sequence[str]
    ) -> FormulaProgram:
        graph, h, value, by = self.expressions(options, operands, wanted)
        sums: tuple[Symbol, ...] = ()
        if kind == EACH:
            stores = [("_value", value)]
        else:
            factor = graph.load(UPSTREAM) if kind == BACKWARD else getattr(h, FACTOR)
            with graph.rewritten(simplified):
                stores = [(f"_d_{n}", g * factor) for n, g in zip(wanted, by, strict=True)]
        if kind == SUM:
            sums = (graph.reduce(value, "tensor"),)
        order = (*operands, UPSTREAM)
        stage = stage_of([*(n for _, n in stores), *(r.args[0] for r in sums)], stores, sums, order)
        names = tuple(dict.fromkeys((*stage.loads, *(name for name, _ in stores))))
        scalars = scalars_of(stage.constants, graph, h)
        return FormulaProgram(f"{self.name}_{kind}", names, stage, scalars)


def scalars_of(constants: Sequence[Symbol], graph: Graph, h: TracedHyperparameters) -> Scalars:
    """The function that computes these SCALAR nodes from options, and checks the guards met."""
    _, prologue, guards = prologue_of(constants, {}, graph.guards, h._switches, h._inputs)

    def scalars(given: Mapping[str, Any]) -> Sequence[float] | None:
        try:
            found, _, truths = prologue(given, ())
        except (KeyError, IndexError, TypeError):
            return None
        return found if truths == guards else None

    return scalars
