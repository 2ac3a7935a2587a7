"""Derivatives of traced expressions: reverse mode over the graph, giving nodes of the same graph.

What the expression already computes is used again, not computed anew: the derivative of
``exp(-abs(x))`` holds the same ``exp`` node. Derivatives are expressions like any other, so they
have derivatives.

>>> from thalweg.rule.symbols import Graph
>>> graph = Graph()
>>> x, y = graph.load("x"), graph.load("y")
>>> error = x - y
>>> by_x, by_y = gradients(error * error, [x, y])
>>> (by_x.op, [a is error for a in by_x.args]), by_y.op, by_y.args[0] is by_x
(('add', [True, True]), 'negative', True)

A value may be one of a row: then it depends on elements through sums over the row, and on numbers
of the row itself. What reaches such a number from the elements is summed over the row again.

Where a function has a corner, its derivative is the one torch.autograd has for the same function of
tensors: 0 for ``abs`` at 0, a half to each side of ``maximum`` at a tie, all of it for a tensor
that equals the number it is clamped to. At one place it differs: what ``where``, ``maximum`` and
``minimum`` did not choose contributes nothing, even where its own derivative is infinite or NaN
(``where(x > 0, log(x), 0)`` at 0 has the derivative 0; torch multiplies 0 by inf).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thalweg.rule.functions import log, sign, sum, where
from thalweg.rule.operations import OPERATIONS
from thalweg.rule.program import ordered
from thalweg.rule.symbols import Level, Symbol


@dataclass(frozen=True)
class Selected:
    """A derivative that holds where a condition does, and is 0 elsewhere whatever the value."""

    condition: Symbol
    value: Symbol


# The derivative by an argument, from that by the operation's result (g), the result (y) and the
# arguments. None: zero everywhere.
Row = Callable[..., "Symbol | Selected | None"]


def _power_base(g: Symbol, y: Symbol, a: Symbol, b: Symbol) -> Selected:
    return Selected(b != 0, g * (b * a ** (b - 1)))


def _power_exponent(g: Symbol, y: Symbol, a: Symbol, b: Symbol) -> Selected:
    return Selected(~((a == 0) & (b >= 0)), g * (y * log(a)))


def _chosen(g: Symbol, y: Symbol, other: Symbol, lower: Symbol, upper: Symbol) -> Selected:
    """Of the argument that was chosen over the other if lower <= upper (one is it, one the other).

    NaN goes to both of two tensors, and to no tensor that is clamped to a number.
    """
    if other.level is Level.SCALAR:
        return Selected(lower <= upper, g)
    a, b = y.args
    return Selected(~(upper < lower), where(a == b, g / 2, g))


# One row for each operation, with one function for each argument; None: not differentiable.
DERIVATIVES: dict[str, tuple[Row, ...] | None] = {
    "or": None,
    "and": None,
    "not": None,
    "less": None,
    "less_equal": None,
    "equal": None,
    "not_equal": None,
    "add": (lambda g, y, a, b: g, lambda g, y, a, b: g),
    "subtract": (lambda g, y, a, b: g, lambda g, y, a, b: -g),
    "multiply": (lambda g, y, a, b: g * b, lambda g, y, a, b: g * a),
    "divide": (lambda g, y, a, b: g / b, lambda g, y, a, b: -g * (y / b)),
    "negative": (lambda g, y, a: -g,),
    "held": (lambda g, y, a: None,),
    "stored": (lambda g, y, a: g,),
    "power": (_power_base, _power_exponent),
    "abs": (lambda g, y, a: g * sign(a),),
    "sqrt": (lambda g, y, a: g / (2 * y),),
    "exp": (lambda g, y, a: g * y,),
    "log": (lambda g, y, a: g / a,),
    "log1p": (lambda g, y, a: g / (a + 1),),
    "expm1": (lambda g, y, a: g * (y + 1),),
    "tanh": (lambda g, y, a: g * (1 - y * y),),
    "sigmoid": (lambda g, y, a: g * (1 - y) * y,),
    "atan": (lambda g, y, a: g / (1 + a * a),),
    "sign": (lambda g, y, a: None,),
    "maximum": (
        lambda g, y, a, b: _chosen(g, y, other=b, lower=b, upper=a),
        lambda g, y, a, b: _chosen(g, y, other=a, lower=a, upper=b),
    ),
    "minimum": (
        lambda g, y, a, b: _chosen(g, y, other=b, lower=a, upper=b),
        lambda g, y, a, b: _chosen(g, y, other=a, lower=b, upper=a),
    ),
    "where": (
        lambda g, y, c, a, b: None,
        lambda g, y, c, a, b: Selected(c, g),
        lambda g, y, c, a, b: Selected(~c, g),
    ),
}

# The same for what a number of the row is made of.
OF_ROWS: dict[str, tuple[Row, ...] | None] = {
    "reduce": (lambda g, y, a: g,),
    "largest": (lambda g, y, a: Selected(a == y, g / sum(where(a == y, 1.0, 0.0), over="row")),),
    "pick": (lambda g, y, a, index: Selected(g.graph.is_at(index), g), lambda *_: None),
    "is_at": None,
}


def gradients(value: Symbol, wrt: Sequence[Symbol]) -> list[Symbol]:
    """The partial derivatives of an expression of an element, or of a row.

    d value / d x = sum over the uses u of x of (d value / d u) · (d u / d x), from the value
    backwards, each node once.

    Args:
        value: a number of any level; of interest where it is an element's or a row's.
        wrt: the nodes to differentiate by: loads, numbers of a row, or ELEMENT nodes on the way to
            the value.

    Returns:
        One node for each of ``wrt``, the literal 0 where the value does not depend on it.

    Raises:
        TypeError: the value is a condition, or one of ``wrt`` is no such node.
        ValueError: the value depends on one of ``wrt`` through a sum over a tensor, whose
            derivative is not elementwise.

    Source: Griewank and Walther, "Evaluating Derivatives", 2nd edition, 2008, section 3.2.

    >>> from thalweg.rule.symbols import Graph
    >>> x = Graph().load("x")
    >>> (dx,) = gradients(log(x), [x])
    >>> dx.op, [a.detail for a in dx.args]
    ('divide', [1.0, 'x'])
    """
    graph = value.graph
    if value.is_condition:
        raise TypeError(f"gradients: value is a condition, {value!r}; differentiate a number")
    for x in wrt:
        if (x.level is not Level.ELEMENT and x.op != "row") or x.is_condition:
            raise TypeError(
                f"gradients: wrt holds {x!r}; the derivative is by numbers that differ from "
                "element to element, such as loads"
            )
    nodes = _depending(value, set(wrt))
    parts: dict[Symbol, _Parts] = {node: {} for node in (*nodes, *wrt)}
    with graph.rewritten(simplified):
        if value in parts:
            parts[value][None] = graph.literal(1.0)
        for node in reversed(nodes):
            if node.args and parts[node]:
                with graph.at_line(node.line):
                    _propagate(node, parts)
        with graph.at_line(value.line):
            return [_total(parts[x]) if parts[x] else graph.literal(0.0) for x in wrt]


# The derivative of the value by one node while it is summed up: from conditions (None: always) to
# the sum of what reaches the node where they hold.
_Parts = dict[Symbol | None, Symbol]


def _depending(value: Symbol, wrt: set[Symbol]) -> list[Symbol]:
    """The nodes between ``wrt`` and the value, arguments before users."""
    found: dict[Symbol, None] = {}
    for node in ordered([value]):
        if node in wrt or any(a in found for a in node.args):
            if node.op == "reduce" and node.detail != "row":
                raise ValueError(
                    f"{node.line}: gradients through a sum over a tensor (sum, mean, norm) are not "
                    "elementwise; differentiate the expression that is summed"
                )
            found[node] = None
    return list(found)


def _propagate(node: Symbol, parts: dict[Symbol, _Parts]) -> None:
    """Hand a node's derivative on to its arguments."""
    rows = DERIVATIVES[node.op] if node.op in DERIVATIVES else OF_ROWS[node.op]
    assert rows is not None  # no row hands anything on to a condition
    condition, g = _combined(parts[node])
    for argument, row in zip(node.args, rows, strict=True):
        if argument not in parts:
            continue
        part = row(g, node, *node.args)
        if part is None:
            continue
        reached = condition
        if isinstance(part, Selected):
            reached, part = _both(condition, part.condition), part.value
        if argument.level is Level.REDUCED and node.level is Level.ELEMENT:
            whole = part if reached is None else where(reached, part, 0.0)
            reached, part = None, _summed(whole)
        _add(parts[argument], reached, part)


def _summed(x: Symbol) -> Symbol:
    """The sum over the row, also of a number of the row itself."""
    graph = x.graph
    return graph.reduce(x, "row") if x.level is Level.ELEMENT else x * graph.count("row")


def _both(a: Symbol | None, b: Symbol) -> Symbol:
    return b if a is None else a & b


def _add(parts: _Parts, condition: Symbol | None, g: Symbol) -> None:
    if condition is not None and condition.op == "literal":
        if not condition.value:
            return
        condition = None
    parts[condition] = parts[condition] + g if condition in parts else g


def _combined(parts: _Parts) -> tuple[Symbol | None, Symbol]:
    """The condition under which any part reaches the node (None: always), and their sum there."""
    if len(parts) == 1:
        return next(iter(parts.items()))
    reached: Symbol | None = None
    if None not in parts:
        conditions = [c for c in parts if c is not None]
        if not any(~c in parts for c in conditions):
            reached = conditions[0]
            for c in conditions[1:]:
                reached = reached | c
    return reached, _total(parts)


def _total(parts: _Parts) -> Symbol:
    """The sum of the parts, each 0 where its condition does not hold."""
    total = parts.get(None)
    for c, g in parts.items():
        if c is None or (c.op == "not" and c.args[0] in parts):
            continue
        term = where(c, g, parts.get(~c, 0.0))  # the other arm of the same choice, if it has one
        total = term if total is None else total + term
    assert total is not None
    return total


def simplified(op: str, args: tuple[Symbol, ...]) -> Symbol | None:
    """The same value by a shorter expression, or None.

    Only what holds for every IEEE number: ``x * 1`` is x, while ``x * 0`` may be NaN and ``x + 0``
    turns -0 into 0.
    """
    graph = args[0].graph
    if all(a.op == "literal" for a in args):
        return graph.literal(OPERATIONS[op].scalar(*(a.value for a in args)))
    rule = _SIMPLIFIED.get(op)
    return rule(*args) if rule else None


def _is(x: Symbol, value: float) -> bool:
    return x.op == "literal" and x.value == value


def _negated(x: Symbol) -> Symbol | None:
    """y where x is -y."""
    return x.args[0] if x.op == "negative" else None


def _simple_add(a: Symbol, b: Symbol) -> Symbol | None:
    if (minus_b := _negated(b)) is not None:
        return a - minus_b
    minus_a = _negated(a)
    return None if minus_a is None else b - minus_a


def _simple_multiply(a: Symbol, b: Symbol) -> Symbol | None:
    for x, factor in ((a, b), (b, a)):
        if _is(factor, 1.0):
            return x
        if _is(factor, -1.0):
            return -x
    minus_a = _negated(a)  # outwards, where a sum can take it up
    return None if minus_a is None else -(minus_a * b)


def _simple_divide(a: Symbol, b: Symbol) -> Symbol | None:
    if _is(b, 1.0):
        return a
    if _is(b, -1.0):
        return -a
    minus_a = _negated(a)
    return None if minus_a is None else -(minus_a / b)


def _simple_power(a: Symbol, b: Symbol) -> Symbol | None:
    return a if _is(b, 1.0) else a.graph.literal(1.0) if _is(b, 0.0) else None


def _simple_where(condition: Symbol, a: Symbol, b: Symbol) -> Symbol | None:
    if a is b:
        return a
    return where(condition.args[0], b, a) if condition.op == "not" else None


def _simple_logic(a: Symbol, b: Symbol) -> Symbol | None:
    return a if a is b else None


_SIMPLIFIED: dict[str, Callable[..., Symbol | None]] = {
    "add": _simple_add,
    "multiply": _simple_multiply,
    "divide": _simple_divide,
    "power": _simple_power,
    "negative": _negated,
    "where": _simple_where,
    "and": _simple_logic,
    "or": _simple_logic,
    "not": lambda a: a.args[0] if a.op == "not" else None,
}
