"""Symbols: the values that a rule is called with when it is traced, and the graph they record.

A symbol is a node of an expression. Every operator on it makes (or finds) another node; nothing is
computed on tensors. Three levels tell *when* a value is known, and so where it is computed:

========  =====================================================  ==========================
level     depends on                                             computed
========  =====================================================  ==========================
SCALAR    hyperparameters, scalar states, literals               once per step, in float64
REDUCED   a reduction over a tensor (``norm(p)``)                once per tensor and stage
ELEMENT   ``p``, ``g`` or a state tensor                         in the kernel
========  =====================================================  ==========================
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from thalweg.rule.operations import OPERATIONS

_PACKAGE = str(Path(__file__).parent)
Value = float | bool
# The scopes of sums that have parts of several tensors.
SEVERAL = ("group", "all")
Place = tuple[Any, ...]
Rewrite = Callable[[str, "tuple[Symbol, ...]"], "Symbol | None"]


class Level(IntEnum):
    """When a value is known; the level of a result is the highest of its arguments'."""

    SCALAR = 0
    REDUCED = 1
    ELEMENT = 2


class Symbol:
    """A node of the traced expression graph; see the module's docstring.

    Attributes:
        op: an operation's name, or one of ``literal``, ``input`` (a hyperparameter or scalar
            state), ``load`` (an operand), ``row`` and ``index`` (one that has a number, or a
            place in it, for each row), ``reduce`` and ``largest``, ``count`` (elements reduced
            over), ``pick`` and ``is_at`` (an element of a row by its index).
        args: the nodes it is computed from.
        detail: the literal's value, the input's or operand's name, the reduction's scope.
        place: of a sum over several tensors, and of their count: where in the rule it is asked for.
        level: when its value is known.
        stage: the first stage of the program in which its value can be had.
        value: a SCALAR's concrete value at tracing time, for ``if``; None at other levels.
        line: ``file.py:12`` of the rule that made it.
    """

    __slots__ = ("args", "detail", "graph", "level", "line", "op", "place", "stage", "value")

    # __eq__ builds a condition, so identity is what hashing and `in` on keys must mean.
    __hash__ = object.__hash__

    def __init__(
        self,
        graph: "Graph",
        op: str,
        args: "tuple[Symbol, ...]",
        detail: Any,
        level: Level,
        stage: int,
        value: Value | None,
        line: str,
        place: Place | None = None,
    ) -> None:
        self.graph = graph
        self.op = op
        self.args = args
        self.detail = detail
        self.level = level
        self.stage = stage
        self.value = value
        self.line = line
        self.place = place

    @property
    def is_of_units(self) -> bool:
        """Whether its value is another one for each unit of a tensor, known from sums."""
        seen, left = {self}, [self]  # a node may be an argument of many
        while left:
            node = left.pop()
            if node.op in ("reduce", "count"):
                if node.detail == "unit":
                    return True
            elif node.level is Level.REDUCED:
                left += (new := set(node.args) - seen)
                seen |= new
        return False

    @property
    def is_condition(self) -> bool:
        if self.op == "literal":
            return isinstance(self.value, bool)
        if self.op == "is_at":
            return True
        return self.op in OPERATIONS and OPERATIONS[self.op].condition

    def __repr__(self) -> str:
        detail = "" if self.detail is None else f" {self.detail}"
        return f"<{self.level.name.lower()} {self.op}{detail}, {self.line}>"

    def __bool__(self) -> bool:
        if self.level is Level.SCALAR:
            return self.graph.guard(self)
        kind = "a per-element value" if self.level is Level.ELEMENT else "a reduced value"
        raise TypeError(
            f"{_rule_line()}: an `if`, `and`, `or` or `not` on {kind}, which differs from element "
            "to element or is not known yet; write where(condition, a, b), and &, | or ~ "
            "between conditions"
        )

    def _no_number(self) -> NoReturn:
        raise TypeError(
            f"{_rule_line()}: float(), int() or a function of `math` on a symbol would freeze its "
            "value into the kernel; use the functions of thalweg.rule (sqrt, exp, log, ...)"
        )

    def __float__(self) -> float:
        self._no_number()

    def __int__(self) -> int:
        self._no_number()

    def __index__(self) -> int:
        self._no_number()

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> "Symbol":
        """Let a rule say ``torch.sqrt(x)`` where it could say ``sqrt(x)``."""
        from thalweg.rule import functions

        own = getattr(functions, function.__name__, None)
        if own is None:
            raise TypeError(
                f"{_rule_line()}: torch.{function.__name__} is not an operation of the rule "
                f"language; there are {', '.join(functions.__all__)}"
            )
        result: Symbol = own(*args, **(kwargs or {}))
        return result

    def __add__(self, other: Any) -> "Symbol":
        return self.graph.record("add", self, other)

    def __radd__(self, other: Any) -> "Symbol":
        return self.graph.record("add", other, self)

    def __sub__(self, other: Any) -> "Symbol":
        return self.graph.record("subtract", self, other)

    def __rsub__(self, other: Any) -> "Symbol":
        return self.graph.record("subtract", other, self)

    def __mul__(self, other: Any) -> "Symbol":
        return self.graph.record("multiply", self, other)

    def __rmul__(self, other: Any) -> "Symbol":
        return self.graph.record("multiply", other, self)

    def __truediv__(self, other: Any) -> "Symbol":
        return self.graph.record("divide", self, other)

    def __rtruediv__(self, other: Any) -> "Symbol":
        return self.graph.record("divide", other, self)

    def __pow__(self, other: Any) -> "Symbol":
        return self.graph.record("power", self, other)

    def __rpow__(self, other: Any) -> "Symbol":
        return self.graph.record("power", other, self)

    def __neg__(self) -> "Symbol":
        return self.graph.record("negative", self)

    def __abs__(self) -> "Symbol":
        return self.graph.record("abs", self)

    def __lt__(self, other: Any) -> "Symbol":
        return self.graph.record("less", self, other)

    def __le__(self, other: Any) -> "Symbol":
        return self.graph.record("less_equal", self, other)

    def __gt__(self, other: Any) -> "Symbol":
        return self.graph.record("less", other, self)

    def __ge__(self, other: Any) -> "Symbol":
        return self.graph.record("less_equal", other, self)

    def __eq__(self, other: object) -> "Symbol":  # type: ignore[override]
        return self.graph.record("equal", self, other)

    def __ne__(self, other: object) -> "Symbol":  # type: ignore[override]
        return self.graph.record("not_equal", self, other)

    def __and__(self, other: Any) -> "Symbol":
        return self.graph.record("and", self, other)

    __rand__ = __and__

    def __or__(self, other: Any) -> "Symbol":
        return self.graph.record("or", self, other)

    __ror__ = __or__

    def __invert__(self) -> "Symbol":
        return self.graph.record("not", self)


class Graph:
    """The nodes of one trace, each distinct expression once, and what was met on the way.

    Attributes:
        guards: the conditions that the rule branched on, with their truth.
        vetoes: sums over all tensors that have to be 0 for the step to be made.
        offers: what could be measured, by name.
        measured: the sums over the tensor that are wanted beside the results, by name.
        cleared: whether the gradient is to be 0 after the update.
    """

    def __init__(self, scopes: tuple[str, ...] = ("unit", "tensor", *SEVERAL)) -> None:
        self._scopes = scopes
        self._nodes: dict[tuple[Any, ...], Symbol] = {}
        self.guards: dict[Symbol, bool] = {}
        self.vetoes: list[Symbol] = []
        self.offers: dict[str, Any] = {}
        self.measured: dict[str, Symbol] = {}
        self.cleared = False
        self._turns: dict[Place, int] = {}
        self._rewrite: Rewrite | None = None
        self._line: str | None = None

    @contextmanager
    def rewritten(self, rewrite: Rewrite) -> Iterator[None]:
        """Within, an operation is first offered to ``rewrite``, which may have a node for it."""
        before, self._rewrite = self._rewrite, rewrite
        try:
            yield
        finally:
            self._rewrite = before

    @contextmanager
    def at_line(self, line: str) -> Iterator[None]:
        """Within, new nodes are said to come from this line of the rule."""
        before, self._line = self._line, line
        try:
            yield
        finally:
            self._line = before

    def record(self, op: str, *args: Any) -> Symbol:
        """The node for an operation on symbols and Python numbers."""
        symbols = tuple(self._lift(a) for a in args)
        _check_kinds(op, symbols)
        if self._rewrite and (known := self._rewrite(op, symbols)) is not None:
            return known
        level = max(s.level for s in symbols)
        stage = max(s.stage for s in symbols)
        if op == "power" and level is Level.ELEMENT:
            exponent = symbols[1]
            if exponent.op == "literal" and exponent.value == 2:
                return self.record("multiply", symbols[0], symbols[0])
        value = None
        if level is Level.SCALAR:
            value = OPERATIONS[op].scalar(*(s.value for s in symbols))
        return self._intern(op, symbols, None, level, stage, value)

    def literal(self, value: Value) -> Symbol:
        return self._intern("literal", (), value, Level.SCALAR, 0, value)

    def input(self, name: str, value: float) -> Symbol:
        """A number the optimizer supplies at each step: ``h.lr`` or a scalar state ``s.eta``."""
        return self._intern("input", (), name, Level.SCALAR, 0, value)

    def load(self, operand: str) -> Symbol:
        """An element of ``p``, ``g`` or a state tensor, as it was before the step."""
        return self._intern("load", (), operand, Level.ELEMENT, 0, None)

    def reduce(self, x: Symbol, scope: str) -> Symbol:
        """The sum of ``x`` over a tensor, a part or several of them, known one stage later.

        Programs of other options have a sum over several tensors in common with this one if the
        same call in the rule asks for it. What is summed may be another expression there: a group
        without weight decay sums g * g where another sums (g + weight_decay * p) ** 2.
        """
        if scope not in self._scopes:
            raise ValueError(
                f"{_rule_line()}: a sum over {scope!r} is not known here; over must be one of "
                f"{', '.join(map(repr, self._scopes))}"
            )
        place = self._next_place() if scope in SEVERAL else None
        return self._intern("reduce", (x,), scope, Level.REDUCED, x.stage + 1, None, place)

    def tensor_sum(self, x: Symbol) -> Symbol:
        """The sum of x over a tensor, or one over several that x has been asked for already.

        Of the latter each tensor's part is known, too.
        """
        for node in self._nodes.values():
            if node.op == "reduce" and node.args[0] is x and node.detail in SEVERAL:
                return node
        return self.reduce(x, "tensor")

    def count(self, scope: str, place: Place | None = None) -> Symbol:
        """How many elements a sum of that scope runs over; ``place``: that sum's, over several.

        Of the scope "dimensions", how many dimensions the tensor has.
        """
        known_from = 0 if scope == "row" else 1
        return self._intern("count", (), scope, Level.REDUCED, known_from, None, place)

    def _next_place(self) -> Place:
        """Where the rule stands, and how often it has stood there before.

        The place is the chain of calls from the rule to here, each by its file and instruction.
        """
        calls: list[Any] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name != "trace":
            code = frame.f_code
            if not code.co_filename.startswith(_PACKAGE):
                calls.append((code.co_filename, code.co_firstlineno, frame.f_lasti))
            frame = frame.f_back
        place = tuple(calls)
        turn = self._turns[place] = self._turns.get(place, 0) + 1
        return (*place, turn)

    def row(self, operand: str) -> Symbol:
        """An operand that has one number for each row."""
        return self._intern("row", (), operand, Level.REDUCED, 0, None)

    def index(self, operand: str) -> Symbol:
        """An operand that has a place in the row for each row."""
        return self._intern("index", (), operand, Level.REDUCED, 0, None)

    def largest(self, x: Symbol) -> Symbol:
        """The largest ``x`` of a row, known one stage later."""
        self._check_rows("largest")
        if x.level is not Level.ELEMENT:
            return x
        return self._intern("largest", (x,), None, Level.REDUCED, x.stage + 1, None)

    def pick(self, x: Symbol, index: Any) -> Symbol:
        """The element of an operand at an index of the row."""
        self._check_index("pick", index)
        if x.op != "load":
            raise TypeError(
                f"{_rule_line()}: pick takes an operand as it is, got {x!r}; pick first and "
                "compute with what was picked"
            )
        return self._intern("pick", (x, index), None, Level.REDUCED, 0, None)

    def is_at(self, index: Any) -> Symbol:
        """Whether an element is the one at an index of the row."""
        self._check_index("is_at", index)
        return self._intern("is_at", (index,), None, Level.ELEMENT, 0, None)

    def _check_index(self, word: str, index: Any) -> None:
        self._check_rows(word)
        if not isinstance(index, Symbol) or index.op != "index":
            raise TypeError(
                f"{_rule_line()}: {word} takes an operand that is an index, as it is, got {index!r}"
            )

    def _check_rows(self, word: str) -> None:
        if "row" not in self._scopes:
            raise ValueError(f"{_rule_line()}: {word} is for losses of rows; there are none here")

    def guard(self, condition: Symbol) -> bool:
        """The concrete truth of a SCALAR, remembered: the trace holds only while it stays so."""
        truth = bool(condition.value)
        self.guards[condition] = truth
        return truth

    def _lift(self, x: Any) -> Symbol:
        if isinstance(x, Symbol):
            if x.graph is not self:
                raise TypeError(f"{_rule_line()}: a symbol of another rule's trace is used here")
            return x
        if isinstance(x, (bool, int, float)):
            return self.literal(x if isinstance(x, bool) else float(x))
        raise TypeError(
            f"{_rule_line()}: {type(x).__name__} {x!r} in a rule; only p, g, the states s, the "
            "hyperparameters h and Python numbers can be computed with"
        )

    def _intern(
        self,
        op: str,
        args: tuple[Symbol, ...],
        detail: Any,
        level: Level,
        stage: int,
        value: Value | None,
        place: Place | None = None,
    ) -> Symbol:
        # repr keeps 0.0 and -0.0 apart and makes NaN equal to itself; type, True and 1.0.
        key = (op, tuple(id(a) for a in args), type(detail), repr(detail), place)
        node = self._nodes.get(key)
        if node is None:
            line = self._line or _rule_line()
            node = Symbol(self, op, args, detail, level, stage, value, line, place)
            self._nodes[key] = node
        return node


def _check_kinds(op: str, symbols: tuple[Symbol, ...]) -> None:
    """Conditions go where conditions are meant, numbers where numbers are."""
    conditions = [s.is_condition for s in symbols]
    if op in ("and", "or", "not"):
        wanted = [True] * len(symbols)
    elif op == "where":
        wanted = [True, False, False]
    else:
        wanted = [False] * len(symbols)
    for symbol, is_condition, want in zip(symbols, conditions, wanted, strict=True):
        if is_condition != want:
            expected = "a condition (a comparison)" if want else "a number, not a condition"
            raise TypeError(f"{_rule_line()}: {op} takes {expected} here, got {symbol!r}")


def _rule_line() -> str:
    """``file.py:12`` of the innermost caller outside this package: the rule's own line."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if frame is None:
        return "<rule>"
    return f"{printable(Path(frame.f_code.co_filename).name)}:{frame.f_lineno}"


def printable(text: str) -> str:
    """A text that a comment of generated source can hold: one line, and no halves of characters."""
    return "".join(c if c.isprintable() else "?" for c in text)
