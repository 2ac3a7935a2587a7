"""The program: stages, the prologue's text, and what lies between stages."""

from __future__ import annotations

import inspect
import math

import numpy as np

from thalweg.rule import Rule, State, mean, norm, sqrt, where
from thalweg.rule import sum as sum_of


def momentum(p, g, s, h):
    s.product = s.product * h.beta1
    if h.nesterov:
        g = g + p
    return p - h.lr / (1 - s.product) * g


MOMENTUM = Rule(momentum, {"product": State(1.0, scalar=True)})
OPTIONS = {"lr": 0.1, "betas": (0.9, 0.99), "nesterov": True}


def test_the_prologue_is_python_that_names_the_rules_lines() -> None:
    program = MOMENTUM.program(OPTIONS, [1.0, 1.0])
    source = program.prologue_source
    assert source.startswith("def prologue(h, row):\n")
    first = inspect.getsourcelines(momentum)[1]
    for line, text in ((first + 1, "*"), (first + 4, "divide(")):
        assert any(
            text in row and row.endswith(f"# test_program.py:{line}") for row in source.splitlines()
        ), source
    assert "number(h['betas'][0])" in source
    assert "row[1]" in source
    assert source.splitlines()[-1].startswith("    return (")
    assert "switch(h['nesterov']), " in source.splitlines()[-1]


def test_the_prologue_returns_constants_states_and_guards() -> None:
    program = MOMENTUM.program(OPTIONS, [1.0, 1.0])
    guards = ((bool, True),)  # not 1.0, which is equal
    assert program.prologue(OPTIONS, [5.0, 0.5]) == ((0.1 / (1 - 0.45),), (0.45,), guards)
    assert program.guards == guards


def test_the_prologue_answers_where_python_raises() -> None:
    rule = Rule(lambda p, g, s, h: p - (1 / h.zero) * sqrt(h.negative) ** 0.5 * g, name="r")
    program = rule.program({"zero": 1.0, "negative": 1.0}, [1.0])
    (constant,) = program.prologue({"zero": 0.0, "negative": 4.0}, [1.0])[0]
    assert constant == math.inf
    (constant,) = program.prologue({"zero": 1.0, "negative": -4.0}, [1.0])[0]
    assert math.isnan(constant)


def test_options_of_any_name() -> None:
    names = ["h", "row", "sqrt", "power", "divide", "v0", "nan", "bool", "number", "p", "g"]
    options = {name: float(k + 2) for k, name in enumerate(names)}

    def update(p, g, s, h):
        total = 0.0
        for name in names:
            total = total + sqrt(getattr(h, name)) / 2**h.step
        return p - total * g

    program = Rule(update, name="r").program(options, [1.0])
    (constant,) = program.prologue(options, [1.0])[0]
    assert math.isclose(constant, sum(math.sqrt(x) / 2 for x in options.values()))


def test_one_stage_without_reductions() -> None:
    program = Rule(lambda p, g, s, h: p - h.lr * g, name="r").program({"lr": 0.1}, [1.0])
    (stage,) = program.stages
    assert stage.loads == ("p", "g")
    assert [name for name, _ in stage.stores] == ["p"]
    assert stage.reductions == ()
    assert program.operands == ("p", "g")


def test_a_reduction_splits_the_rule_in_stages() -> None:
    def update(p, g, s, h):
        u = g * h.lr
        s.seen = s.seen + 1
        return p - u * norm(p) / norm(u)

    program = Rule(update, {"seen": 0.0}, name="r").program({"lr": 0.5}, [1.0])
    first, second = program.stages
    assert first.loads == ("p", "g")
    assert first.stores == ()
    assert [r.detail for r in first.reductions] == ["tensor", "tensor"]
    assert second.loads == ("p", "g", "seen")
    assert second.reductions == ()
    assert program.reads == ("p", "g", "p", "g", "seen")
    assert program.writes == ("p", "seen")


def test_a_reduction_of_a_reduction_takes_a_third_stage() -> None:
    def update(p, g, s, h):
        g = g / norm(g, "all")
        return p - g / norm(g - p)

    program = Rule(update, name="r").program({}, [1.0])
    assert [len(stage.reductions) for stage in program.stages] == [1, 1, 0]
    assert [r.detail for stage in program.stages for r in stage.reductions] == ["all", "tensor"]


def test_a_reduction_that_is_not_used_takes_no_stage() -> None:
    def update(p, g, s, h):
        norm(p)
        return p - g

    assert len(Rule(update, name="r").program({}, [1.0]).stages) == 1


def test_equal_reductions_are_summed_once() -> None:
    def update(p, g, s, h):
        return p - g * norm(g) - sum_of(g * g) * p

    (reduction,) = Rule(update, name="r").program({}, [1.0]).stages[0].reductions
    assert reduction.detail == "tensor"


def test_between_turns_sums_into_constants() -> None:
    def update(p, g, s, h):
        ratio = where(norm(p) > 0, norm(p) / (norm(g) + h.eps), 1.0)
        return p - ratio * h.lr * (g - mean(g, "all"))

    program = Rule(update, name="r").program({"lr": 0.5, "eps": 1.0}, [1.0])
    source = program.between_source(1)
    assert source.startswith("def between(c, r, n, N):")
    assert "# test_program.py:" in source
    names = {"where": np.where, "sqrt": np.sqrt, "divide": np.divide}
    exec(source, names)
    options = {"lr": 0.5, "eps": 1.0}
    c = [np.full(2, x) for x in program.prologue(options, [1.0])[0]]
    sums = {"p": np.array([9.0, 0.0]), "g": np.array([16.0, 4.0]), "all": np.array([30.0, 30.0])}
    r = []
    for node in program.stages[0].reductions:
        argument = node.args[0]
        r.append(sums["all" if node.detail == "all" else argument.args[0].detail])
    found = names["between"](c, r, np.array([3.0, 5.0]), [8.0])
    wanted = [np.array([3 / 5 * 0.5, 0.5]), np.array([30 / 8, 30 / 8])]
    assert sorted(np.broadcast_to(x, 2).tolist() for x in found) == sorted(
        x.tolist() for x in wanted
    )
