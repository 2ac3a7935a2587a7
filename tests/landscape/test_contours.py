from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch

from thalweg.landscape import SURFACES, bowl, rosenbrock, saddle, valley
from thalweg.landscape.contours import Levels, Relief, levels, lines
from thalweg.landscape.surfaces import Surface

NAMES = list(SURFACES)


def surface_of(function: Any, **known: Any) -> Surface:
    return Surface("made up", "f", function, (-2.0, 2.0, -1.0, 1.0), **known)


def crossings(a: np.ndarray, b: np.ndarray) -> int:
    """How many segments of one polyline cross segments of another, ends not counted."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        u, v = q - p, r - p
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    p, q = a[:-1, None], a[1:, None]
    r, s = b[None, :-1], b[None, 1:]
    return int(((side(p, q, r) * side(p, q, s) < 0) & (side(r, s, p) * side(r, s, q) < 0)).sum())


def on_frame(point: np.ndarray, region: tuple[float, float, float, float]) -> bool:
    left, right, bottom, top = region
    x, y = point
    return bool(np.isclose([x, x, y, y], [left, right, bottom, top], atol=1e-12).any())


@pytest.mark.parametrize("name", NAMES)
def test_height_is_the_same_along_a_line(name: str) -> None:
    surface = SURFACES[name]()
    relief = Relief(surface)
    at = relief.levels
    interval = np.diff(at.scaled(np.array(at.values))).min()
    for line in relief.lines:
        x, y = torch.from_numpy(line.points).unbind(1)
        found = at.scaled(surface(x, y).numpy())
        error = np.abs(found - at.scaled(np.array([at.values[line.level]]))) / interval
        # Between grid points heights are interpolated linearly, and points left out.
        assert np.median(error) < 0.02, at.label(line.level)
        assert error.max() < 0.3, at.label(line.level)


@pytest.mark.parametrize("name", NAMES)
def test_every_line_closes_or_ends_at_the_frame(name: str) -> None:
    surface = SURFACES[name]()
    found = lines(surface)
    assert {line.level for line in found} == set(range(len(levels(surface).values)))
    for line in found:
        ends = line.points[[0, -1]]
        assert line.closed or all(on_frame(end, surface.region) for end in ends)


@pytest.mark.parametrize("name", ["rosenbrock", "himmelblau", "saddle", "goldstein_price"])
def test_lines_of_different_heights_never_cross(name: str) -> None:
    pieces = lines(SURFACES[name](), resolution=81)
    assert len(pieces) > 10
    for a, b in combinations(pieces, 2):
        if a.level != b.level:
            assert crossings(a.points, b.points) == 0


def test_lines_of_a_narrow_valley_are_not_torn() -> None:
    # Where (1 - x)² + 100 (y - x²)² is at most 1, the set is one crescent: its lines are one each.
    found = lines(rosenbrock())
    low = [i for i, height in enumerate(levels(rosenbrock()).heights) if height < 1]
    assert len(low) >= 3
    assert [sum(line.level == i for line in found) for i in low] == [1] * len(low)


def test_crossings_are_seen() -> None:
    one = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    assert crossings(one, one - np.array([0.0, 0.5])) == 0
    assert crossings(one, np.array([[0.0, 0.5], [2.0, 0.5]])) == 2


def test_interval_is_the_same_from_line_to_line() -> None:
    for name in NAMES:
        at = levels(SURFACES[name]())
        assert 10 <= len(at.values) <= 24, name
        if at.logarithmic:
            ratios = np.array(at.heights[1:]) / at.heights[:-1]
            assert ratios == pytest.approx(ratios[0]), name
            assert [b - a for a, b in pairwise(at.scaled(np.array(at.values)))] == pytest.approx(
                np.log10(ratios)
            )
        else:
            steps = np.diff(at.heights)
            assert steps == pytest.approx(steps[0]), name
            assert f"every {steps[0]:.3g}." in at.rule


def test_saddles_have_a_line_at_zero_and_as_many_below_as_the_region_holds() -> None:
    for name in ("saddle", "monkey_saddle"):
        at = levels(SURFACES[name]())
        assert not at.logarithmic
        assert 0.0 in at.values
        assert min(at.values) < 0 < max(at.values)
        assert at.values.index(0.0) in at.labelled


def test_labels_are_round_numbers() -> None:
    at = levels(rosenbrock())
    assert [at.label(i) for i in at.labelled] == ["0.1", "1", "10", "100", "1000"]
    wide = Levels((1.0,) * 6, (1e-4, 1e-3, 1e4, 1e5, 2.5e7, -0.5), 0.0, 1, ())
    assert [wide.label(i) for i in range(6)] == ["10⁻⁴", "0.001", "10000", "10⁵", "2.5e+07", "−0.5"]


def test_lines_meet_the_valley_at_right_angles() -> None:
    surface = bowl(condition=10.0, angle=30.0)
    (axis,) = valley(surface)
    met = 0
    for line in lines(surface, resolution=401):
        for start, end in pairwise(line.points):
            step = np.array([start, end])
            if crossings(axis, step):
                along = axis[-1] - axis[0]
                cosine = along @ (end - start) / np.linalg.norm(along) / np.linalg.norm(end - start)
                # A segment is a chord of the line's sharpest bend: within a few degrees.
                assert abs(cosine) < 0.12
                met += 1
    assert met >= 10


def test_lines_are_denser_where_the_slope_is_steeper() -> None:
    # Of a bowl in height: log lines are ellipses whose axes have the ratio of the slopes.
    closed = [line.points for line in lines(bowl(condition=9.0)) if line.closed]
    assert len(closed) > 5
    for points in closed:
        width, height = np.ptp(points, axis=0)
        assert width / height == pytest.approx(3.0, rel=0.05)


def test_positive_surface_without_a_minimum_is_measured_from_zero() -> None:
    at = levels(surface_of(lambda x, y: 0.01 + x**2 + y**2))
    assert at.logarithmic
    assert at.base == 0.0


def test_flat_surface_has_few_lines_and_no_error() -> None:
    relief = Relief(surface_of(lambda x, y: 0 * x + 0 * y + 3.0))
    assert relief.lines == ()
    assert relief.levels.rule


def test_lines_end_where_the_function_is_not_finite() -> None:
    surface = surface_of(lambda x, y: torch.where(x > 1, torch.nan, x**2 + y**2), minima=((0, 0),))
    found = lines(surface)
    assert found
    assert max(line.points[:, 0].max() for line in found) <= 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: levels(saddle(), 0), ValueError, "count must be a finite number >= 1 and < 61"),
        (lambda: levels(saddle(), 2.5), TypeError, "count must be an integer"),
        (lambda: lines(saddle(), resolution=1), ValueError, "resolution must be"),
        (
            lambda: levels(surface_of(lambda x, y: (x + y) * torch.nan)),
            ValueError,
            "finite somewhere",
        ),
    ],
    ids=["count", "no integer", "resolution", "nan"],
)
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
