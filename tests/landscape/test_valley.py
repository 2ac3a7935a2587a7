"""The valley line: lowest points of cross-sections, found to rounding and joined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from thalweg.landscape import (
    SURFACES,
    Surface,
    beale,
    bowl,
    himmelblau,
    monkey_saddle,
    rastrigin,
    rosenbrock,
    saddle,
    valley,
)

Array = NDArray[np.float64]


def derivatives(surface: Surface, at: Array) -> tuple[Array, Array]:
    """Gradient (2,) and Hessian (2, 2) at a point, by autograd."""
    p = torch.from_numpy(np.array(at)).requires_grad_()

    def f(q: torch.Tensor) -> torch.Tensor:
        return surface(q[0], q[1])

    (gradient,) = torch.autograd.grad(f(p), p)
    return gradient.numpy(), torch.autograd.functional.hessian(f, p.detach()).numpy()


def on_the_frame(surface: Surface, point: Array) -> bool:
    left, right, bottom, top = surface.region
    return bool(np.isclose(point, [left, bottom]).any() or np.isclose(point, [right, top]).any())


@pytest.mark.parametrize(("a", "b"), [(1.0, 100.0), (2.0, 10.0), (0.5, 1.0)])
def test_rosenbrocks_valley_is_its_parabola(a: float, b: float) -> None:
    surface = rosenbrock(a, b)
    (line,) = valley(surface)
    x, y = line.T
    assert abs(y - x**2).max() < 1e-3  # what is promised
    assert abs(y - x**2).max() < 1e-12  # what is so
    assert (np.diff(x) > 0).all()
    # From frame to frame, although the sections stop short of it.
    np.testing.assert_allclose(line[[0, -1], 1], surface.region[3], atol=1e-12)


def test_rosenbrocks_gradient_extremal_is_another_line() -> None:
    """What the docstring says of the other definition, worked out by its own equations."""
    deviation, distance = 0.0, 0.0
    for x in np.linspace(-1.73, 1.73, 174):
        y = x * x + np.linspace(-0.05, 0.05, 2001)
        u = y - x * x
        gradient = np.stack([-2 * (1 - x) - 400 * x * u, 200 * u], -1)
        hessian = np.empty((len(y), 2, 2))
        hessian[:, 0, 0] = 2 - 400 * u + 800 * x * x
        hessian[:, 0, 1] = hessian[:, 1, 0] = -400 * x
        hessian[:, 1, 1] = 200
        steepest = np.linalg.eigh(hessian).eigenvectors[:, :, 1]
        steepest *= np.sign(steepest[:, 1:])
        slope = (gradient * steepest).sum(-1)
        (k,) = np.nonzero((slope[:-1] < 0) & (slope[1:] >= 0))[0]
        off = abs(u[k] - slope[k] * (u[k + 1] - u[k]) / (slope[k + 1] - slope[k]))
        deviation, distance = max(deviation, off), max(distance, off / math.hypot(1, 2 * x))
    assert deviation == pytest.approx(0.008, abs=5e-4)
    assert distance == pytest.approx(0.005, abs=5e-4)


@pytest.mark.parametrize("angle", [0.0, 25.0, 45.0, 90.0, 160.0])
@pytest.mark.parametrize("condition", [1.5, 50.0])
def test_a_bowls_valley_is_its_long_axis(condition: float, angle: float) -> None:
    surface = bowl(condition, angle)
    (line,) = valley(surface)
    turn = math.radians(angle)
    across = line @ [-math.sin(turn), math.cos(turn)]
    along = line @ [math.cos(turn), math.sin(turn)]
    assert abs(across).max() < 1e-9
    reach = 4 / max(abs(math.cos(turn)), abs(math.sin(turn)))  # from the middle to the frame
    assert np.ptp(along) == pytest.approx(2 * reach, abs=1e-6)


def test_without_a_direction_it_is_the_steepest_at_the_minimum() -> None:
    turned = bowl(20, 35)
    plain = Surface("plain", turned.formula, turned.function, turned.region, turned.minima)
    (line,) = valley(plain)
    (want,) = valley(turned)
    slope = np.polyfit(*line.T, 1)
    np.testing.assert_allclose(slope, np.polyfit(*want.T, 1), atol=1e-8)


def test_the_saddles_valley_is_the_y_axis() -> None:
    (line,) = valley(saddle())
    assert abs(line[:, 0]).max() < 1e-12
    assert sorted(line[[0, -1], 1]) == [-1, 1]


def test_himmelblaus_valleys_join_its_minima_in_pairs() -> None:
    surface = himmelblau()
    lines = valley(surface)
    assert len(lines) == 2
    holders = []
    for minimum in surface.minima:
        distances = [np.hypot(*(line - minimum).T).min() for line in lines]
        holders.append(int(np.argmin(distances)))
        assert min(distances) < 0.03  # half the way from point to point
    assert sorted(holders) == [0, 0, 1, 1]


@pytest.mark.parametrize("count", [400, 401])
def test_the_monkey_saddle_has_three_valleys(count: int) -> None:
    lines = valley(monkey_saddle(), count)
    assert len(lines) == 3
    found = set()
    for line in lines:
        x, y = line[np.hypot(*line.T) > 0.1].T
        angle = np.degrees(np.arctan2(y, x)) % 360
        assert np.ptp(angle) < 1e-9
        found.add(round(float(angle[0])))
        assert np.hypot(*line.T).min() < 0.02
    assert found == {60, 180, 300}


def test_rastrigin_has_a_valley_for_every_column_of_minima() -> None:
    lines = valley(rastrigin(), 51)
    assert len(lines) == 11
    at = [line[0, 0] for line in lines]
    np.testing.assert_allclose(at, np.arange(-5, 6), atol=0.03)
    for line in lines:  # x² and the wave do not know of y
        assert np.ptp(line[:, 0]) < 1e-12


@pytest.mark.parametrize("name", sorted(SURFACES))
def test_every_point_is_a_lowest_one_of_its_section(name: str) -> None:
    surface = SURFACES[name]()
    directions = np.atleast_2d(surface.across) if surface.across else None
    if directions is None:  # the steepest at the minimum, by exact derivatives
        _, hessian = derivatives(surface, np.array(surface.minima[0]))
        directions = np.linalg.eigh(hessian).eigenvectors[:, -1:].T
    left, right, bottom, top = surface.region
    lines = valley(surface, 61)
    assert lines
    for line in lines:
        assert line.ndim == 2
        assert line.shape[0] > 1
        assert (line >= [left, bottom]).all()
        assert (line <= [right, top]).all()
        for point in line[1:-1:4]:  # its ends may touch the frame
            gradient, hessian = derivatives(surface, point)
            curvatures = [d @ hessian @ d for d in directions]
            # How far the slope is from being 0, as a distance.
            off = [
                abs(gradient @ d) / c if c > 0 else math.inf
                for d, c in zip(directions, curvatures, strict=True)
            ]
            assert min(off) < 1e-6


@pytest.mark.parametrize("surface", [beale(), himmelblau()], ids=lambda s: s.name)
def test_a_line_ends_on_the_frame_or_within_a_section_of_its_end(surface: Surface) -> None:
    """Four times as many sections carry no end further than to the next of the fewer ones."""
    _, hessian = derivatives(surface, np.array(surface.minima[0]))
    dx, dy = np.linalg.eigh(hessian).eigenvectors[:, -1]
    along = np.array([dy, -dx])
    left, right, bottom, top = surface.region
    reach = [(x, y) @ along for x in (left, right) for y in (bottom, top)]
    spacing = (max(reach) - min(reach)) / 200
    coarse, fine = valley(surface, 201), valley(surface, 801)
    assert len(coarse) == len(fine)
    inside = 0
    for one, other in zip(coarse, fine, strict=True):
        for end, further in ((one[0], other[0]), (one[-1], other[-1])):
            if on_the_frame(surface, end):
                np.testing.assert_allclose(end, further, atol=1e-9)
            else:
                inside += 1
                assert abs((end - further) @ along) < spacing
    assert inside > 0


def test_a_level_surface_has_no_valley() -> None:
    level = Surface("level", "f = 0", lambda x, y: 0 * x * y, (-1, 1, -1, 1), across=(0, 1))
    assert valley(level) == ()


def test_a_function_of_one_variable_has_one_all_the_same() -> None:
    trough = Surface("trough", "f = y^2", lambda x, y: y * y, (-1, 1, -2, 1), across=(0, 1))
    (line,) = valley(trough, 5)
    np.testing.assert_allclose(line, [[x, 0] for x in (-1, -0.5, 0, 0.5, 1)], atol=1e-15)


def test_a_direction_can_be_given() -> None:
    (line,) = valley(bowl(4), 5, across=(3.0, 0.0))
    np.testing.assert_allclose(line, [[0, y] for y in (4, 2, 0, -2, -4)], atol=1e-15)


def test_gradient_mode_does_not_matter() -> None:
    with torch.no_grad():
        assert len(valley(rosenbrock(), 11)) == 1


@pytest.mark.parametrize(
    ("surface", "given", "kind", "words"),
    [
        (bowl(), {"count": 1}, ValueError, "count must be a finite number >= 2, got 1"),
        (bowl(), {"count": 2.5}, TypeError, "count must be an integer"),
        (bowl(), {"across": (0, 0)}, ValueError, r"across must not be zero, got \(0, 0\)"),
        (bowl(), {"across": (1, 0, 0)}, ValueError, "across must be two numbers"),
        (bowl(), {"across": "x"}, TypeError, "across must be a list or a tuple of numbers"),
        (
            Surface("slope", "f = x", lambda x, y: x + 0 * y, (0, 1, 0, 1)),
            {},
            ValueError,
            "slope has no known minimum to take the direction",
        ),
    ],
    ids=["count-1", "count-2.5", "zero", "three", "string", "no-minimum"],
)
def test_nonsense_is_refused(
    surface: Surface, given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=f"^valley: {words}"):
        valley(surface, **given)


def test_a_surface_without_a_gradient_is_refused() -> None:
    level = Surface("level", "f", lambda x, y: torch.zeros_like(x), (-1.0, 1.0, -1.0, 1.0))
    with pytest.raises(ValueError, match="valley: level must be differentiable by autograd"):
        valley(level, 5, across=(1.0, 0.0))
