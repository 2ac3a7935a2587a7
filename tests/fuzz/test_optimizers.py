"""Programs of what users do to optimizers: the same values as torch, or the same exception."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.apart import Returned, apart
from tests.fuzz.commands import COMMANDS
from tests.fuzz.optimizers import (
    FLAGS,
    FUSED,
    MODERN,
    NAMES,
    OPTIONS,
    Ending,
    differences,
    endings,
    run_all,
)
from tests.fuzz.world import SHAPES, Program

NUMBERS = {name: f.__code__.co_argcount - 1 for name, f in COMMANDS.items()}
OF_A_BUILD = {"deadline": None, "suppress_health_check": [*HealthCheck], "database": None}
STEPS = ("step", "step_again", "step_with_closure", "step_under", "step_interrupted", "step_undone")


@st.composite
def programs(draw: Any) -> Program:
    """Any program; every other command is a step."""
    name = draw(st.sampled_from((*NAMES, *MODERN)))
    options = dict(draw(st.sampled_from(OPTIONS.get(name, [{}]))))
    if name != "SparseAdam":
        options |= draw(st.sampled_from(FLAGS))
        if name in ("SGD", "Adagrad"):
            options.pop("capturable", None)
        if name in FUSED and "foreach" not in options and draw(st.booleans()):
            options["fused"] = True
    shapes = draw(st.lists(st.integers(0, len(SHAPES) - 1), min_size=1, max_size=5))
    commands = []
    for _ in range(draw(st.integers(1, 12))):
        kinds = STEPS if draw(st.booleans()) else tuple(COMMANDS)
        kind = draw(st.sampled_from(kinds))
        commands.append((kind, *(draw(st.integers(0, 9)) for _ in range(NUMBERS[kind]))))
    commands += [("step",), ("step",)]
    dtype = draw(st.sampled_from(("float64", "float32")))
    return Program(name, options, dtype, tuple(shapes), tuple(commands))


def check_all(some: list[Program]) -> None:
    """Run them in one process; where it died, one after another in processes of their own."""
    together = apart(run_all, some, longest=300)
    if isinstance(together, Returned):
        for program, found in zip(some, together.value, strict=True):
            check(program, found)
        return
    for program in some:
        outcome = apart(endings, program)
        assert isinstance(outcome, Returned), (program, outcome)
        check(program, outcome.value)


def check(program: Program, found: list[Ending]) -> None:
    how = differences(program, found)
    assert how is None, f"{how}\n{program}"


# Hypothesis tries the simplest list, of one program over and over, before any other.
@settings(max_examples=2, phases=[Phase.generate], derandomize=True, **OF_A_BUILD)
@given(st.lists(programs(), min_size=30, max_size=30))
def test_programs_end_as_with_torch(some: list[Program]) -> None:
    check_all(some)


@pytest.mark.slow
def test_many_programs_end_as_with_torch() -> None:
    end = time.monotonic() + float(os.environ.get("THALWEG_FUZZ_SECONDS", "60"))
    number = int(os.environ.get("THALWEG_FUZZ_SEED", "0"))
    cases = 0
    while time.monotonic() < end:
        number += 1

        @seed(number)
        @settings(max_examples=10, phases=[Phase.generate], **OF_A_BUILD)
        @given(st.lists(programs(), min_size=50, max_size=50))
        def some(some: list[Program]) -> None:
            nonlocal cases
            if time.monotonic() < end:
                cases += len(some)
                check_all(some)

        some()
    print(f"{cases} programs")
