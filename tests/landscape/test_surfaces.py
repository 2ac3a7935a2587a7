"""What a surface is: its grid, its lowest value, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from thalweg.landscape import Surface
from thalweg.landscape.surfaces import pair


def plane(**changes: Any) -> Surface:
    given: dict[str, Any] = {
        "name": "plane",
        "formula": "f(x, y) = x + 10 y",
        "function": lambda x, y: x + 10 * y,
        "region": (0.0, 2.0, -1.0, 1.0),
    }
    return Surface(**(given | changes))


def test_grid_has_y_in_rows_and_x_in_columns() -> None:
    x, y, z = plane().grid(3)
    np.testing.assert_array_equal(x, [0, 1, 2])
    np.testing.assert_array_equal(y, [-1, 0, 1])
    np.testing.assert_array_equal(z, [[-10, -9, -8], [0, 1, 2], [10, 11, 12]])
    assert z.dtype == np.float64


def test_grid_of_a_function_of_one_variable_is_a_grid_all_the_same() -> None:
    _, _, z = plane(function=lambda x, y: x).grid(3)
    np.testing.assert_array_equal(z, [[0, 1, 2]] * 3)


def test_grid_has_the_surfaces_resolution_by_default() -> None:
    assert plane(resolution=7).grid()[2].shape == (7, 7)


def test_lowest_value_is_that_at_the_first_minimum() -> None:
    assert plane(minima=((0.5, -1.0), (0.0, 0.0))).lowest == -9.5
    assert plane().lowest is None


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"function": 3.0}, TypeError, "function must be callable, got 3.0"),
        ({"region": (0.0, 1.0, 0.0)}, ValueError, "region must be lowest and highest x"),
        ({"region": (1.0, 0.0, 0.0, 1.0)}, ValueError, "region must be lowest and highest x"),
        ({"region": (0.0, float("inf"), 0.0, 1.0)}, ValueError, r"region\[1\] must be finite"),
        ({"region": "wide"}, TypeError, "region must be a list or a tuple of numbers"),
        ({"minima": ((0.0,),)}, ValueError, r"minima\[0\] must be two numbers"),
        ({"start": (0.0, float("nan"))}, ValueError, r"start\[1\] must be finite"),
        ({"resolution": 1}, ValueError, "resolution must be a finite number >= 2"),
        ({"resolution": 2.5}, TypeError, "resolution must be an integer"),
    ],
    ids=lambda x: "" if not isinstance(x, dict) else "-".join(f"{k}={v}" for k, v in x.items()),
)
def test_nonsense_is_refused(changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=f"^Surface: {words}"):
        plane(**changes)


@pytest.mark.parametrize(("count", "kind"), [(1, ValueError), (2.5, TypeError)])
def test_grid_refuses_nonsense(count: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^grid: count must be"):
        plane().grid(count)


def test_a_pair_is_two_finite_numbers() -> None:
    assert pair("owner", "at", [1, torch.tensor(2.5)]) == (1, 2.5)
    with pytest.raises(ValueError, match=r"^owner: at must be two numbers, got"):
        pair("owner", "at", (1, 2, 3))


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        (lambda x, y: 1.0, TypeError, "plane: function must return a tensor, got float 1.0"),
        (lambda x, y: torch.stack([x + y, x]), ValueError, r"one value per point, shape \(\), got"),
    ],
    ids=["number", "two"],
)
def test_values_are_a_tensor_of_the_points_shape(function: Any, kind: Any, words: str) -> None:
    zero = torch.zeros(())
    with pytest.raises(kind, match=words):
        plane(function=function)(zero, zero)
