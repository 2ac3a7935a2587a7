"""Programs of what users do to optimizers: the same values as torch, or the same exception."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.apart import Returned, apart
from tests.fuzz.optimizers import (
    COMMANDS,
    FLAGS,
    NAMES,
    OPTIONS,
    SHAPES,
    Program,
    difference,
    run_both,
)

NUMBERS = {name: f.__code__.co_argcount - 1 for name, f in COMMANDS.items()}
STEPS = ("step", "step_again", "step_with_closure", "step_under")


@st.composite
def programs(draw: Any) -> Program:
    """Any program; every other command is a step."""
    name = draw(st.sampled_from(NAMES))
    options = dict(draw(st.sampled_from(OPTIONS.get(name, [{}]))))
    if name != "SparseAdam":
        options |= draw(st.sampled_from(FLAGS))
        if name == "SGD":
            options.pop("capturable", None)
    shapes = draw(st.lists(st.integers(0, len(SHAPES) - 1), min_size=1, max_size=5))
    commands = []
    for _ in range(draw(st.integers(1, 12))):
        kinds = STEPS if draw(st.booleans()) else tuple(COMMANDS)
        kind = draw(st.sampled_from(kinds))
        commands.append((kind, *(draw(st.integers(0, 9)) for _ in range(NUMBERS[kind]))))
    commands += [("step",), ("step",)]
    dtype = draw(st.sampled_from(("float64", "float32")))
    return Program(name, options, dtype, tuple(shapes), tuple(commands))


def check(program: Program) -> None:
    outcome = apart(run_both, program)
    assert isinstance(outcome, Returned), (program, outcome)
    found = difference(program, *outcome.value)
    assert found is None, f"{found}\n{program}"


QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(programs())
def test_programs_end_as_with_torch(program: Program) -> None:
    check(program)


@pytest.mark.slow
def test_many_programs_end_as_with_torch() -> None:
    end = time.monotonic() + float(os.environ.get("THALWEG_FUZZ_SECONDS", "60"))
    number = int(os.environ.get("THALWEG_FUZZ_SEED", "0"))
    cases = 0
    while time.monotonic() < end:
        number += 1

        @seed(number)
        @settings(max_examples=50, deadline=None, database=None, suppress_health_check=QUIET)
        @given(programs())
        def some(program: Program) -> None:
            nonlocal cases
            cases += 1
            check(program)

        some()
    print(f"{cases} programs")
