"""The tracer: what a rule may do, what it records, and how it says no."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from thalweg.rule import Rule, State, lerp, maximum, norm, sqrt, where
from thalweg.rule.program import Program
from thalweg.rule.symbols import Level

OPTIONS = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "nesterov": False, "mode": None}


def program(update, states=None, options=None, row=(1.0,)) -> Program:
    return Rule(update, states, name="r").program(options or OPTIONS, list(row))


def elements(p: Program) -> list[str]:
    return [node.op for stage in p.stages for node in stage.body]


def constants(p: Program, options=None, row=(1.0,)) -> list[float]:
    return list(p.prologue(options or OPTIONS, list(row))[0])


# ------------------------------------------------------------------------------------- the scalars


def test_scalars_are_lifted_and_exact_in_float64() -> None:
    def update(p, g, s, h):
        return p - (1 - h.beta2) * g * (h.lr / (1 - h.beta1**h.step))

    p = program(update)
    assert elements(p) == ["multiply", "multiply", "subtract"]  # the scalars took no kernel work
    assert constants(p, row=(3.0,)) == [1 - 0.999, 0.1 / (1 - 0.9**3.0)]


def test_only_the_largest_scalar_expressions_become_constants() -> None:
    p = program(lambda p, g, s, h: p - sqrt(h.lr * 2 + h.eps) * g)
    assert constants(p) == [math.sqrt(0.1 * 2 + 1e-8)]


def test_a_scalar_of_no_element_costs_nothing() -> None:
    def update(p, g, s, h):
        h.lr * 2
        g * p
        return p - g

    p = program(update)
    assert elements(p) == ["subtract"]
    assert constants(p) == []


def test_each_distinct_expression_is_computed_once() -> None:
    def update(p, g, s, h):
        a = g * g + h.lr * g
        b = g * g + h.lr * g
        return p - a / b

    assert sorted(elements(program(update))) == [
        "add",
        "divide",
        "multiply",
        "multiply",
        "subtract",
    ]


def test_zero_and_minus_zero_are_different_constants() -> None:
    p = program(lambda p, g, s, h: maximum(p, 0.0) + maximum(g, -0.0))
    found = constants(p)
    assert found == [0.0, 0.0]
    assert sorted(math.copysign(1.0, c) for c in found) == [-1.0, 1.0]


def test_one_and_true_are_different_literals() -> None:
    p = program(lambda p, g, s, h: where(True, p, g) * 1.0)
    assert constants(p) in ([True, 1.0], [1.0, True])
    assert len(p.constants) == 2


def test_nan_is_one_constant() -> None:
    p = program(lambda p, g, s, h: (p + math.nan) * (g + float("nan")))
    assert len(p.constants) == 1


def test_a_written_square_is_a_product() -> None:
    assert elements(program(lambda p, g, s, h: p - g**2)) == ["multiply", "subtract"]


def test_a_square_by_option_stays_a_power() -> None:
    rule = Rule(lambda p, g, s, h: p - g**h.power, name="r")
    p = rule.program({"power": 2.0}, [1.0])
    assert elements(p) == ["power", "subtract"]
    assert rule.program({"power": 3.0}, [1.0]) is p
    assert constants(p, {"power": 3.0}) == [3.0]


# -------------------------------------------------------------------------------------- the states


def test_states_are_found_from_use() -> None:
    def update(p, g, s, h):
        s.written = g * 2
        s.both = s.both + g
        return p - s.read * s.both

    p = program(update, {"written": 0.0, "read": 0.0, "both": 0.0, "unused": 0.0})
    assert p.states == ("written", "read", "both")
    assert p.reads == ("p", "g", "read", "both")
    assert p.writes == ("p", "written", "both")


def test_what_the_rule_does_not_need_is_not_loaded() -> None:
    assert program(lambda p, g, s, h: g * 2).reads == ("g",)
    assert program(lambda p, g, s, h: p * 2).reads == ("p",)


def test_a_state_reads_as_it_was_last_assigned() -> None:
    def update(p, g, s, h):
        before = s.x
        s.x = g
        return p - before - s.x

    p = program(update, {"x": 0.0})
    assert p.reads == ("p", "g", "x")
    stores = dict(p.stages[-1].stores)
    assert stores["x"].op == "load"
    assert stores["x"].detail == "g"


def test_scalar_states_are_numbers_of_the_prologue() -> None:
    def update(p, g, s, h):
        s.product = s.product * h.beta1
        return p - s.product * g

    p = program(update, {"product": State(1.0, scalar=True)}, row=(1.0, 1.0))
    assert p.states == ()
    assert p.prologue(OPTIONS, [2.0, 0.5]) == ((0.45,), (0.45,), ())


def test_a_scalar_state_takes_no_element() -> None:
    def update(p, g, s, h):
        s.product = g
        return p

    with pytest.raises(TypeError, match=r"'product' holds one number per parameter"):
        program(update, {"product": State(1.0, scalar=True)}, row=(1.0, 1.0))


def test_a_state_may_take_a_plain_number() -> None:
    def update(p, g, s, h):
        s.x = 3
        return p - g

    p = program(update, {"x": 0.0})
    assert p.writes == ("p", "x")
    assert constants(p) == [3.0]


# -------------------------------------------------------------------------------------- the guards


def test_a_switch_makes_a_second_program_and_a_number_does_not() -> None:
    def update(p, g, s, h):
        if h.nesterov:
            g = g + p
        return p - h.lr * g

    rule = Rule(update, name="r")
    first = rule.program(OPTIONS, [1.0])
    for lr in (0.2, 0.0, math.inf):
        assert rule.program({**OPTIONS, "lr": lr}, [7.0]) is first
    assert len(rule._programs) == 1
    second = rule.program({**OPTIONS, "nesterov": True}, [1.0])
    assert second is not first
    assert rule.program(OPTIONS, [1.0]) is first
    assert rule.program({**OPTIONS, "nesterov": True, "lr": 3.0}, [1.0]) is second
    assert len(rule._programs) == 2


def test_a_branch_on_a_number_is_a_guard_on_its_truth() -> None:
    def update(p, g, s, h):
        if h.lr > 0.5:
            return p - g
        return p + g

    rule = Rule(update, name="r")
    small = rule.program({"lr": 0.1}, [1.0])
    assert rule.program({"lr": 0.4}, [1.0]) is small
    assert rule.program({"lr": 0.6}, [1.0]) is not small


def test_a_branch_on_the_step() -> None:
    rule = Rule(lambda p, g, s, h: p - g if h.step <= 2 else p, name="r")
    early = rule.program({}, [1.0])
    assert rule.program({}, [2.0]) is early
    late = rule.program({}, [3.0])
    assert late is not early
    assert rule.program({}, [9.0]) is late


@pytest.mark.parametrize(
    ("before", "after"),
    [(1.0, None), (None, 1.0), ("a", "b"), (True, False), ((0.1, 0.2), (0.1,)), ((0.1,), 0.1)],
    ids=str,
)
def test_an_option_of_another_kind_is_another_program(before, after) -> None:
    def update(p, g, s, h):
        if isinstance(h.x, tuple):
            return p - sum(h.x) * g
        if h.x is None or isinstance(h.x, (bool, str)):
            return p + g if h.x in ("a", True, None) else p * g
        return p - h.x * g

    rule = Rule(update, name="r")
    assert rule.program({"x": before}, [1.0]) is not rule.program({"x": after}, [1.0])


def test_programs_of_one_rule_for_different_options() -> None:
    rule = Rule(lambda p, g, s, h: p - (h.lr if h.nesterov else h.eps) * g, name="r")
    a = rule.program({"lr": 1.0, "nesterov": True}, [1.0])  # eps is never asked for
    b = rule.program({"eps": 1.0, "nesterov": False}, [1.0])
    assert rule.program({"lr": 2.0, "nesterov": True}, [1.0]) is a
    assert rule.program({"eps": 2.0, "nesterov": False}, [1.0]) is b


# ------------------------------------------------------------------------------------ plain Python


def test_closures_helpers_loops_and_builtins() -> None:
    def helper(x, times):
        for _ in range(times):
            x = x * 2
        return x

    scale = 3

    def update(p, g, s, h):
        total = sum([g, p, helper(g, 2)])
        step = max(h.lr, 0.05)  # a builtin that compares: a guard
        return p - step * scale * abs(total)

    p = program(update)
    assert elements(p).count("multiply") == 3
    assert constants(p) == [0.0, 2.0, 0.1 * 3]  # sum() begins with 0


def test_torchs_functions_serve_too() -> None:
    p = program(lambda p, g, s, h: p - torch.sqrt(g) + torch.maximum(p, g) + torch.sqrt(h.lr))
    assert set(elements(p)) == {"sqrt", "maximum", "add", "subtract"}
    assert constants(p) == [math.sqrt(0.1)]


def test_conditions_combine() -> None:
    def update(p, g, s, h):
        return where((g > 0) & ~(p <= 1) | (g == p) & (g != 2), p, g)

    assert elements(program(update)).count("and") == 2


def test_a_switch_joins_a_condition() -> None:
    p = program(lambda p, g, s, h: where((g > 0) & h.nesterov, p, g))
    assert "and" in elements(p)


def test_names_of_the_numbers_of_a_pair() -> None:
    def update(p, g, s, h):
        beta1, beta2 = h.betas
        assert beta1 is h.beta1
        assert beta2 is h.beta2
        return p - beta1 * g

    assert constants(program(update)) == [0.9]


def test_an_option_goes_before_a_number_of_a_pair() -> None:
    p = program(lambda p, g, s, h: p - h.beta1 * g, options={"betas": (0.9, 0.99), "beta1": 7.0})
    assert constants(p, {"betas": (0.9, 0.99), "beta1": 7.0}) == [7.0]


def test_levels() -> None:
    seen = {}

    def update(p, g, s, h):
        seen.update(scalar=h.lr * 2, reduced=norm(g) * h.lr, element=norm(g) * g)
        return p - g

    program(update)
    assert {name: node.level for name, node in seen.items()} == {
        "scalar": Level.SCALAR,
        "reduced": Level.REDUCED,
        "element": Level.ELEMENT,
    }


# --------------------------------------------------------------------------------------- saying no


def line_of(function, text: str) -> str:
    lines, first = inspect.getsourcelines(function)
    (offset,) = [k for k, line in enumerate(lines) if text in line]
    return rf"test_tracer\.py:{first + offset}"


def if_on_an_element(p, g, s, h):
    if g > 0:
        return p
    return g


def and_on_elements(p, g, s, h):
    return where((g > 0) and (p > 0), p, g)


def lerp_by_an_element(p, g, s, h):
    return lerp(p, g, p * 2)


@pytest.mark.parametrize(
    ("update", "text"),
    [
        (if_on_an_element, "if g > 0"),
        (and_on_elements, "where("),
        (lerp_by_an_element, "return lerp"),
    ],
)
def test_a_branch_on_an_element_names_its_line(update, text) -> None:
    with pytest.raises(TypeError, match=line_of(update, text) + r": an `if`.*where\(condition"):
        program(update)


def test_a_branch_on_a_reduced_value() -> None:
    with pytest.raises(TypeError, match="on a reduced value"):
        program(lambda p, g, s, h: p if norm(g) > 1 else g)


def test_float_and_math_on_a_symbol() -> None:
    for freeze in (math.sqrt, float, int, math.exp, range):
        with pytest.raises(TypeError, match=r"test_tracer\.py:\d+: .*would freeze its value"):
            program(lambda p, g, s, h, freeze=freeze: p * freeze(h.lr))


def test_an_unknown_option() -> None:
    with pytest.raises(AttributeError, match=r"h\.beta_1, .*did you mean beta1"):
        program(lambda p, g, s, h: p - h.beta_1 * g)
    with pytest.raises(AttributeError, match=r"r: the rule reads h\.zzz.*betas.*lr"):
        program(lambda p, g, s, h: p - h.zzz * g)


def test_an_undeclared_state() -> None:
    with pytest.raises(AttributeError, match=r"state 'y' is not declared; declared states: x"):
        program(lambda p, g, s, h: p - s.y, {"x": 0.0})

    def assigns(p, g, s, h):
        s.y = g
        return p

    with pytest.raises(AttributeError, match=r"'y' is not declared; declared states: none.*'y': 0"):
        program(assigns)


def test_a_torch_function_outside_the_language() -> None:
    with pytest.raises(TypeError, match=r"torch\.relu is not an operation.*maximum"):
        program(lambda p, g, s, h: torch.relu(p))


def test_a_tensor_in_a_rule() -> None:
    with pytest.raises(TypeError, match=r"test_tracer\.py:\d+"):
        program(lambda p, g, s, h: p * torch.ones(2))


def test_a_string_in_a_rule() -> None:
    with pytest.raises(TypeError, match=r"str 'two' in a rule; only p, g, the states"):
        program(lambda p, g, s, h: p * "two")


def test_numbers_and_conditions_are_not_mixed() -> None:
    with pytest.raises(TypeError, match="add takes a number, not a condition"):
        program(lambda p, g, s, h: p + (g > 0))
    with pytest.raises(TypeError, match=r"where takes a condition \(a comparison\)"):
        program(lambda p, g, s, h: where(g, p, g))
    with pytest.raises(TypeError, match="and takes a condition"):
        program(lambda p, g, s, h: where((g > 0) & p, p, g))


def test_a_symbol_of_another_trace() -> None:
    kept = []

    def leaks(p, g, s, h):
        kept.append(g)
        return p - kept[0]

    program(leaks)
    with pytest.raises(TypeError, match=r"test_tracer\.py:\d+: a symbol of another rule's trace"):
        program(leaks)


@pytest.mark.parametrize("result", [None, 0.0, (1, 2)], ids=str)
def test_a_rule_must_return_p(result) -> None:
    with pytest.raises(TypeError, match="r: the rule must return the parameter's new value"):
        program(lambda p, g, s, h: result)


@pytest.mark.parametrize("name", ["step", "p", "g"])
def test_names_that_a_state_cannot_have(name: str) -> None:
    with pytest.raises(ValueError, match=rf"r: every rule has `{name}` already"):
        Rule(lambda p, g, s, h: p, {name: 0.0}, name="r")


def test_reductions_have_a_scope() -> None:
    with pytest.raises(
        ValueError, match="'row' is not known here; over must be one of 'unit', 'tensor'"
    ):
        program(lambda p, g, s, h: p * norm(g, "row"))
