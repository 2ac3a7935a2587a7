from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.landscape.paths import straight, three
from thalweg.landscape import Surface, rosenbrock
from thalweg.landscape.contours import Relief
from thalweg.landscape.perspective import drawn, lifted, raised, viewpoint


def wall(towards: int, axis: int) -> Surface:
    """Flat, with a wall on one side of the origin, close to it."""

    def function(x: Any, y: Any) -> Any:
        across = towards * (x if axis == 0 else y)
        return 5 * torch.sigmoid(40 * (across - 0.3)) + 0 * x + 0 * y - 2.5

    return Surface("wall", "f", function, (-1.0, 1.0, -1.0, 1.0), start=(-0.1, -0.1))


@pytest.mark.parametrize(("towards", "axis"), [(1, 0), (-1, 0), (1, 1), (-1, 1)])
def test_the_eye_is_on_the_side_without_the_wall(towards: int, axis: int) -> None:
    surface = wall(towards, axis)
    turn, rise = viewpoint(Relief(surface, resolution=101), [straight(surface, "a", (0.1, 0.1))])
    eye = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    assert towards * eye[axis] < 0
    assert 0 < rise < 90


def test_without_paths_there_is_a_view_too() -> None:
    turn, rise = viewpoint(Relief(rosenbrock()), [])
    assert np.isfinite([turn, rise]).all()


def test_paths_run_above_what_is_drawn_and_stop_at_the_frame() -> None:
    surface = rosenbrock()
    relief = Relief(surface, resolution=21)  # so coarse that the valley's floor is drawn too high
    x, y, z = drawn(relief)
    for path in three(surface):
        on = raised(relief, path)
        left, right, bottom, top = surface.region
        inside = (path.points >= [left, bottom]).all(1) & (path.points <= [right, top]).all(1)
        assert np.array_equal(np.isfinite(on).all(axis=1), inside)
        assert (on[inside, 2] > relief.levels.scaled(path.values)[inside]).all()
    corners = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    at_corners = lifted(relief, corners, np.full(len(corners), -np.inf), 0.0)
    assert at_corners[:, 2] == pytest.approx(z.ravel())
    # In the middle of a cell: the higher of the two ways to fold it.
    middle = np.array([[(x[0] + x[1]) / 2, (y[0] + y[1]) / 2]])
    folds = (z[0, 0] + z[1, 1]) / 2, (z[0, 1] + z[1, 0]) / 2
    assert lifted(relief, middle, np.array([-np.inf]), 0.0)[0, 2] == pytest.approx(max(folds))
