"""Lowering: which operations are chosen, where results go, and that any program comes out right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Parameter

from tests.engine.backends.contract import Stepper, give
from thalweg.engine.backends.eager import printer as eager_printer
from thalweg.engine.backends.eager.apply import apply
from thalweg.engine.backends.eager.backend import EagerBackend
from thalweg.engine.backends.foreach import printer as foreach_printer
from thalweg.engine.backends.foreach.backend import ForeachBackend
from thalweg.engine.backends.lowering import Lowered, conditions, lower
from thalweg.rule import Rule, State, abs, clip, lerp, maximum, minimum, norm, sqrt, where

OPTIONS = {"lr": 0.1, "a": 0.25, "b": 0.75, "eps": 1e-3}


def lowered(update: Callable[..., Any], converted: str = "", stage: int = 0) -> Lowered:
    """A rule's stage for OPTIONS, with states ``m`` and ``v``."""
    rule = Rule(update, {"m": 0.5, "v": 0.0})
    program = rule.program(OPTIONS, [2.0])
    constants, _ = program.scalars(OPTIONS, [2.0]) or ((), ())
    truths = tuple(bool(constants[k]) for k in conditions(program, stage))
    return lower(program, stage, truths, frozenset(converted.split()))


def operations(update: Callable[..., Any], converted: str = "") -> list[str]:
    """``add_ p``: each operation, with an underscore if in place, and what it writes."""
    return [
        f"{i.op}{'_' * i.in_place} {i.out.removeprefix('x_')}"
        for i in lowered(update, converted).instructions
    ]


def _state(name: str, value: Callable[[Any, Any, Any, Any], Any]) -> Callable[..., Any]:
    """A rule that assigns a state and adds the gradient to the parameter."""

    def update(p: Any, g: Any, s: Any, h: Any) -> Any:
        setattr(s, name, value(p, g, s, h))
        return p + g

    return update


CHOSEN: list[tuple[str, Callable[..., Any], list[str]]] = [
    ("a scaled term", lambda p, g, s, h: p - h.lr * g, ["add_ p"]),
    ("a plain term", lambda p, g, s, h: p - g, ["sub_ p"]),
    ("a product", lambda p, g, s, h: p - h.lr * g * s.m, ["addcmul_ p"]),
    ("a quotient", lambda p, g, s, h: p - h.lr * g / s.m, ["addcdiv_ p"]),
    ("one over the first", lambda p, g, s, h: p + 1 / s.m * g, ["addcdiv_ p"]),
    ("constants of both sides", lambda p, g, s, h: p - h.a * g * (h.lr / s.m), ["addcdiv_ p"]),
    ("a scaled base", lambda p, g, s, h: h.a * p + g, ["mul_ p", "add_ p"]),
    ("the other as base", lambda p, g, s, h: h.a * g + p, ["add_ p"]),
    ("the base that is overwritten", lambda p, g, s, h: h.a * g + h.b * p, ["mul_ p", "add_ p"]),
    ("lerp, near", lambda p, g, s, h: p + h.a * (g - p), ["lerp_ p"]),
    ("lerp, far", lambda p, g, s, h: g - (g - p) * h.a, ["lerp_ p"]),
    ("lerp, from what is left", lambda p, g, s, h: lerp(p, g, h.b), ["lerp_ p"]),
    ("limits", lambda p, g, s, h: clip(p - g, -1, 1), ["sub_ p", "clamp_min_ p", "clamp_max_ p"]),
    ("of two", lambda p, g, s, h: maximum(g, p), ["maximum_ p"]),
    ("a quotient alone", lambda p, g, s, h: p / h.a, ["div_ p"]),
    ("one over", lambda p, g, s, h: 1 / p, ["reciprocal_ p"]),
    ("less", lambda p, g, s, h: -p, ["neg_ p"]),
    ("a number added", lambda p, g, s, h: p + h.eps, ["add_ p"]),
    ("a product of numbers added", lambda p, g, s, h: p + h.a * h.eps, ["add_ p"]),
    ("from a number", lambda p, g, s, h: 1 - p, ["neg_ p", "add_ p"]),
    ("a root", lambda p, g, s, h: sqrt(p), ["sqrt_ p"]),
    ("zero where", lambda p, g, s, h: where(g > 0, 0, p), ["gt t0", "masked_fill_ p"]),
    ("decided beforehand", lambda p, g, s, h: where(h.a < 1, p + g, p * p), ["add_ p"]),
    (
        "decided beforehand, in a condition",
        lambda p, g, s, h: where((g > 0) | (h.a < 1), p + g, p * p),
        ["add_ p"],
    ),
    (
        "decided to be a number",
        lambda p, g, s, h: p * where(h.a < 1, h.b, g) - g,
        ["mul_ p", "sub_ p"],
    ),
    (
        "nothing but numbers",
        lambda p, g, s, h: sqrt(where(h.a < 1, h.b, g)) + p,
        ["full_like t0", "sqrt_ t0", "add_ p"],
    ),
    (
        "a sum on the right stays",  # as Kahan's summation needs
        lambda p, g, s, h: p + (g - s.m),
        ["sub t0", "add_ p"],
    ),
    (
        "a divided sum",
        lambda p, g, s, h: p - (h.a * g + h.b * s.m) / s.v,
        ["addcdiv_ p", "addcdiv_ p"],
    ),
    ("three factors", lambda p, g, s, h: p + g * s.m * s.v, ["mul t0", "addcmul_ p"]),
    ("nothing", lambda p, g, s, h: p, []),
    ("a number", _state("m", lambda p, g, s, h: 0.0), ["fill m", "add_ p"]),
    ("handed on", _state("m", lambda p, g, s, h: g), ["copy m", "add_ p"]),
    ("the old value", _state("m", lambda p, g, s, h: p), ["copy m", "add_ p"]),
]


@pytest.mark.parametrize(
    ("update", "expected"), [c[1:] for c in CHOSEN], ids=[c[0] for c in CHOSEN]
)
def test_operations_chosen(update: Callable[..., Any], expected: list[str]) -> None:
    assert operations(update) == expected


def test_a_result_may_begin_in_the_operand_it_is_stored_to() -> None:
    """Without a temporary: a copy, then in place."""
    found = lowered(_state("m", lambda p, g, s, h: sqrt(g)))
    assert [(i.op, i.out, i.in_place) for i in found.instructions if "m" in i.out] == [
        ("copy", "x_m", False),
        ("sqrt", "x_m", True),
    ]
    assert found.temporaries == 0


def test_an_operand_is_not_overwritten_while_it_is_needed() -> None:
    def update(p: Any, g: Any, s: Any, h: Any) -> Any:
        old = s.m
        s.m = h.a * s.m + g
        return p - s.m * old

    found = operations(update)
    assert found.index("addcmul_ p") < found.index("copy m")


def test_operands_that_change_places_wait_in_a_temporary() -> None:
    def update(p: Any, g: Any, s: Any, h: Any) -> Any:
        s.m, s.v = s.v, s.m
        return p - g

    assert sorted(operations(update)) == ["clone t0", "copy m", "copy v", "sub_ p"]
    assert sorted(operations(update, "m v")) == [
        *("load m", "load v", "store at_m", "store at_v", "sub_ p"),
    ]


def test_a_gradient_is_never_written() -> None:
    for _, update, _ in CHOSEN:
        assert all(i.out != "x_g" for i in lowered(update).instructions)


def test_a_converted_operand_is_loaded_when_it_is_needed_and_stored_once() -> None:
    def update(p: Any, g: Any, s: Any, h: Any) -> Any:
        s.m = lerp(s.m, g, h.a)
        return p * h.b - h.lr * s.m

    assert operations(update, "p g") == [
        *("load g", "lerp_ m", "load p", "mul_ p", "add_ p", "store at_p"),
    ]
    assert lowered(update, "p g").temporaries == 1
    assert lowered(update, "p").temporaries == 1
    assert lowered(update).temporaries == 0


def test_squares_are_summed_without_being_kept() -> None:
    found = lowered(lambda p, g, s, h: p - h.lr * norm(p) * g)
    assert [(i.op, i.args) for i in found.instructions] == [("squares", ("x_p",))]
    assert found.temporaries == 0


def test_the_source_names_the_lines_of_the_rule() -> None:
    found = lowered(lambda p, g, s, h: p - h.lr * g)
    eager, foreach = eager_printer.source(found), foreach_printer.source(found)
    assert "x_p.add_(x_g, alpha=k0)  # test_lowering.py:" in eager
    assert "torch._foreach_add_(x_p, x_g, alpha=k0)  # test_lowering.py:" in foreach


# ------------------------------------------------------------------------------ arbitrary programs

# On tensors a and b and a number k in (0, 1); no result is much larger than its arguments, and none
# jumps: another rounding must not lead to another result.
STEPS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add": lambda a, b, k: a + b,
    "subtract": lambda a, b, k: a - b,
    "scaled": lambda a, b, k: a - k * b,
    "scaled both": lambda a, b, k: k * a + (1 - k) * b,
    "product": lambda a, b, k: a * b / (1 + abs(b)),
    "added product": lambda a, b, k: a + k * b * b / (1 + b * b),
    "quotient": lambda a, b, k: a - k * b / (sqrt(abs(a)) + 1),
    "lerp": lambda a, b, k: lerp(a, b, k),
    "negative": lambda a, b, k: -a,
    "number less": lambda a, b, k: k - a,
    "maximum": lambda a, b, k: maximum(a, b),
    "minimum": lambda a, b, k: minimum(a, k),
    "inverse": lambda a, b, k: k / (1 + abs(a)),
    "first": lambda a, b, k: a,
}
Line = tuple[str, int, int, float]
LINES = st.lists(
    st.tuples(
        st.sampled_from([*STEPS, "where"]),
        st.integers(0, 20),
        st.integers(0, 20),
        st.sampled_from([0.25, 0.75]),
    ),
    min_size=1,
    max_size=8,
)
STATES = ("m", "v", "w")


def rule_of(lines: list[Line], results: list[int], dtype: torch.dtype) -> Rule:
    """A rule of these lines; each takes values of earlier ones, and the results are the last's."""

    def update(p: Any, g: Any, s: Any, h: Any) -> Any:
        values = [p, g, s.m, s.v, s.w]
        for name, i, j, k in lines:
            a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
            # Conditions are on operands alone, which are the same numbers everywhere.
            values.append(where(g > k, a, b) if name == "where" else STEPS[name](a, b, k))
        for name, i in zip(STATES, results[1:], strict=True):
            if i >= 0:
                setattr(s, name, values[-1 - i % len(values)])
        return values[-1 - results[0] % len(values)] + 0.5 * p

    states = {name: State(0.5, dtype=lambda _: dtype) for name in STATES}
    return Rule(update, states, name="lines")


@settings(max_examples=100, deadline=None)
@given(
    LINES,
    st.tuples(st.integers(0, 9), *[st.integers(-1, 9)] * 3).map(list),
    st.sampled_from(
        [
            (torch.float64, torch.float64, torch.float64),
            (torch.float64, torch.bfloat16, torch.float64),
            (torch.float64, torch.float64, torch.float32),
            (torch.float32, torch.float32, torch.float64),
        ]
    ),
)
@pytest.mark.parametrize("backend", [EagerBackend(), ForeachBackend()], ids=lambda b: b.name)
def test_any_program_comes_out_right(
    backend: Any,
    lines: list[Line],
    results: list[int],
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype],
) -> None:
    own, gradient, stored = dtypes
    rule = rule_of(lines, results, stored)
    generator = torch.Generator().manual_seed(len(lines))
    p, g = (torch.randn(33, generator=generator).to(dtype) for dtype in (own, gradient))
    param = Parameter(p.clone())
    give(param, g.clone())
    stepper = Stepper(backend, rule, [{"params": [param], "foreach": True, "lr": 0.1}])
    states = {name: torch.full_like(p, 0.5, dtype=stored) for name in STATES}
    for step in (1.0, 2.0):
        stepper.step()
        p, new, _ = apply(rule, p, g, states, {"lr": 0.1}, {"step": step})
        states |= new
    assert torch.equal(param.grad, g)
    tolerance = 1e-9 if torch.float32 not in dtypes else 1e-5
    torch.testing.assert_close(param.detach(), p, rtol=tolerance, atol=tolerance)
    held = stepper.state[param]
    for name in rule.states.keys() & held.keys():
        torch.testing.assert_close(held[name], states[name], rtol=tolerance, atol=tolerance)
