"""Programs of one loss do on thalweg what they do on torch: the same numbers or the same errors."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.apart import Died, Outcome, Raised, Returned, apart
from tests.fuzz.known import CHANGED, known
from tests.fuzz.losses import Program, outcome, programs, run_all

SECONDS = float(os.environ.get("THALWEG_FUZZ_SECONDS", "60"))
OF_A_BUILD = {"deadline": None, "suppress_health_check": [*HealthCheck], "database": None}


def check_all(some: list[Program]) -> None:
    """Run them in two processes, and compare."""
    for program, found, wanted in zip(
        some, outcomes(some, True), outcomes(some, False), strict=True
    ):
        check(program, found, wanted)


def outcomes(some: list[Program], ours: bool) -> list[Outcome]:
    """What becomes of them in one process; where it died, in processes of their own."""
    together = apart(run_all, some, ours, longest=300)
    if isinstance(together, Returned):
        found: list[Outcome] = together.value
        return found
    alone = [apart(outcome, program, ours) for program in some]
    return [each.value if isinstance(each, Returned) else each for each in alone]


def check(program: Program, ours: Outcome, torchs: Outcome) -> None:
    assert not isinstance(ours, Died), f"{program}: {ours}"
    if isinstance(ours, Returned) and isinstance(torchs, Raised) and CHANGED in torchs.message:
        # Nothing is said against gradients of the operands as they were.
        [torchs] = outcomes([program._replace(between="nothing")], ours=False)
    if isinstance(torchs, Died) or known(program, ours, torchs):
        return
    if isinstance(torchs, Raised):
        assert isinstance(ours, Raised), f"{program}: {torchs} but ours returned"
        shared = set(ours.kinds) & set(torchs.kinds) - {"Exception", "BaseException", "object"}
        assert shared, f"{program}: {ours} for {torchs}"
        return
    assert isinstance(ours, Returned), f"{program}: {ours}"
    # 16 bits are rounded in other places; the value itself is measured against float64 elsewhere.
    close = 0.1 if program.dtype == "bfloat16" or "autocast" in program.modes else 1e-3
    sizes = [np.abs(x[np.isfinite(x)]).max(initial=1.0) for x in torchs.value]
    for one, other, size in zip(ours.value, torchs.value, sizes, strict=True):
        # What 16 bits leave of numbers that cancel out is as large as theirs.
        largest = max(sizes) if close == 0.1 else size
        near = {"rtol": close, "atol": close * largest}
        np.testing.assert_allclose(one, other, err_msg=str(program), **near)


# Hypothesis tries the simplest list, of one program over and over, before any other.
@settings(max_examples=2, derandomize=True, phases=[Phase.generate], **OF_A_BUILD)
@given(st.lists(programs(), min_size=30, max_size=30))
def test_some_programs(some: list[Program]) -> None:
    check_all(some)


@pytest.mark.slow
def test_programs_for_a_while() -> None:
    end = time.monotonic() + SECONDS

    @settings(max_examples=1_000_000, phases=[Phase.generate], **OF_A_BUILD)
    @given(st.lists(programs(), min_size=50, max_size=50))
    def for_a_while(some: list[Program]) -> None:
        if time.monotonic() > end:
            raise TimeoutError
        check_all(some)

    with pytest.raises(TimeoutError):
        for_a_while()
