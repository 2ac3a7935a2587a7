"""Programs of one loss do on thalweg what they do on torch: the same numbers or the same errors."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.apart import Died, Raised, Returned, apart
from tests.fuzz.losses import CALLS, Program, programs, run, run_all

SECONDS = float(os.environ.get("THALWEG_FUZZ_SECONDS", "60"))
OF_A_BUILD = {"deadline": None, "suppress_health_check": [*HealthCheck], "database": None}


def known(program: Program, ours: Any, torchs: Any) -> str | None:
    """Why the two differ on purpose, if they do."""
    name = CALLS[program.call].name
    if isinstance(torchs, Died):
        return "torch itself dies"
    if name == "l1_loss" and "default_device" in program.modes:
        return "torch's forgets the weight there"
    if isinstance(ours, Returned) and isinstance(torchs, Raised):
        if program.between in ("in_place", "target_in_place"):
            return "a sum's gradients are those of its forward pass"
        if program.hook:
            return "a sum needs no saved tensor, and ours are computed in the operands' dtype"
        if "NotImplementedError" in torchs.kinds or "not implemented for" in torchs.message:
            return "torch has no kernel for it"
        if program.use in ("double", "hessian", "batched", "jacobian", "vmap", "jacrev"):
            return "torch has no derivative of its derivative, or none of batches"
        if name in ("nll_loss", "multi_margin_loss", "multilabel_margin_loss", "ctc_loss"):
            return "ours takes more layouts and dtypes"
    if (
        isinstance(ours, Raised)
        and isinstance(torchs, Returned)
        and program.hook in ("fewer", "one")
    ):
        return "torch computes with sizes that broadcast; ours refuses another size"
    if program.rows == 0:
        return "the mean of nothing"
    return None


def check_all(some: list[Program]) -> None:
    """Run them in two processes; where one died, one after another in processes of their own."""
    pairs = []
    for ours in (True, False):
        together = apart(run_all, some, ours, longest=300)
        if isinstance(together, Returned):
            pairs.append(together.value)
        else:
            pairs.append([apart(run, program, ours) for program in some])
    for program, found, wanted in zip(some, *pairs, strict=True):
        check(program, found, wanted)


def check(program: Program, ours: Any, torchs: Any) -> None:
    assert not isinstance(ours, Died), f"{program}: {ours}"
    if known(program, ours, torchs):
        return
    if isinstance(torchs, Raised):
        assert isinstance(ours, Raised), f"{program}: {torchs} but ours returned"
        shared = set(ours.kinds) & set(torchs.kinds) - {"Exception", "BaseException", "object"}
        assert shared, f"{program}: {ours} for {torchs}"
        return
    assert isinstance(ours, Returned), f"{program}: {ours}"
    # 16 bits are rounded in other places; the value itself is measured against float64 elsewhere.
    close = 0.1 if program.dtype == "bfloat16" or "autocast" in program.modes else 1e-3
    for one, other in zip(ours.value, torchs.value, strict=True):
        largest = np.abs(other[np.isfinite(other)]).max(initial=1.0)
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
