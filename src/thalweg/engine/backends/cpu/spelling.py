"""How the operations of a program are spelled in a kernel."""

from collections.abc import Sequence

from thalweg.rule.symbols import Symbol

_SPELLED = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "negative": "-{0}",
    "power": "math.pow({0}, {1})",
    "held": "{0}",
    "abs": "abs({0})",
    "sqrt": "math.sqrt({0})",
    "exp": "math.exp({0})",
    "log": "math.log({0})",
    "log1p": "math.log1p({0})",
    "expm1": "math.expm1({0})",
    "tanh": "math.tanh({0})",
    "sigmoid": "one / (one + math.exp(-{0}))",
    "atan": "math.atan({0})",
    "sign": "(one if {0} > zero else (-one if {0} < zero else zero))",
    "maximum": "({0} if ({0} > {1}) | ({0} != {0}) else {1})",
    "minimum": "({0} if ({0} < {1}) | ({0} != {0}) else {1})",
    "where": "({1} if {0} else {2})",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "not": "not {0}",
}
# Functions of elementary.py, for kernels that compute in float32: a library's keep a loop scalar.
ELEMENTARY = ("atan", "exp", "expm1", "log", "log1p", "sigmoid", "tanh")
SPELLED_IN = {
    "float64": _SPELLED,
    "float32": _SPELLED | {name: f"{name}({{0}})" for name in ELEMENTARY},
}
# What log1p of a number between 0 and 1 becomes among them.
SHORTER = "log1p_of_unit"


def spelled(node: Symbol, compute: str, arguments: Sequence[str]) -> str:
    """One operation on arguments of these names, in a kernel that computes in this type."""
    if node.op == "log1p" and compute == "float32":
        (x,) = node.args
        if x.op == "exp" and _is_at_most_zero(x.args[0]):
            return f"{SHORTER}({arguments[0]})"
    return SPELLED_IN[compute][node.op].format(*arguments)


def _is_at_most_zero(x: Symbol) -> bool:
    """Whether x is -|y|, or -y where y is above 0 and else y; both may be NaN."""
    if x.op == "negative":
        return x.args[0].op == "abs"
    if x.op != "where":
        return False
    above, a, b = x.args
    return (
        above.op in ("less", "less_equal")
        and above.args[0].op == "literal"
        and above.args[0].value == 0
        and above.args[1] is b
        and a.op == "negative"
        and a.args[0] is b
    )
