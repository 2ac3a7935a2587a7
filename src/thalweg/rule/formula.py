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
from typing import Any

from thalweg.rule.derivative import gradients, simplified
from thalweg.rule.program import Stage, prologue_of, stage_of
from thalweg.rule.symbols import Graph, Symbol
from thalweg.rule.tracer import TracedHyperparameters

# What a program does with the elements' values and derivatives.
SUM, EACH, BACKWARD = "sum", "each", "backward"
UPSTREAM = "_upstream"  # the operand that holds what comes from above, in BACKWARD
FACTOR = "_factor"  # the option that every derivative is multiplied by, in SUM


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
    scalars: Callable[[Mapping[str, Any]], Sequence[float] | None] = field(repr=False)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.stage,)


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

    def _trace(
        self, kind: str, options: Mapping[str, Any], operands: Sequence[str], wanted: Sequence[str]
    ) -> FormulaProgram:
        graph = Graph()
        loads = {name: graph.load(name) for name in operands}
        h = TracedHyperparameters(self.name, graph, options, 1.0)
        value = self.function(**loads, h=h)
        by = gradients(value, [loads[name] for name in wanted])
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
        _, prologue, guards = prologue_of(stage.constants, {}, graph.guards, h._switches, h._inputs)

        def scalars(given: Mapping[str, Any]) -> Sequence[float] | None:
            try:
                constants, _, found = prologue(given, ())
            except (KeyError, IndexError, TypeError):
                return None
            return constants if found == guards else None

        names = tuple(dict.fromkeys((*stage.loads, *(name for name, _ in stores))))
        return FormulaProgram(f"{self.name}_{kind}", names, stage, scalars)
