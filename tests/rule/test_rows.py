"""Formulas of rows: their derivatives are torch.autograd's, and what cannot be said is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import thalweg
from thalweg.rule import functions as f
from thalweg.rule.formula import BACKWARD, EACH, FACTOR, SUM
from thalweg.rule.operations import OPERATIONS
from thalweg.rule.program import ordered
from thalweg.rule.rows import ROW_WISE, Kind, RowFormula
from thalweg.rule.symbols import Symbol

OPTIONS = {"a": 2.5, FACTOR: 1.0}


def total(x: Any) -> Any:
    return f.sum(x, over="row")


def average(x: Any) -> Any:
    return f.mean(x, over="row")


def correlation(x: Any, z: Any, h: Any) -> Any:
    dx, dz = x - average(x), z - average(z)
    return total(dx * dz) / f.sqrt(total(dx * dx) * total(dz * dz))


def four_passes(x: Any, h: Any) -> Any:
    spread = total(f.exp(x - average(x * f.largest(x))))
    return total(f.exp(x - f.log(spread)) * f.tanh(x))


def entropy(x: Any, h: Any) -> Any:
    log_p = x - f.logsumexp(x)
    return -total(f.exp(log_p) * log_p)


INDEX = {"y": Kind.INDEX}
# A formula, and the kinds of operands that have not a number for each element.
FORMULAS: dict[str, tuple[Callable[..., Any], dict[str, Kind]]] = {
    "logsumexp": (lambda x, h: f.logsumexp(x), {}),
    "sum in a sum": (lambda x, h: total(f.exp(x - total(x))), {}),
    "largest": (lambda x, h: f.largest(x) * total(x), {}),
    "largest of an expression": (lambda x, z, h: f.largest(x * z + x), {}),
    "largest and smallest": (lambda x, h: f.maximum(f.largest(x), -2 * -f.largest(-x)), {}),
    "largest of the largest": (lambda x, h: f.largest(f.largest(x)), {}),
    "norm": (lambda x, h: f.norm(x, over="row"), {}),
    "standard deviation": (lambda x, h: f.sqrt(average((x - average(x)) ** 2)), {}),
    "correlation": (correlation, {}),
    "entropy": (entropy, {}),
    "four passes": (four_passes, {}),
    "power norm": (lambda x, h: total(f.abs(x) ** h.a) ** (1 / h.a), {}),
    "held element": (lambda x, h: total(f.held(f.exp(x)) * x), {}),
    "held sum": (lambda x, h: total(x) * f.held(total(x * x)), {}),
    "pick": (lambda x, y, h: f.pick(x, y) * total(x), INDEX),
    "pick of two": (lambda x, z, y, h: f.pick(x, y) - f.pick(z, y), INDEX),
    "pick of weights": (
        lambda x, c, y, h: f.pick(c, y) * f.pick(x, y) + average(c * x),
        {"c": Kind.COLUMN, "y": Kind.INDEX},
    ),
    "is_at": (lambda x, y, h: total(f.where(f.is_at(x, y), x * x, -x)), INDEX),
    "not is_at": (lambda x, y, h: total(f.where(~f.is_at(x, y) & (x > 0), x, 0.0)), INDEX),
    "number of the row": (lambda x, r, h: total((x - r) * (x - r)) + r, {"r": Kind.ROW}),
    "number of the row alone": (lambda x, r, h: r * r, {"r": Kind.ROW}),
    "condition of the row": (lambda x, h: total(f.where(total(x) > 0, x, x * x)), {}),
    "condition between sums": (lambda x, h: f.where(total(x) > 0, 1.0, h.a) * total(x), {}),
    "elementary": (
        lambda x, h: total(f.sigmoid(x) * f.softplus(x) + f.expm1(x) + f.atan(x) + f.log1p(x * x)),
        {},
    ),
    "switch": (lambda x, h: total(x) if h.a > 1 else total(x * x), {}),
}
EACH_FORMULA = pytest.mark.parametrize("name", FORMULAS)


def names_of(function: Callable[..., Any]) -> list[str]:
    code = function.__code__
    return [name for name in code.co_varnames[: code.co_argcount] if name != "h"]


def made(name: str, rows: int = 5, count: int = 6) -> dict[str, Tensor]:
    """Operands as a formula takes them from tensor operations: rows in front."""
    function, kinds = FORMULAS[name]
    makers: dict[Kind, Callable[[], Tensor]] = {
        Kind.ELEMENT: lambda: torch.randn(rows, count, dtype=torch.float64),
        Kind.COLUMN: lambda: torch.rand(count, dtype=torch.float64) + 0.5,
        Kind.ROW: lambda: torch.randn(rows, 1, dtype=torch.float64),
        Kind.INDEX: lambda: torch.randint(0, count, (rows, 1)),
    }
    return {n: makers[kinds.get(n, Kind.ELEMENT)]() for n in names_of(function)}


def evaluate(results: list[Symbol], given: Mapping[str, Tensor], shape: torch.Size) -> list[Tensor]:
    """The values of nodes, each pass over the rows by operations of tensors."""
    values: dict[Symbol, Any] = {}
    for node in ordered(results):
        args = [values[a] for a in node.args]
        if node.op in ("load", "row", "index"):
            values[node] = given[node.detail]
        elif node.op == "count":
            values[node] = torch.tensor(float(shape[-1]), dtype=torch.float64)
        elif node.op == "reduce":
            values[node] = args[0].expand(shape).sum(-1, keepdim=True)
        elif node.op == "largest":
            values[node] = args[0].expand(shape).amax(-1, keepdim=True)
        elif node.op == "pick":
            values[node] = args[0].expand(shape).gather(-1, args[1])
        elif node.op == "is_at":
            values[node] = torch.arange(shape[-1]) == args[0]
        elif node.op == "input":
            values[node] = torch.tensor(OPTIONS[node.detail.removeprefix("h.")])
        elif not node.args:
            truth = isinstance(node.value, bool)
            values[node] = torch.tensor(node.value, dtype=torch.bool if truth else torch.float64)
        else:
            values[node] = OPERATIONS[node.op].tensor(*args)
    return [values[r] for r in results]


def assert_as_autograd(name: str, given: dict[str, Tensor]) -> None:
    function, kinds = FORMULAS[name]
    wanted = [n for n, t in given.items() if t.is_floating_point()]
    traced = RowFormula(function, **kinds).expressions(OPTIONS, list(given), wanted)
    shape = given["x"].shape
    value, *slopes = evaluate([traced.value, *traced.derivatives], given, shape)
    leaves = {n: t.clone().requires_grad_(n in wanted) for n, t in given.items()}
    right = function(**leaves, h=SimpleNamespace(**OPTIONS))
    torch.testing.assert_close(value.expand(right.shape), right.detach())
    found = torch.autograd.grad(right.sum(), [leaves[n] for n in wanted], materialize_grads=True)
    for n, ours, theirs in zip(wanted, slopes, found, strict=True):
        if kinds.get(n) is Kind.COLUMN:  # of each row; the same weights are in all
            ours = ours.expand(shape).sum(0)
        torch.testing.assert_close(
            ours.expand(theirs.shape), theirs, msg=lambda m, n=n: f"{n}: {m}"
        )


@EACH_FORMULA
def test_derivatives_as_autograd_has_them(name: str) -> None:
    for count in (1, 2, 6):
        if name in ("correlation", "standard deviation") and count == 1:
            continue  # 0 / 0
        assert_as_autograd(name, made(name, count=count))


@pytest.mark.parametrize("name", ["largest", "largest of an expression", "logsumexp"])
def test_ties(name: str) -> None:
    """Of several largest ones each has an equal share."""
    given = made(name)
    given = {n: t.round() for n, t in given.items()}
    given["x"][0] = 1.0
    assert_as_autograd(name, given)


def test_what_a_program_holds() -> None:
    formula = RowFormula(lambda x, y, h: f.logsumexp(x) - f.pick(x, y), y=Kind.INDEX)
    for kind, stores, row_stores in (
        (SUM, ["_d_x"], []),
        (EACH, [], ["_value"]),
        (BACKWARD, ["_d_x"], []),
    ):
        program = formula.program(kind, OPTIONS, ["x", "y"], [] if kind == EACH else ["x"])
        assert [n for s in program.stages for n, _ in s.stores] == stores
        assert [n for n, _ in program.row_stores] == row_stores
        assert (program.value is None) == (kind != SUM)
        assert len(program.between) == len(program.stages) + 1
    assert formula.program(SUM, OPTIONS, ["x", "y"], ["x"]) is formula.program(
        SUM, {**OPTIONS, FACTOR: 0.5}, ["x", "y"], ["x"]
    )


def test_a_switch_is_another_program() -> None:
    function, kinds = FORMULAS["switch"]
    formula = RowFormula(function, **kinds)
    one = formula.program(SUM, {"a": 2.0, FACTOR: 1.0}, ["x"], ["x"])
    assert formula.program(SUM, {"a": 3.0, FACTOR: 1.0}, ["x"], ["x"]) is one
    assert formula.program(SUM, {"a": 0.5, FACTOR: 1.0}, ["x"], ["x"]) is not one


def test_kinds_of_operands() -> None:
    formula = RowFormula(lambda x, h: total(x), y=Kind.INDEX, r=Kind.ROW)
    assert formula.kinds_of(("x", "y", "r")) == (Kind.ELEMENT, Kind.INDEX, Kind.ROW)
    assert Kind.COLUMN not in ROW_WISE


# ------------------------------------------------------------------------------ refusals

Y = {"y": Kind.INDEX}
BAD: list[tuple[Callable[..., Any], dict[str, Kind], type[Exception], str]] = [
    (lambda x, h: x * x, {}, TypeError, "must return one number for each row.*sum over the row"),
    (lambda x, h: 2.0, {}, TypeError, "must return one number for each row, got 2.0"),
    (lambda x, h: h.a * 2, {}, TypeError, "must return one number for each row"),
    (lambda x, h: total(x) > 0, {}, TypeError, "must return one number for each row"),
    (lambda x, h: f.sum(x), {}, ValueError, "sum over 'tensor' is not known here.*'row'"),
    (lambda x, h: f.sum(x, over="all"), {}, ValueError, "sum over 'all' is not known here"),
    (lambda x, h: f.norm(x), {}, ValueError, "sum over 'tensor' is not known here"),
    (lambda x, h: f.sum(x, over="rows"), {}, ValueError, "over must be one of"),
    (lambda x, y, h: f.pick(2 * x, y), Y, TypeError, "pick takes an operand as it is"),
    (lambda x, y, h: f.pick(total(x), y), Y, TypeError, "pick takes an operand as it is"),
    (lambda x, r, y, h: f.pick(r, y), {"r": Kind.ROW, **Y}, TypeError, "pick takes an operand as"),
    (lambda x, y, h: f.pick(x, y * 0), Y, TypeError, "pick takes an operand that is an index"),
    (lambda x, h: f.pick(x, 0), {}, TypeError, "pick takes an operand that is an index"),
    (lambda x, h: total(f.where(f.is_at(x, 0), x, 0.0)), {}, TypeError, "is_at takes an operand"),
    (lambda x, y, h: total(f.where(f.is_at(x, y + 1), x, 0.0)), Y, TypeError, "is_at takes an op"),
    (lambda x, y, h: total(f.pick(x, y)), Y, TypeError, "same for every element of the row"),
    (lambda x, h: total(f.largest(x) ** 2), {}, TypeError, "same for every element of the row"),
    (lambda x, h: average(h.a) * total(x), {}, TypeError, "same for every element of the row"),
    (lambda x, h: total(x) if x > 1 else 0.0, {}, TypeError, "where"),
    (lambda x, h: total(x) if total(x) > 1 else 0.0, {}, TypeError, "where"),
    (
        lambda x, y, z, h: f.pick(x, y) - f.pick(x, z),
        {**Y, "z": Kind.INDEX},
        TypeError,
        "at most one operand may be an index",
    ),
]


@pytest.mark.parametrize(("function", "kinds", "error", "message"), BAD)
def test_what_cannot_be_said(
    function: Callable[..., Any], kinds: dict[str, Kind], error: type[Exception], message: str
) -> None:
    formula = RowFormula(function, **kinds)
    with pytest.raises(error, match=message):
        formula.program(SUM, OPTIONS, names_of(function), ["x"])


@pytest.mark.parametrize(
    ("word", "update"),
    [
        ("largest", lambda p, g: p - f.largest(g)),
        ("pick", lambda p, g: p - f.pick(g, f.norm(g))),
        ("is_at", lambda p, g: f.where(f.is_at(g, f.norm(g)), p, 0.0)),
        ("'row'", lambda p, g: p - f.sum(g, over="row")),
    ],
)
def test_words_of_rows_in_an_optimizer(word: str, update: Callable[[Any, Any], Any]) -> None:
    @thalweg.optimizer(lr=0.1)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return update(p, g)

    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    with pytest.raises((ValueError, TypeError), match=word):
        rule([p]).step()
    assert p.tolist() == [1.0, 1.0, 1.0]
