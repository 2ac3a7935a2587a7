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

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

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


class HasScalars(Protocol):
    """A program, of which a formula needs to know for which options it holds."""

    @property
    def scalars(self) -> Scalars: ...


Program = TypeVar("Program", bound=HasScalars)


class Traced(ABC, Generic[Program]):
    """A function, and the programs traced from it so far.

    Args:
        function: ``function(x, y, ..., h)``; operands are given by the names of its parameters,
            and those with a default may be left out.
        name: for messages and generated files; the function's name by default.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.function = function
        self.name = name or str(getattr(function, "__name__", "formula"))
        self._programs: dict[tuple[Any, ...], list[Program]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def program(
        self,
        kind: str,
        options: Mapping[str, Any],
        operands: Sequence[str],
        wanted: Sequence[str] = (),
    ) -> Program:
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
        graph, given = self._symbols(operands)
        h = TracedHyperparameters(self.name, graph, options, 1.0)
        value = self.function(**given, h=h)
        self._check(value)
        return Expressions(graph, h, value, gradients(value, [given[name] for name in wanted]))

    @abstractmethod
    def _symbols(self, operands: Sequence[str]) -> tuple[Graph, dict[str, Symbol]]:
        """A graph, and a symbol in it for each operand."""

    def _check(self, value: Any) -> None:
        """Raise TypeError for a value that cannot be stored."""

    @abstractmethod
    def _trace(
        self, kind: str, options: Mapping[str, Any], operands: Sequence[str], wanted: Sequence[str]
    ) -> Program: ...


class Formula(Traced[FormulaProgram]):
    """An elementwise function, and the programs traced from it so far; see :class:`Traced`."""

    def _symbols(self, operands: Sequence[str]) -> tuple[Graph, dict[str, Symbol]]:
        graph = Graph()
        return graph, {name: graph.load(name) for name in operands}

    def _trace(
        self, kind: str, options: Mapping[str, Any], operands: Sequence[str], wanted: Sequence[str]
    ) -> FormulaProgram:
        graph, h, value, by = self.expressions(options, operands, wanted)
        stores = stores_of(kind, value, by, wanted, h, graph.load)
        sums = (graph.reduce(value, "tensor"),) if kind == SUM else ()
        order = (*operands, UPSTREAM)
        stage = stage_of([*(n for _, n in stores), *(r.args[0] for r in sums)], stores, sums, order)
        names = tuple(dict.fromkeys((*stage.loads, *(name for name, _ in stores))))
        scalars = scalars_of(stage.constants, graph, h)
        return FormulaProgram(f"{self.name}_{kind}", names, stage, scalars)


def stores_of(
    kind: str,
    value: Symbol,
    derivatives: Sequence[Symbol],
    wanted: Sequence[str],
    h: TracedHyperparameters,
    upstream: Callable[[str], Symbol],
) -> list[tuple[str, Symbol]]:
    """What a program of some kind stores.

    Args:
        kind: as for :meth:`Traced.program`.
        value: the formula's.
        derivatives: by the operands wanted.
        wanted: their names.
        h: holds FACTOR.
        upstream: makes the operand of what comes from above.
    """
    if kind == EACH:
        return [("_value", value)]
    factor = upstream(UPSTREAM) if kind == BACKWARD else getattr(h, FACTOR)
    with value.graph.rewritten(simplified):
        return [(f"_d_{n}", g * factor) for n, g in zip(wanted, derivatives, strict=True)]


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
