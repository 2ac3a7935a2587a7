"""A program as equations for people: ``exp_avg' = exp_avg + (1 - beta1) * (g - exp_avg)``.

A prime marks the value after the step. In a row of elements ``i`` is an element's place, and
``x[y]`` the element at place y.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import count

from thalweg.rule.operations import OPERATIONS
from thalweg.rule.program import Program, ordered
from thalweg.rule.symbols import Level, Symbol

_ATOM = 9  # binds tighter than any operator
_NEGATIVE = OPERATIONS["negative"].precedence


def equations(program: Program) -> list[tuple[str, str]]:
    """(name, formula) of each value the program stores, and of those it uses more than once."""
    stores = (*program.stages[-1].stores, *program.scalar_outputs, *program.fed)
    return equations_of([(f"{name}'", node) for name, node in stores])


def equations_of(named: Sequence[tuple[str, Symbol]]) -> list[tuple[str, str]]:
    """(name, formula) of each of these values, and of those that they use more than once.

    >>> from thalweg.rule.symbols import Graph
    >>> x = Graph().load("x")
    >>> equations_of([("value", (x + 1) * (x + 1)), ("d_x", 2 * (x + 1))])
    [('t1', 'x + 1'), ('value', 't1 * t1'), ('d_x', '2 * t1')]
    """
    nodes = ordered([node for _, node in named])
    uses = Counter(a for n in nodes for a in n.args)
    results: dict[Symbol, str] = {}
    for name, node in named:
        if node.args:
            results.setdefault(node, name)
    texts: dict[Symbol, tuple[str, int]] = {}
    taken = {name for name, _ in named} | {_formula(n, texts)[0] for n in nodes if not n.args}
    free = (name for name in map("t{}".format, count(1)) if name not in taken)
    lines: list[tuple[str, str]] = []
    for node in nodes:
        text, precedence = _formula(node, texts)
        own = results.get(node)
        if own is None and uses[node] > 1 and _deserves_a_name(node, text):
            own = next(free)
        if own is not None:
            lines.append((own, text))
            text, precedence = own, _ATOM
        texts[node] = (text, precedence)
    # A state that takes over another value as it is: prev' = g.
    lines += [(name, texts[node][0]) for name, node in named if texts[node][0] != name]
    return lines


def _deserves_a_name(node: Symbol, text: str) -> bool:
    """A value used twice: any per-element one, and scalars that take a while to read."""
    if node.level is Level.ELEMENT:
        return bool(node.args)
    return len(text) > 20


def _formula(node: Symbol, texts: dict[Symbol, tuple[str, int]]) -> tuple[str, int]:
    if node.op == "literal":
        value = node.value
        assert value is not None
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e6
        text = str(int(value)) if whole else repr(value)
        return text, _NEGATIVE if text.startswith("-") else _ATOM
    if node.op == "input":
        return str(node.detail).split(".")[1], _ATOM
    if node.op in ("load", "row", "index"):
        return str(node.detail), _ATOM
    if node.op == "pick":
        operand, index = (texts[argument][0] for argument in node.args)
        return f"{operand}[{index}]", _ATOM
    if node.op == "is_at":
        return f"i == {texts[node.args[0]][0]}", OPERATIONS["equal"].precedence
    if node.op == "largest":
        return f"largest({texts[node.args[0]][0]})", _ATOM
    if node.op == "reduce":
        of = {"all": ", all tensors", "group": ", the group's tensors", "unit": ", each unit"}
        over = of.get(node.detail, "")
        return f"sum({texts[node.args[0]][0]}{over})", _ATOM
    if node.op == "count":
        of = {"all": "all elements", "group": "the group's elements", "unit": "the unit's elements"}
        of["dimensions"] = "dimensions"
        return of.get(node.detail, "elements"), _ATOM
    if node.op == "not":
        text, inner = texts[node.args[0]]
        return f"~{text}" if inner == _ATOM else f"~({text})", _ATOM
    operation = OPERATIONS[node.op]
    precedence = operation.precedence or _ATOM
    arguments = []
    for place, argument in enumerate(node.args):
        text, inner = texts[argument]
        # At equal precedence the right side of - and / needs brackets, and the left side of **.
        least = precedence + (place == (0 if node.op == "power" else 1))
        if node.op in ("and", "or"):  # & and | bind tighter than Python's comparisons
            least = _ATOM
        if operation.precedence and inner < least:
            text = f"({text})"
        arguments.append(text)
    return operation.text.format(*arguments), precedence
