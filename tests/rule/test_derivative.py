"""Derivatives of traced expressions: torch.autograd's, from as few nodes as can be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.engine.running import states_after
from thalweg.rule import Rule, abs, clip, exp, functions, log, maximum, minimum, norm, sqrt, where
from thalweg.rule.derivative import DERIVATIVES, gradients
from thalweg.rule.equations import equations
from thalweg.rule.functions import softplus
from thalweg.rule.operations import OPERATIONS
from thalweg.rule.program import ordered
from thalweg.rule.symbols import Graph, Level, Symbol

INF, NAN = math.inf, math.nan
Expression = Callable[..., Any]

# ------------------------------------------------------------------------------- running a graph


def on_tensors(node: Symbol, *args: Tensor) -> Tensor:
    result: Tensor = OPERATIONS[node.op].tensor(*args)
    return result


def evaluate(
    results: Sequence[Symbol],
    loads: Mapping[str, Tensor],
    apply: Callable[..., Tensor] = on_tensors,
) -> list[Tensor]:
    """The values of some nodes; by default with the operations' own forms for tensors."""
    values: dict[Symbol, Tensor] = {}
    for node in ordered(results):
        if node.op == "load":
            values[node] = loads[node.detail]
        elif not node.args:  # a tensor, since torch rounds twice in 3.0 / tensor
            truth = isinstance(node.value, bool)
            values[node] = torch.tensor(node.value, dtype=torch.bool if truth else torch.float64)
        else:
            values[node] = apply(node, *(values[a] for a in node.args))
    shape = next(iter(loads.values()))
    return [values[r].expand_as(shape) for r in results]


def traced(f: Expression, names: Sequence[str]) -> tuple[Symbol, list[Symbol]]:
    graph = Graph()
    loads = [graph.load(name) for name in names]
    return f(*loads), loads


def ours(f: Expression, *tensors: Tensor) -> list[Tensor]:
    """The derivatives of an elementwise function of tensors, from its graph."""
    names = [f"x{k}" for k in range(len(tensors))]
    value, loads = traced(f, names)
    return evaluate(gradients(value, loads), dict(zip(names, tensors, strict=True)))


def torchs(f: Expression, *tensors: Tensor) -> list[Tensor]:
    """The same from torch.autograd, which runs the function on tensors."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    value = f(*leaves)
    if not value.requires_grad:
        return [torch.zeros_like(t) for t in tensors]
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)]


def double(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def power(x: Any, k: float) -> Any:
    """x ** k; of tensors by pow, since torch has roots of its own for k = -0.5 and 0.5."""
    return torch.pow(x, torch.full_like(x, k)) if isinstance(x, Tensor) else x**k


def grid(values: Sequence[float], arity: int) -> list[Tensor]:
    """Every tuple of the values, as one tensor for each place."""
    pairs = double(list(itertools.product(values, repeat=arity)))
    return [column.contiguous() for column in pairs.unbind(1)]


def assert_same(
    got: Sequence[Tensor], wanted: Sequence[Tensor], rtol: float = 0.0, atol: float = 0.0
) -> None:
    """Equal, infinities and NaN in the same places."""
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True)


# --------------------------------------------------------------------------------- one operation

DENSE = [x / 8 for x in range(-40, 41)]
VALUES = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, -3.0, 1 / 3, INF, -INF, NAN, 5e-324, -5e-324]
VALUES += [1e-300, -1e-300, 1e-20, 1.7e308, -1.7e308, 700.0, -700.0, 745.0, 40.0, -40.0, 0.99]
ULP = 2.0**-52


def test_every_operation_has_a_row_with_a_derivative_for_each_argument() -> None:
    assert DERIVATIVES.keys() == OPERATIONS.keys()
    for name, operation in OPERATIONS.items():
        rows = DERIVATIVES[name]
        assert (rows is None) == operation.condition, name
        if rows is not None:
            assert len(rows) == operation.text.count("{"), name


def recorded(op: str) -> Expression:
    """The operation on symbols and on tensors."""

    def f(*args: Any) -> Any:
        first = args[0]
        return first.graph.record(op, *args) if isinstance(first, Symbol) else tensor(*args)

    tensor = OPERATIONS[op].tensor
    return f


NUMERIC = {op: len(rows) for op, rows in DERIVATIVES.items() if rows is not None and op != "where"}


@pytest.mark.parametrize("weight", [1.0, -0.75])
@pytest.mark.parametrize("op", NUMERIC)
def test_an_operation_as_torch_has_it_to_the_last_bit(op: str, weight: float) -> None:
    values = VALUES if NUMERIC[op] == 2 else VALUES + DENSE
    tensors = grid(values, NUMERIC[op])
    f = recorded(op)
    weighted = lambda *args: f(*args) * weight  # noqa: E731
    # torch fuses 1 - y * y, which rounds y * y not at all.
    atol = ULP if op == "tanh" else 0.0
    assert_same(ours(weighted, *tensors), torchs(weighted, *tensors), atol=atol)


NUMBERS = [0.0, 1.0, -1.0, 0.5, 2.0, 3.0, -2.0, 1e-300, INF, NAN]
WITH_A_NUMBER: dict[str, Callable[[Any, float], Any]] = {
    "maximum": lambda x, c: maximum(x, c),
    "maximum from the left": lambda x, c: maximum(c, x),
    "minimum": lambda x, c: minimum(x, c),
    "minimum from the left": lambda x, c: minimum(c, x),
    "clip": lambda x, c: clip(x, -0.5, c),
    "plus": lambda x, c: c + x,
    "minus": lambda x, c: x - c,
    "minus from the left": lambda x, c: c - x,
    "times": lambda x, c: x * c,
    "over": lambda x, c: x / c,
    "over from the left": lambda x, c: (x.new_tensor(c) if isinstance(x, Tensor) else c) / x,
    "power": power,
    "power from the left": lambda x, c: c**x,
    "where": lambda x, c: where(x < 1, x, c),
    "where from the left": lambda x, c: where(x < 1, c, x),
}
# x ** 2 is x * x here, and torch has loops of its own where the base is a number.
ROUNDED_OTHERWISE = {"power": 4 * ULP, "power from the left": 4 * ULP}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", WITH_A_NUMBER)
def test_an_operation_with_a_number_as_torch_has_it(name: str, number: float) -> None:
    x = double(VALUES + DENSE)
    f = lambda x: WITH_A_NUMBER[name](x, number)  # noqa: E731
    assert_same(ours(f, x), torchs(f, x), rtol=ROUNDED_OTHERWISE.get(name, 0.0))


@pytest.mark.parametrize("k", [0.0, 1.0, 2.0, 3.0, 0.5, -1.0])
def test_a_power_whose_exponent_is_an_option(k: float) -> None:
    graph = Graph()
    x = graph.load("x")
    (dx,) = gradients(x ** graph.input("h.k", k), [x])
    values = double(VALUES + DENSE)
    assert_same(evaluate([dx], {"x": values}), torchs(lambda x: power(x, k), values), rtol=4 * ULP)


def test_corners() -> None:
    zero, one = double([0.0]), double([1.0])
    assert ours(abs, zero)[0].item() == 0.0
    assert [g.item() for g in ours(maximum, one, one)] == [0.5, 0.5]
    assert [g.item() for g in ours(minimum, one, one)] == [0.5, 0.5]
    assert ours(lambda x: maximum(x, 1.0), one)[0].item() == 1.0
    assert ours(lambda x: minimum(1.0, x), one)[0].item() == 1.0
    assert ours(lambda x: maximum(x, x), one)[0].item() == 1.0
    assert ours(softplus, zero)[0].item() == 0.5


@pytest.mark.parametrize(
    ("f", "at", "wanted"),
    [
        (lambda x: where(x > 0, log(x), 0.0), [0.0, -1.0, 2.0], [0.0, 0.0, 0.5]),
        (lambda x: sqrt(where(x > 0, x, 0.0)), [0.0, -1.0, 4.0], [0.0, 0.0, 0.25]),
        (lambda x: maximum(log(x), -100.0), [0.0, 0.5], [0.0, 2.0]),
        (
            lambda x: sqrt(where(x > 1, x, 0.0) + where(x < -1, -x, 0.0)),
            [0.0, 4.0, -4.0],
            [0.0, 0.25, -0.25],
        ),
        # One root under two conditions, neither of which holds at 0.
        (
            lambda x: where(x > 1, sqrt(x), 0.0) + where(x < -1, 2 * sqrt(x), 0.0),
            [0.0, 4.0, -4.0],
            [0.0, 0.25, NAN],
        ),
        # The formula's own 0 * inf stays.
        (lambda x: log(where(x > 0, x, 0.0 * x)), [-1.0, 4.0], [NAN, 0.25]),
    ],
)
def test_what_was_not_chosen_contributes_nothing(
    f: Expression, at: list[float], wanted: list[float]
) -> None:
    assert_same(ours(f, double(at)), [double(wanted)])


# ------------------------------------------------------------------------------- any expression

UNARY: dict[str, Expression] = {
    "neg": lambda a: -a,
    "abs": abs,
    "sign": functions.sign,
    "square": lambda a: a**2,
    "tanh": functions.tanh,
    "sigmoid": functions.sigmoid,
    "atan": functions.atan,
    "softplus": softplus,
    "sqrt": lambda a: sqrt(a * a + 1),
    "log": lambda a: log(a * a + 0.5),
    "log1p": lambda a: functions.log1p(abs(a)),
    "exp": lambda a: exp(-a * a),
    "expm1": lambda a: functions.expm1(-abs(a)),
    "power": lambda a: (a * a + 0.5) ** 1.5,
    "twice": lambda a: a + a,
}
BINARY: dict[str, Expression] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / (b * b + 0.5),
    "**": lambda a, b: (a * a + 0.5) ** functions.tanh(b),
}
CHOOSING: dict[str, Expression] = {
    "max": maximum,
    "min": minimum,
    "where <": lambda a, b: where(a < b, b, a * b),
    "where >= 0": lambda a, b: where(a >= 0, a, b),
    "at least": lambda a, b: maximum(a, 0.25) * b,
    "at most": lambda a, b: minimum(a, 0.75) - b,
}
RAW: dict[str, Expression] = {
    "log": log,
    "sqrt": sqrt,
    "reciprocal": lambda a: 1 / a,
    "neg": lambda a: -a,
    "abs": abs,
    "square": lambda a: a * a,
    "log1p": functions.log1p,
    "power": lambda a: power(a, 1.5),
}


def trees(unary: Mapping[str, Any], binary: Sequence[str], leaves: int) -> Any:
    return st.recursive(
        st.sampled_from(["x", "y"]),
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(list(unary)), inner),
            st.tuples(st.sampled_from(list(binary)), inner, inner),
        ),
        max_leaves=leaves,
    )


def function_of(tree: Any, unary: Mapping[str, Expression]) -> Expression:
    table = {**unary, **BINARY, **CHOOSING}

    def run(tree: Any, env: Mapping[str, Any]) -> Any:
        if isinstance(tree, str):
            return env[tree]
        op, *args = tree
        return table[op](*(run(arg, env) for arg in args))

    return lambda x, y: run(tree, {"x": x, "y": y})


POINTS = [0.0, 0.25, 0.75, 1.0, -1.0, -0.3, 2.5]
smooth = {k: f for k, f in UNARY.items() if k not in ("abs", "sign", "log1p", "expm1")}
any_tree = trees(UNARY, [*BINARY, *CHOOSING], 10)


def assert_near(got: Sequence[Tensor], wanted: Sequence[Tensor], rtol: float) -> None:
    """Near where the numbers are moderate: sums of huge terms are rounded in another order."""
    for a, b in zip(got, wanted, strict=True):
        moderate = b.abs() < 1e6
        torch.testing.assert_close(a[moderate], b[moderate], rtol=rtol, atol=rtol * 1e3)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(tree=any_tree)
def test_an_expression_as_torch_has_it(tree: Any) -> None:
    f = function_of(tree, UNARY)
    x, y = grid(POINTS, 2)
    assert_near(ours(f, x, y), torchs(f, x, y), 1e-11)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tree=trees(smooth, [*BINARY], 6))
def test_an_expression_as_central_differences_have_it(tree: Any) -> None:
    f = function_of(tree, smooth)
    x, y = grid([0.1, 0.75, -0.3, -1.2], 2)
    h = 1e-5
    wanted = [(f(x + h, y) - f(x - h, y)) / (2 * h), (f(x, y + h) - f(x, y - h)) / (2 * h)]
    curvature = max((f(x + h, y + h) + f(x - h, y - h) - 2 * f(x, y)).abs().max().item() / h**2, 1)
    if f(x, y).abs().max() < 1e3 and curvature < 1e4:
        for got, difference in zip(ours(f, x, y), wanted, strict=True):
            torch.testing.assert_close(got, difference, rtol=1e-4, atol=1e-5)


def twice(f: Expression) -> Expression:
    """A function of the derivatives of f, with mixed terms in its own derivatives."""

    def derivative(x: Any, y: Any) -> Any:
        if isinstance(x, Symbol):
            dx, dy = gradients(f(x, y), [x, y])
        else:
            value = f(x, y)
            if not value.requires_grad:
                return x * 0
            found = torch.autograd.grad(
                value.sum(), [x, y], create_graph=True, allow_unused=True, materialize_grads=True
            )
            dx, dy = found
        return 2 * dx + x * dy

    return derivative


@settings(max_examples=200, deadline=None, derandomize=True)
@given(tree=trees(UNARY, [*BINARY, *CHOOSING], 6))
def test_second_derivatives_as_torch_has_them(tree: Any) -> None:
    f = function_of(tree, UNARY)
    x, y = grid(POINTS, 2)
    assert_near(ours(twice(f), x, y), torchs(twice(f), x, y), 1e-10)


def taken(node: Symbol, *args: Tensor) -> Tensor:
    """The operation on single numbers, where Python's own branches make the choices.

    What is not chosen is not there. (For torch.where it is, with its derivative times 0.)
    """
    if node.op == "where":
        return args[1] if args[0] else args[2]
    if node.op not in ("maximum", "minimum"):
        return on_tensors(node, *args)
    a, b = args
    first, second = (a, b) if node.op == "maximum" else (b, a)  # the first, where it is larger
    if node.args[1].level is Level.SCALAR:  # a clamp; NaN has no derivative
        return a if first >= second else on_tensors(node, a.detach(), b)
    if a.isnan() or b.isnan():
        return a + b
    return 0.5 * a + 0.5 * b if a == b else a if first > second else b


@settings(max_examples=200, deadline=None, derandomize=True)
@given(tree=trees(RAW, ["+", "-", "*", *CHOOSING], 8))
def test_an_expression_with_infinities_as_the_branch_that_is_taken_has_it(tree: Any) -> None:
    f = function_of(tree, RAW)
    value, _ = traced(f, "xy")
    x, y = grid([0.0, 0.25, 1.0, -1.0, 2.5, INF, NAN], 2)

    def run(x: Tensor, y: Tensor) -> Tensor:
        return evaluate([value], {"x": x, "y": y}, taken)[0]

    points = [torchs(run, a, b) for a, b in zip(x.split(1), y.split(1), strict=True)]
    wanted = [torch.cat(column) for column in zip(*points, strict=True)]
    assert_same(ours(f, x, y), wanted, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------------------- losses

EPS = 1e-8


def mse(x: Any, y: Any) -> Any:
    return (x - y) ** 2


def l1(x: Any, y: Any) -> Any:
    return abs(x - y)


def huber(x: Any, y: Any, delta: float = 0.75) -> Any:
    a = abs(x - y)
    return where(a <= delta, 0.5 * a * a, delta * (a - 0.5 * delta))


def smooth_l1(x: Any, y: Any, beta: float = 0.75) -> Any:
    a = abs(x - y)
    return where(a < beta, 0.5 * a * a / beta, a - 0.5 * beta)


def bce(x: Any, y: Any) -> Any:
    return -(y * maximum(log(x), -100.0) + (1 - y) * maximum(log(1 - x), -100.0))


def bce_with_logits(x: Any, y: Any) -> Any:
    return softplus(x) - x * y


def bce_with_logits_weighted(x: Any, y: Any, weight: float = 2.5) -> Any:
    return (1 - y) * x + (1 + (weight - 1) * y) * softplus(-x)


def poisson_log(x: Any, y: Any) -> Any:
    return exp(x) - y * x


def poisson(x: Any, y: Any) -> Any:
    return x - y * log(x + EPS)


def gaussian(x: Any, y: Any, v: Any) -> Any:
    v = maximum(v, 1e-6)
    return 0.5 * (log(v) + (x - y) ** 2 / v)


def kl(x: Any, y: Any) -> Any:
    return where(y > 0, y * log(y), 0.0) - y * x


def kl_log(x: Any, y: Any) -> Any:
    return exp(y) * (y - x)


def soft_margin(x: Any, y: Any) -> Any:
    return softplus(-y * x)


def hinge(x: Any, y: Any) -> Any:
    return maximum(1 - x * y, 0.0)


def hinge_embedding(x: Any, y: Any) -> Any:
    return where(y > 0, x, maximum(1 - x, 0.0))


def focal(x: Any, y: Any, alpha: float = 0.25) -> Any:
    wrong = y + functions.sigmoid(x) * (1 - 2 * y)
    return (alpha * y + (1 - alpha) * (1 - y)) * wrong**2 * bce_with_logits(x, y)


def of_torch(loss: Expression, **options: Any) -> Expression:
    return lambda x, y: loss(x, y, reduction="none", **options)


ANY = [-3.0, -1.0, -0.75, -0.1, 0.0, 0.3, 0.75, 1.0, 2.0, 15.0]
LOGITS = [-800.0, -100.0, -30.0, -2.0, -0.1, 0.0, 0.1, 1.0, 5.0, 30.0, 100.0, 800.0]
SHARES = [0.0, 0.25, 0.5, 1.0]
SIGNS = [-1.0, 1.0]
INSIDE = [1e-9, 0.1, 0.5, 0.9, 1 - 1e-9]

# Formula, torch's function, inputs, targets, whether torch has a derivative by the target too.
LOSSES: dict[str, tuple[Expression, Expression | None, list[float], list[float], bool]] = {
    "mse": (mse, of_torch(F.mse_loss), ANY, ANY, True),
    "l1": (l1, of_torch(F.l1_loss), ANY, ANY, True),
    "huber": (huber, of_torch(F.huber_loss, delta=0.75), ANY, ANY, True),
    "smooth_l1": (smooth_l1, of_torch(F.smooth_l1_loss, beta=0.75), ANY, ANY, True),
    "bce": (bce, of_torch(F.binary_cross_entropy), INSIDE, SHARES, True),
    "bce_with_logits": (
        bce_with_logits,
        of_torch(F.binary_cross_entropy_with_logits),
        LOGITS,
        SHARES,
        True,
    ),
    "bce_with_logits_weighted": (
        bce_with_logits_weighted,
        of_torch(F.binary_cross_entropy_with_logits, pos_weight=double([2.5])),
        LOGITS,
        SHARES,
        True,
    ),
    "poisson_log": (poisson_log, of_torch(F.poisson_nll_loss), ANY, [0.0, 1.0, 4.0], True),
    "poisson": (
        poisson,
        of_torch(F.poisson_nll_loss, log_input=False, eps=EPS),
        [0.0, 0.1, 1.0, 7.0],
        [0.0, 1.0, 4.0],
        True,
    ),
    "kl": (kl, of_torch(F.kl_div), ANY, [0.1, 0.5, 1.0], True),
    "kl, targets 0": (kl, of_torch(F.kl_div), ANY, [0.0], False),
    "kl_log": (kl_log, of_torch(F.kl_div, log_target=True), ANY, ANY, True),
    "soft_margin": (soft_margin, of_torch(F.soft_margin_loss), ANY, SIGNS, False),
    "hinge": (hinge, None, ANY, SIGNS, False),
    "hinge_embedding": (
        hinge_embedding,
        of_torch(F.hinge_embedding_loss),
        ANY,
        SIGNS,
        False,
    ),
    "focal": (focal, None, LOGITS, SHARES, False),
}


def cross(xs: Sequence[float], ys: Sequence[float]) -> tuple[Tensor, Tensor]:
    pairs = double(list(itertools.product(xs, ys)))
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous()


# With targets 0, torch multiplies the derivative of log(0) by the 0 of what was not chosen: NaN.
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "kl, targets 0"])
def test_a_loss_as_autograd_of_the_same_formula(name: str) -> None:
    f, _, xs, ys, _ = LOSSES[name]
    x, y = cross(xs, ys)
    assert_same(ours(f, x, y), torchs(f, x, y), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", [k for k, row in LOSSES.items() if row[1]])
def test_a_loss_as_torchs_own(name: str) -> None:
    f, own, xs, ys, by_target = LOSSES[name]
    assert own is not None
    x, y = cross(xs, ys)
    wanted = torchs(own, x, y) if by_target else torchs(lambda x: own(x, y), x)
    assert_same(ours(f, x, y)[: len(wanted)], wanted, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ["mse", "huber", "bce_with_logits", "kl_log", "focal"])
def test_second_derivatives_of_a_loss(name: str) -> None:
    f, _, xs, ys, _ = LOSSES[name]
    x, y = cross([v for v in xs if math.fabs(v) < 50], ys)
    assert_same(ours(twice(f), x, y), torchs(twice(f), x, y), rtol=1e-12, atol=1e-12)


def test_gaussian() -> None:
    x, y, v = grid([0.1, 0.5, 2.0, 7.0], 3)
    own = lambda x, y, v: F.gaussian_nll_loss(x, y, v, reduction="none")  # noqa: E731
    assert_same(ours(gaussian, x, y, v), torchs(gaussian, x, y, v), rtol=1e-14)
    assert_same(ours(gaussian, x, y, v), torchs(own, x, y, v), rtol=1e-14)


def test_bce_where_the_logarithm_is_held() -> None:
    """At p = 0 with target 1 the held term is flat; torch's own divides by 1e-12 instead."""
    x, y = double([0.0, 1.0, 0.0, 1.0]), double([1.0, 0.0, 0.0, 1.0])
    assert ours(bce, x, y)[0].tolist() == [0.0, 0.0, 1.0, -1.0]


def test_logits_of_a_fresh_layer() -> None:
    """At 0 the pieces of the stable formula have corners, the loss itself none."""
    x, y = cross([0.0, -0.0], [0.0, 0.25, 1.0])
    for f in (bce_with_logits, lambda x, y: bce_with_logits_weighted(x, y, 1.0)):
        assert ours(f, x, y)[0].tolist() == (0.5 - y).tolist()


# --------------------------------------------------------------------------------- size and text


def size(*results: Symbol) -> int:
    return sum(bool(n.args) and n.level is Level.ELEMENT for n in ordered(results))


# Element nodes of the value, and how many more its derivative by x takes.
SIZES = {
    "mse": (2, 1),
    "l1": (2, 1),
    "huber": (8, 5),
    "smooth_l1": (8, 7),
    "bce": (10, 8),
    "bce_with_logits": (9, 6),
    "bce_with_logits_weighted": (14, 6),
    "poisson_log": (3, 1),
    "poisson": (4, 2),
    "kl": (6, 1),
    "kl_log": (3, 1),
    "soft_margin": (9, 6),
    "hinge": (3, 3),
    "hinge_embedding": (4, 6),
    "focal": (21, 15),
}


@pytest.mark.parametrize("name", SIZES)
def test_size(name: str) -> None:
    value, loads = traced(LOSSES[name][0], ["x", "y"])
    (dx,) = gradients(value, loads[:1])
    assert (size(value), size(value, dx) - size(value)) == SIZES[name]


def test_what_the_value_computes_is_shared() -> None:
    value, (x, y) = traced(lambda x, y: functions.log1p(exp(-abs(x))) * functions.tanh(y), "xy")
    nodes = ordered([value, *gradients(value, [x, y])])
    assert sorted(n.op for n in nodes if n.op in ("exp", "abs", "log1p", "tanh")) == sorted(
        ["exp", "abs", "log1p", "tanh"]
    )


TEXTS = [
    (lambda x: mse(x, 0.5), {"t1": "p - 0.5", "p'": "t1 + t1"}),
    (lambda x: 3 * x, {"p'": "3"}),
    (lambda x: -x, {"p'": "-1"}),
    (lambda x: x / 4 - x, {"p'": "-0.75"}),
    (lambda x: abs(-x), {"p'": "-sign(-p)"}),
    (lambda x: x**1.0, {"p'": "1"}),
    (lambda x: x**0.0, {"p'": "0"}),
    (lambda x: x**3, {"p'": "3 * (p * p)"}),
    (lambda x: where(x > 0, x, 2 * x), {"p'": "where(0 < p, 1, 2)"}),
    (lambda x: where(x > 0, x + 1, x + 2), {"p'": "1"}),
    (lambda x: where(~(x > 0), x, 2 * x), {"p'": "where(0 < p, 2, 1)"}),
    (
        lambda x: where(~(x > 0), x, 2 * x) + where(x > 0, 3 * x, x),
        {"p'": "where(0 < p, 5, 2)"},
    ),
    (lambda x: where(x > 0, where(x > 0, 3 * x, 0.0), 0.0), {"p'": "where(0 < p, 3, 0)"}),
    (
        lambda x: maximum(x, 0.0) ** 3,
        {"t1": "maximum(p, 0)", "p'": "where(0 <= p, 3 * (t1 * t1), 0)"},
    ),
    (lambda x: exp(x / 1), {"p'": "exp(p / 1)"}),
    (lambda x: 0.0 * exp(x), {"p'": "0 * exp(p)"}),
    (functions.tanh, {"t1": "tanh(p)", "p'": "1 - t1 * t1"}),
    (functions.sigmoid, {"t1": "sigmoid(p)", "p'": "(1 - t1) * t1"}),
    (functions.log1p, {"p'": "1 / (p + 1)"}),
    (functions.expm1, {"p'": "expm1(p) + 1"}),
]


@pytest.mark.parametrize(("f", "wanted"), TEXTS)
def test_text(f: Expression, wanted: dict[str, str]) -> None:
    def update(p: Any, g: Any, s: Any, h: Any) -> Any:
        return gradients(f(p), [p])[0]

    assert dict(equations(Rule(update).program({}, [1.0]))) == wanted


def test_lines_are_those_of_the_formula() -> None:
    value, (x,) = traced(lambda x: functions.tanh(x * x), ["x"])
    (dx,) = gradients(value, [x])
    lines = {n.line for n in ordered([dx]) if n.args and n.op != "multiply"}
    assert lines <= {n.line for n in ordered([value])}


# ------------------------------------------------------------------------------------- in a kernel


def test_value_and_derivatives_in_one_kernel() -> None:
    formulas = {name: row[0] for name, row in LOSSES.items() if "," not in name}

    def update(p: Any, g: Any, s: Any, h: Any) -> Any:
        for name, f in formulas.items():
            value = f(p, g)
            dx, dy = gradients(value, [p, g])
            setattr(s, name, value + 0 * p)
            setattr(s, f"{name}_x", dx + 0 * p)
            setattr(s, f"{name}_y", dy + 0 * p)
        return p

    states = [f"{name}{end}" for name in formulas for end in ("", "_x", "_y")]
    rule = Rule(update, dict.fromkeys(states, 0.0), name="losses")
    p, g = cross([0.1, 0.3, 0.5, 0.9], [0.1, 0.5, 0.75, 1.0])
    found = states_after(rule, p, g, fused=True)
    for name, f in formulas.items():
        got = [found[f"{name}{end}"] for end in ("", "_x", "_y")]
        assert_same(got, [f(p, g), *torchs(f, p, g)], rtol=1e-13, atol=1e-15)


# -------------------------------------------------------------------------------------- bad input


def test_no_derivative_of_a_condition() -> None:
    value, (x,) = traced(lambda x: x > 0, ["x"])
    with pytest.raises(TypeError, match="value is a condition"):
        gradients(value, [x])


def test_no_derivative_by_what_is_no_element() -> None:
    graph = Graph()
    x, lr = graph.load("x"), graph.input("h.lr", 0.1)
    for wrong in (lr, graph.literal(1.0), x > 0):
        with pytest.raises(TypeError, match="wrt holds"):
            gradients(x * lr, [x, wrong])


def test_no_derivative_through_a_reduction() -> None:
    value, (x, y) = traced(lambda x, y: y * norm(x), ["x", "y"])
    with pytest.raises(ValueError, match=r"test_derivative\.py:\d+: gradients through a sum"):
        gradients(value, [x])
    (dy,) = gradients(value, [y])
    assert dy.op == "sqrt"


def test_a_value_that_does_not_depend() -> None:
    graph = Graph()
    x, y = graph.load("x"), graph.load("y")
    dx, dy = gradients(x * x, [x, y])
    assert dx.op == "add"
    assert (dy.op, dy.value) == ("literal", 0.0)
    (nothing,) = gradients(graph.literal(3.0), [x])
    assert nothing.value == 0.0


def test_by_the_value_itself_and_by_nodes_on_the_way() -> None:
    graph = Graph()
    x = graph.load("x")
    e = exp(x)
    value = e * e
    by_value, by_e, by_x = gradients(value, [value, e, x])
    assert by_value.value == 1.0
    assert (by_e.op, [a is e for a in by_e.args]) == ("add", [True, True])
    assert by_x.args[0] is by_e
    assert by_x.args[1] is e
