"""log(1 + x) for x from 0 to 1: its distance, and where kernels have it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.backends.cpu.compiled import over_arrays
from tests.engine.backends.cpu.test_elementary import (
    Polynomial,
    coefficients,
    distances,
    float32_of,
)
from thalweg.engine.backends.cpu.elementary import log1p_of_unit
from thalweg.engine.backends.cpu.intrinsics import float32_pointer, int64_pointer
from thalweg.engine.backends.cpu.printer import compile_stage
from thalweg.engine.backends.cpu.spelling import SHORTER
from thalweg.engine.formats import FORMATS
from thalweg.rule.formula import EACH, Formula
from thalweg.rule.functions import abs, exp, log1p, softplus, where

WORST = 2
ONE = 0x3F800000  # the bits of 1.0: those below belong to the numbers from 0 on


def each(arguments: Any) -> None:
    a = int64_pointer(arguments)
    x, out = float32_pointer(a[1]), float32_pointer(a[2])
    for i in range(a[0]):
        out[i] = log1p_of_unit(x[i])


@functools.cache
def over() -> Callable[..., None]:
    return over_arrays(each)


def worst(bits: torch.Tensor) -> int:
    x = float32_of(bits)
    found = torch.empty_like(x)
    over()(x.numpy(), found.numpy())
    return int(distances(found, torch.log1p(x.double()).float()).max())


def test_distance_from_the_correctly_rounded() -> None:
    edges = torch.cat([torch.arange(4096), torch.arange(ONE - 2**20, ONE + 1)])
    assert worst(edges) <= WORST
    assert worst(torch.arange(0, ONE, 1021)) <= WORST


def every_unit(count: int = 2**22) -> Iterator[torch.Tensor]:
    for start in range(0, ONE + 1, count):
        yield torch.arange(start, min(start + count, ONE + 1))


@pytest.mark.slow
def test_distance_for_every_float32() -> None:
    assert max(map(worst, every_unit())) == WORST


def test_nan_stays() -> None:
    x = np.array([np.nan, 0.0, 1e-45], dtype=np.float32)
    found = np.zeros_like(x)
    over()(x, found)
    assert np.isnan(found[0])
    assert found[1:].tolist() == x[1:].tolist()


def test_polynomial_is_as_good_as_stated_and_nearly_as_can_be() -> None:
    polynomial = Polynomial(np.log1p, 1, 2, 1, 1e-3, 1.0, coefficients("U"), 27)
    x = 0.5 + 0.499 * np.cos(np.pi * (np.arange(1000) + 0.5) / 1000)
    error = np.abs(polynomial.error(np.array(polynomial.coefficients, dtype=float), x)).max()
    assert error <= 2.0**-polynomial.bits
    assert error <= 2 * polynomial.best(x)


def positive_first(x: Any) -> Any:
    return log1p(exp(where(x >= 0, -x, x)))


SHORT = {"softplus": softplus, "abs": lambda x: log1p(exp(-abs(x))), "where": positive_first}
LONG = {
    "plain": lambda x: log1p(exp(x)),
    "no exp": lambda x: log1p(where(x > 0, -x, x)),
    "another": lambda x: log1p(exp(where(x > 1, -x, x))),
    "swapped": lambda x: log1p(exp(where(x > 0, x, -x))),
    "both": lambda x: log1p(exp(where(x > 0, -x, -x * 2))),
}


@pytest.mark.parametrize("name", [*SHORT, *LONG])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_where_the_argument_is_at_most_zero(name: str, dtype: torch.dtype) -> None:
    function: Callable[[Any], Any] = {**SHORT, **LONG}[name]
    program = Formula(lambda x, h: function(x), name="tail").program(EACH, {}, ["x"])
    formats = dict.fromkeys(program.operands, FORMATS[dtype])
    source = compile_stage(program, 0, formats).generated.source
    short = name in SHORT and dtype is torch.float32
    assert (f"{SHORTER}(" in source) == short
