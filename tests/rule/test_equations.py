"""Equations for people: they are Python, and say what the rule computes."""

from __future__ import annotations

import builtins
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.optim import SGD, Adam
from thalweg.rule import Rule, State, lerp, maximum, mean, minimum, norm, sqrt, where
from thalweg.rule import abs as abs_of
from thalweg.rule.equations import equations, equations_of
from thalweg.rule.functions import is_at, largest, pick
from thalweg.rule.rows import Kind, RowFormula
from thalweg.rule.symbols import Graph


def lines(update, options, states=None, row=(1.0,)) -> dict[str, str]:
    return dict(equations(Rule(update, states, name="r").program(options, list(row))))


def test_sgd() -> None:
    program = SGD.rule.program(
        {"lr": 0.1, "momentum": 0, "weight_decay": 0, "maximize": False}, [1]
    )
    assert equations(program) == [("p'", "p - lr * g")]


def test_adam() -> None:
    options = dict(
        lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False,
        decoupled_weight_decay=False,
    )  # fmt: skip
    found = dict(equations(Adam.rule.program(options, [1.0])))
    assert found["exp_avg'"] == "exp_avg + (1 - beta1) * (g - exp_avg)"
    assert found["exp_avg_sq'"] == "beta2 * exp_avg_sq + (1 - beta2) * g * g"
    assert found["p'"].startswith("p - lr / (1 - beta1 ** step) * exp_avg' / (sqrt(exp_avg_sq')")
    assert set(found) == {"exp_avg'", "exp_avg_sq'", "p'"}


def test_a_state_that_takes_over_another_value() -> None:
    def update(p, g, s, h):
        s.previous = g
        s.both = p - g
        return s.both

    assert lines(update, {}, {"previous": 0.0, "both": 0.0}) == {
        "p'": "p - g",
        "both'": "p'",
        "previous'": "g",
    }


def test_scalar_states_and_reductions() -> None:
    def update(p, g, s, h):
        s.mu = s.mu * h.beta
        return p - s.mu * g / norm(g) / norm(g, "all") + mean(g)

    found = lines(update, {"beta": 0.5}, {"mu": State(1.0, scalar=True)}, (1.0, 1.0))
    assert found["mu'"] == "mu * beta"
    text = " ".join(found.values())
    assert "sum(" in text
    assert ", all tensors)" in text
    assert "/ elements" in text


def test_what_is_used_twice_gets_a_name() -> None:
    found = lines(lambda p, g, s, h: p - (g + p) * (g + p), {})
    assert found == {"t1": "g + p", "p'": "p - t1 * t1"}


# An expression of the language, built of operators that Python's own grammar has to read back.
LEAVES = ["p", "g", "a", "b", 2.0, -3.0, 0.5, -0.0]
trees = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["+", "-", "*", "/", "**", "max", "min"]), inner, inner),
        st.tuples(st.sampled_from(["neg", "abs"]), inner),
        st.tuples(st.just("where"), inner, inner, inner),
    ),
    max_leaves=12,
)


def build(tree, env):
    if not isinstance(tree, tuple):
        return env.get(tree, tree) if isinstance(tree, str) else tree
    op, *args = tree
    x = [build(arg, env) for arg in args]
    table = {
        "+": lambda: x[0] + x[1],
        "-": lambda: x[0] - x[1],
        "*": lambda: x[0] * x[1],
        "/": lambda: x[0] / x[1],
        "**": lambda: x[0] ** x[1],
        "neg": lambda: -x[0],
        "abs": lambda: abs_of(x[0]),
        "max": lambda: maximum(x[0], x[1]),
        "min": lambda: minimum(x[0], x[1]),
        "where": lambda: where(x[0] < x[1], x[2], x[0]),
    }
    return table[op]()


def is_nan(x) -> bool:
    return isinstance(x, float) and math.isnan(x)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(tree=trees)
def test_an_equation_reads_back_as_the_rule(tree) -> None:
    env = {"p": 1.25, "g": 3.0, "a": 0.75, "b": 1.5}
    update = lambda p, g, s, h: build(tree, {"p": p, "g": g, "a": h.a, "b": h.b}) + p  # noqa: E731
    try:
        wanted = update(env["p"], env["g"], None, type("h", (), {"a": 0.75, "b": 1.5}))
    except (ZeroDivisionError, OverflowError):
        return
    if isinstance(wanted, complex):
        return
    names = {**env, "sqrt": math.sqrt, "abs": builtins.abs, "where": where, "inf": math.inf}
    names |= {"maximum": maximum, "minimum": minimum, "nan": math.nan}
    for name, text in lines(update, {"a": 0.75, "b": 1.5}).items():
        try:
            names[name.replace("'", "_new")] = eval(text.replace("'", "_new"), {}, names)
        except (ZeroDivisionError, OverflowError):
            return  # an intermediate of its own, which the rule's order of evaluation avoided
    got = names["p_new"]
    assert got == wanted or (is_nan(got) and is_nan(wanted)), (tree, got, wanted)


@pytest.mark.parametrize(
    ("update", "text"),
    [
        (lambda p, g, s, h: p - (g - p), "p - (g - p)"),
        (lambda p, g, s, h: (p - g) - p, "p - g - p"),
        (lambda p, g, s, h: p / (g * p), "p / (g * p)"),
        (lambda p, g, s, h: (p**h.a) ** g, "(p ** a) ** g"),
        (lambda p, g, s, h: p ** (g**h.a), "p ** g ** a"),
        (lambda p, g, s, h: (-p) ** g, "(-p) ** g"),
        (lambda p, g, s, h: (-1.0) ** p, "(-1) ** p"),
        (lambda p, g, s, h: -(p * g), "-(p * g)"),
        (lambda p, g, s, h: sqrt(p + g), "sqrt(p + g)"),
        (lambda p, g, s, h: where((p < g) & (g <= 1), p, g), "where((p < g) & (g <= 1), p, g)"),
        (lambda p, g, s, h: lerp(p, g, h.a), "p + a * (g - p)"),
    ],
)
def test_brackets(update, text: str) -> None:
    assert lines(update, {"a": 0.25})["p'"] == text


def test_conditions() -> None:
    def update(p, g, s, h):
        return where(~(p < g) | (g <= 1) & ~(p == 0), p, g)

    assert lines(update, {})["p'"] == "where(~(p < g) | ((g <= 1) & ~(p == 0)), p, g)"


def test_formulas_of_rows() -> None:
    def formula(x, y, weight, h):
        return pick(x, y) * largest(x) - mean(where(is_at(x, y), weight, x), over="row") * h.scale

    row = RowFormula(formula, y=Kind.INDEX, weight=Kind.COLUMN)
    found = row.expressions({"scale": 2.0}, ["x", "y", "weight"], ["weight"])
    named = [("value", found.value), ("d_weight", found.derivatives[0])]
    assert dict(equations_of(named)) == {
        "t1": "i == y",
        "value": "x[y] * largest(x) - sum(where(t1, weight, x)) / elements * scale",
        "d_weight": "where(t1, -(scale / elements), 0)",
    }


def test_results_name_each_other() -> None:
    x = Graph().load("x")
    named = [("value", x * x), ("twice", x * x + x * x), ("same", x * x), ("x", x), ("none", 0 * x)]
    assert equations_of(named)[:3] == [
        ("value", "x * x"),
        ("twice", "value + value"),
        ("none", "0 * x"),
    ]
    assert ("same", "value") in equations_of(named)


def test_names_are_not_given_twice() -> None:
    t1 = Graph().load("t1")
    assert equations_of([("t2", (t1 + 1) * (t1 + 1))]) == [("t3", "t1 + 1"), ("t2", "t3 * t3")]
