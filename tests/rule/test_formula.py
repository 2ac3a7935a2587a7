"""Formulas: traced for each kind of pass, with the derivatives asked for."""

from typing import Any

import pytest

from thalweg.rule import maximum
from thalweg.rule.formula import BACKWARD, EACH, FACTOR, SUM, Formula


def error(x: Any, y: Any, h: Any, weight: Any = None) -> Any:
    loss = (x - y) * (x - y) * h.factor
    if h.halved:
        loss = loss / 2
    return loss if weight is None else loss * weight


OPTIONS = {"factor": 3.0, "halved": False, FACTOR: 0.5}


def stores(program: Any) -> list[str]:
    return [name for name, _ in program.stage.stores]


def test_a_sum_stores_the_derivatives_asked_for() -> None:
    formula = Formula(error)
    program = formula.program(SUM, OPTIONS, ["x", "y"], ["y"])
    assert program.stage.loads == ("x", "y")
    assert stores(program) == ["_d_y"]
    assert len(program.stage.reductions) == 1
    assert program.operands == ("x", "y", "_d_y")


def test_each_stores_the_values_and_sums_nothing() -> None:
    program = Formula(error).program(EACH, OPTIONS, ["x", "y"])
    assert stores(program) == ["_value"]
    assert program.stage.reductions == ()


def test_backward_reads_what_comes_from_above() -> None:
    program = Formula(error).program(BACKWARD, OPTIONS, ["x", "y", "weight"], ["x", "weight"])
    assert program.stage.loads == ("x", "y", "weight", "_upstream")
    assert stores(program) == ["_d_x", "_d_weight"]


def test_a_number_is_a_constant_and_a_switch_another_program() -> None:
    formula = Formula(error)
    program = formula.program(SUM, OPTIONS, ["x", "y"], ["x"])
    other = OPTIONS | {"factor": 7.0, FACTOR: 2.0}
    assert formula.program(SUM, other, ["x", "y"], ["x"]) is program
    assert program.scalars(OPTIONS) != program.scalars(other)
    halved = OPTIONS | {"halved": True}
    assert program.scalars(halved) is None
    assert formula.program(SUM, halved, ["x", "y"], ["x"]) is not program


def test_other_operands_are_another_program() -> None:
    formula = Formula(error)
    one = formula.program(SUM, OPTIONS, ["x", "y"], ["x"])
    assert formula.program(SUM, OPTIONS, ["x", "y", "weight"], ["x"]) is not one
    assert formula.program(SUM, OPTIONS, ["x", "y"], ["x", "y"]) is not one


def test_an_option_that_is_missing_is_named() -> None:
    with pytest.raises(AttributeError, match=r"error: .*h\.factor"):
        Formula(error).program(EACH, {"halved": False}, ["x", "y"])


def test_value_and_derivative_share_what_they_have_in_common() -> None:
    def hinge(x: Any, y: Any, h: Any) -> Any:
        return maximum(1 - x * y, 0)

    program = Formula(hinge).program(SUM, {FACTOR: 1.0}, ["x", "y"], ["x"])
    products = [node for node in program.stage.body if node.op == "multiply"]
    loads = [{a.detail for a in node.args} for node in products]
    assert loads.count({"x", "y"}) == 1
