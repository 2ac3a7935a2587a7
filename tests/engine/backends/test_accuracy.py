"""Back ends that let torch compute are as close to float64 as torch's own optimizers.

On every option combination of torch's database, as the kernels are (``tests/optim``).
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import thalweg.optim as optim
from tests.optim.problems import (
    SHARED_CASES,
    Case,
    Run,
    assert_as_close,
    assert_relative,
    assert_same_layout,
    defaults,
    exact_run,
    problem,
    run,
    torch_run,
)

BACKENDS = {"eager": {"fused": False}, "foreach": {"fused": False, "foreach": True}}


def _pairs() -> list[Any]:
    """Every case with each back end; ``foreach=True`` takes a tensor only with ``capturable``."""
    found = []
    for case in SHARED_CASES:
        given = case.options()
        numbers = (given.get("lr"), *given.get("betas", ()))
        if not any(isinstance(x, torch.Tensor) for x in numbers):
            found += [pytest.param(case, name, {}, id=f"{case}-{name}") for name in BACKENDS]
            continue
        found.append(pytest.param(case, "eager", {}, id=f"{case}-eager"))
        if "capturable" in defaults(case.name):
            extra = {"capturable": True}
            found.append(pytest.param(case, "foreach", extra, id=f"{case}-foreach"))
    return found


every_pair = pytest.mark.parametrize(("case", "backend", "extra"), _pairs())


def ours(case: Case, dtype: torch.dtype, backend: str, extra: dict[str, bool]) -> Run:
    options: dict[str, Any] = {**BACKENDS[backend], **extra}
    done = run(getattr(optim, case.name), case, problem(torch.float32), dtype, **options)
    engine = done.optimizer._engine  # type: ignore[union-attr]
    assert {choice.backend for choice in engine.choices.values()} == {backend}
    return done


@functools.cache
def torchs(case: Case) -> Run:
    return torch_run(case, problem(torch.float32), torch.float32)


@every_pair
def test_float32_is_as_close_to_float64_as_torchs(
    case: Case, backend: str, extra: dict[str, bool]
) -> None:
    mine, theirs = ours(case, torch.float32, backend, extra), torchs(case)
    assert_same_layout(mine, theirs)
    assert_as_close(mine, theirs, exact_run(case, problem(torch.float32)), torch.float32)


@every_pair
def test_float64_agrees(case: Case, backend: str, extra: dict[str, bool]) -> None:
    exact = exact_run(case, problem(torch.float32))
    assert_relative(ours(case, torch.float64, backend, extra), exact, 1e-12)
