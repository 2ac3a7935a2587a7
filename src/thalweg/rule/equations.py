"""A program as equations for people: ``exp_avg' = exp_avg + (1 - beta1) * (g - exp_avg)``.

A prime marks the value after the step.
"""

from collections import Counter

from thalweg.rule.operations import OPERATIONS
from thalweg.rule.program import Program, ordered
from thalweg.rule.symbols import Level, Symbol

_ATOM = 9  # binds tighter than any operator
_NEGATIVE = OPERATIONS["negative"].precedence


def equations(program: Program) -> list[tuple[str, str]]:
    """(name, formula) of each value the program stores, and of those it uses more than once."""
    stores = (*program.stages[-1].stores, *program.scalar_outputs)
    nodes = ordered([node for _, node in stores])
    uses = Counter(a for n in nodes for a in n.args)
    stored: dict[Symbol, str] = {}
    for name, node in stores:
        if node.args:
            stored.setdefault(node, f"{name}'")
    texts: dict[Symbol, tuple[str, int]] = {}
    lines: list[tuple[str, str]] = []
    for node in nodes:
        text, precedence = _formula(node, texts)
        named = stored.get(node)
        if named is None and uses[node] > 1 and _deserves_a_name(node, text):
            named = f"t{sum(name.startswith('t') for name, _ in lines) + 1}"
        if named is not None:
            lines.append((named, text))
            text, precedence = named, _ATOM
        texts[node] = (text, precedence)
    # A state that takes over another value as it is: prev' = g.
    lines += [(f"{n}'", texts[v][0]) for n, v in stores if texts[v][0] != f"{n}'"]
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
    if node.op == "load":
        return str(node.detail), _ATOM
    if node.op == "reduce":
        over = ", all tensors" if node.detail == "all" else ""
        return f"sum({texts[node.args[0]][0]}{over})", _ATOM
    if node.op == "count":
        return ("elements" if node.detail == "tensor" else "all elements"), _ATOM
    operation = OPERATIONS[node.op]
    precedence = operation.precedence or _ATOM
    arguments = []
    for place, argument in enumerate(node.args):
        text, inner = texts[argument]
        # At equal precedence the right side of - and / needs brackets, and the left side of **.
        least = precedence + (place == (0 if node.op == "power" else 1))
        if operation.precedence and inner < least:
            text = f"({text})"
        arguments.append(text)
    return operation.text.format(*arguments), precedence
