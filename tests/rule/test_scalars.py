"""Scalars: float64 arithmetic that answers where Python raises, as torch does."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from thalweg.rule import scalars

INF, NAN = math.inf, math.nan
SPECIAL = [0.0, -0.0, INF, -INF, NAN, 5e-324, -5e-324, 1.7e308, -1.7e308]
VALUES = [*SPECIAL, 1.0, -1.0, 0.5, -0.5, 2.0, 3.0, -3.0, 1 / 3, 1000.0, -1000.0]


def same(a: float, b: float) -> bool:
    """Equal, with the sign of zero; NaN equals NaN."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b and math.copysign(1.0, a) == math.copysign(1.0, b)


def double(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [(scalars.divide, torch.div), (scalars.power, torch.pow)],
    ids=["divide", "power"],
)
def test_two_arguments_as_torch(ours, torchs) -> None:
    for a, b in itertools.product(VALUES, repeat=2):
        wanted = torchs(double(a), double(b)).item()
        got = ours(a, b)
        assert type(got) is float
        assert same(got, wanted) or math.isclose(got, wanted, rel_tol=1e-15), (a, b, got, wanted)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_extremes_as_torch_but_for_the_sign_of_zero(name: str) -> None:
    ours, torchs = getattr(scalars, name), getattr(torch, name)
    for a, b in itertools.product(VALUES, repeat=2):
        got, wanted = ours(a, b), torchs(double(a), double(b)).item()
        assert got == wanted or (math.isnan(got) and math.isnan(wanted)), (a, b)


ONE_ARGUMENT = ["sqrt", "exp", "log", "log1p", "expm1", "tanh", "sigmoid", "atan", "sign"]


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_one_argument_as_torch(name: str) -> None:
    ours, torchs = getattr(scalars, name), getattr(torch, name)
    for x in VALUES:
        got, wanted = ours(x), torchs(double(x)).item()
        assert type(got) is float
        # A library may round what is below the smallest normal number to 0.
        close = math.isclose(got, wanted, rel_tol=1e-15, abs_tol=2.3e-308)
        assert (name == "sign" and got == wanted) or same(got, wanted) or close, (x, got, wanted)


def test_where_chooses_by_truth() -> None:
    assert scalars.where(True, 1.0, NAN) == 1.0
    assert scalars.where(False, NAN, 2.0) == 2.0
