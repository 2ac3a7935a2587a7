"""Numbers in ranges: what counts as one, which ends belong, and what an error says."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from thalweg.optim.options import check_ranges
from thalweg.ranges import ANY, FRACTION, NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, Range, number

SPELLINGS = [0.5, Fraction(1, 2), np.float32(0.5), np.array(0.5), torch.tensor(0.5)]


@pytest.mark.parametrize("value", SPELLINGS, ids=lambda v: type(v).__name__)
def test_what_counts_as_a_number(value: Any) -> None:
    found = number("own", "x", value, FRACTION)
    assert type(found) is float
    assert found == 0.5
    check_ranges("own", {"x": value}, {"x": FRACTION})


@pytest.mark.parametrize("value", ["0.5", b"1", None, [0.5], 1j, torch.ones(2)], ids=repr)
def test_what_does_not(value: Any) -> None:
    with pytest.raises(TypeError, match="own: x must be a number, got "):
        number("own", "x", value)


def test_ends_belong_or_do_not() -> None:
    for allowed, low, high in [
        (UNIT_INTERVAL, True, True),
        (FRACTION, True, False),
        (Range(0, 1, open="low"), False, True),
        (Range(0, 1, open="both"), False, False),
    ]:
        assert (0 in allowed, 1 in allowed) == (low, high)
        assert 0.5 in allowed
        assert -0.5 not in allowed
        assert 1.5 not in allowed


@pytest.mark.parametrize(
    ("value", "allowed", "finite", "any_size"),
    [
        (-1, NON_NEGATIVE, "a finite number >= 0, got -1", ">= 0, got -1"),
        (1, FRACTION, "a finite number >= 0 and < 1, got 1", ">= 0 and < 1, got 1"),
        (0.0, POSITIVE, "a finite number > 0, got 0.0", "> 0, got 0.0"),
        (math.nan, NON_NEGATIVE, "a finite number >= 0, got nan", ">= 0, got nan"),
        (math.nan, ANY, "finite, got nan", ">= -inf, got nan"),
        (math.inf, NON_NEGATIVE, "a finite number >= 0, got inf", None),
        (-math.inf, ANY, "finite, got -inf", None),
    ],
)
def test_out_of_range(value: float, allowed: Range, finite: str, any_size: str | None) -> None:
    with pytest.raises(ValueError, match=f"^own: x must be {finite}; use 2$"):
        number("own", "x", value, allowed, "; use 2")
    if any_size is None:  # an optimizer's option may be infinite
        assert number("own", "x", value, allowed, infinite=True) == value
        check_ranges("own", {"x": value}, {"x": allowed})
        return
    with pytest.raises(ValueError, match=f"^own: x must be {any_size}$"):
        check_ranges("own", {"x": value}, {"x": allowed})


def test_true_is_a_number_where_it_may_be() -> None:
    assert number("own", "x", True) == 1
    with pytest.raises(TypeError, match="own: x must be a number, got bool True"):
        check_ranges("own", {"x": True}, {"x": NON_NEGATIVE})


def test_tensors_as_options() -> None:
    check_ranges("own", {"x": torch.ones(1, requires_grad=True)}, {"x": POSITIVE})
    check_ranges("own", {"x": torch.empty((), device="meta")}, {"x": POSITIVE})
    with pytest.raises(ValueError, match=r"own: Tensor x must be 1-element, got shape \(2,\)"):
        check_ranges("own", {"x": torch.ones(2)}, {"x": POSITIVE})
    with pytest.raises(ValueError, match=r"own: x must be > 0, got -1.0"):
        check_ranges("own", {"x": torch.tensor([-1.0])}, {"x": POSITIVE})


def test_options_that_are_tuples() -> None:
    ranges = {"betas": (FRACTION, FRACTION)}
    check_ranges("own", {"betas": (0.9, 0.99)}, ranges)
    for value, error, message in [
        (0.9, TypeError, "betas must be a tuple of 2 numbers, got 0.9"),
        ((0.9,), ValueError, "betas must hold 2 numbers, got "),
        ((0.9, 1.0), ValueError, r"betas\[1\] must be >= 0 and < 1, got 1.0"),
    ]:
        with pytest.raises(error, match=f"own: {message}"):
            check_ranges("own", {"betas": value}, ranges)
    with pytest.raises(KeyError, match="own: a parameter group lacks the option 'betas'"):
        check_ranges("own", {}, ranges)
