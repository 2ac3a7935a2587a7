"""For pictures in three dimensions: paths on the drawn surface, and from where to look at it."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thalweg.landscape.contours import Relief
from thalweg.landscape.surfaces import Array
from thalweg.landscape.trajectory import Trajectory

# Views in the order of preference: of equally good ones the first.
AZIMUTHS = (-60.0, -120.0, -30.0, -150.0, 60.0, 120.0, 30.0, 150.0)
ELEVATIONS = (35.0, 52.0)
TALL = 0.62  # height of the drawn box over its extent in x
MOST_CELLS = 200  # to a side of a drawn surface: more are not seen, but slow the page down


def drawn(relief: Relief) -> tuple[Array, Array, Array]:
    """The grid that is drawn: x, y and heights on their scale."""
    every = max(1, -(-(len(relief.x) - 1) // MOST_CELLS))
    return relief.x[::every], relief.y[::every], relief.scaled[::every, ::every]


def lifted(relief: Relief, points: Array, heights: Array, by: float) -> Array:
    """Points on the drawn surface, shape (n, 3), so much of its height above it.

    The drawn surface is flat between grid points, so it may be above the true one, in a narrow
    valley far above; there the points lie on the drawn one. Outside the region they are NaN.
    """
    x, y, z = drawn(relief)
    low, high = np.nanmin(z), np.nanmax(z)
    columns, i = _cells(x, points[:, 0])
    rows, j = _cells(y, points[:, 1])
    # Heights at the four corners of each point's cell. A cell is drawn as two triangles, along
    # one diagonal or the other: the highest of what they can be is safe.
    s, t = points[:, 0] - x[columns], points[:, 1] - y[rows]
    s, t = s / (x[1] - x[0]), t / (y[1] - y[0])
    a, b, c, d = (z[rows + k, columns + m] for k in (0, 1) for m in (0, 1))
    rising = np.where(s > t, a + s * (b - a) + t * (d - b), a + t * (c - a) + s * (d - c))
    falling = np.where(
        s + t < 1, a + s * (b - a) + t * (c - a), d + (1 - s) * (c - d) + (1 - t) * (b - d)
    )
    above = np.fmax(np.fmax(rising, falling), heights) + by * (high - low)
    return np.where((i & j)[:, None], np.column_stack([points, above]), np.nan)


def raised(relief: Relief, trajectory: Trajectory) -> Array:
    """A trajectory on the drawn surface, shape (steps + 1, 3), NaN outside the region."""
    return lifted(relief, trajectory.points, relief.levels.scaled(trajectory.values), 0.012)


def _cells(grid: Array, places: Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """In which interval of an even grid each place lies, and whether it lies in one at all."""
    inside = (places >= grid[0]) & (places <= grid[-1])
    found = np.searchsorted(grid, np.where(inside, places, grid[0]), side="right") - 1
    return np.clip(found, 0, len(grid) - 2), inside


def viewpoint(relief: Relief, trajectories: Sequence[Trajectory]) -> tuple[float, float]:
    """From where most of the trajectories is seen: azimuth and elevation, in degrees.

    Of eight directions, none along an axis, each from two heights, it is the one from which the
    surface hides least of the paths' length; without trajectories, least of the surface.
    """
    x, y, z = drawn(relief)
    size = np.array([x[-1] - x[0], y[-1] - y[0], np.nanmax(z) - np.nanmin(z) or 1.0])
    paths = [_spaced(raised(relief, path), size) for path in trajectories]
    grid = np.stack([*np.meshgrid(x[::8], y[::8]), z[::8, ::8]], axis=-1).reshape(-1, 3)
    points = np.concatenate(paths or [grid])
    points = points[np.isfinite(points).all(axis=1)]
    views = list(itertools.product(ELEVATIONS, AZIMUTHS))
    rise, turn = max(views, key=lambda view: _visible(relief, points, *np.deg2rad(view)))
    return turn, rise


def _spaced(path: Array, size: Array, count: int = 60) -> Array:
    """Points of a path that are about equally far apart, so that no slow part outweighs a fast."""
    path = path[np.isfinite(path).all(axis=1)]
    if not len(path):
        return path
    way = np.cumsum(np.r_[0.0, np.linalg.norm(np.diff(path / size, axis=0), axis=1)])
    return path[np.unique(np.searchsorted(way, np.linspace(0, way[-1], count)))]


def _visible(relief: Relief, points: Array, rise: float, angle: float) -> int:
    """How many points are seen from far away in that direction."""
    x, y, z = drawn(relief)
    low, high = np.nanmin(z), np.nanmax(z)
    # In the drawn box x has extent 1, y depth(relief) and z TALL.
    side = np.array([math.cos(angle) * (x[-1] - x[0]), math.sin(angle) * (y[-1] - y[0])])
    side[1] /= depth(relief)
    upwards = math.tan(rise) * (high - low) / TALL
    away = np.linspace(0.02, 1.0, 60)[:, None]  # along the ray to the eye, within the box
    columns, i = _cells(x, points[:, 0] + away * side[0])
    rows, j = _cells(y, points[:, 1] + away * side[1])
    hidden = i & j & (z[rows, columns] > points[:, 2] + away * upwards)
    return int((~hidden.any(axis=0)).sum())


def depth(relief: Relief) -> float:
    """Extent of the region in y over that in x, within what a box can show: 1/2 to 2."""
    return float(np.clip(relief.surface.ratio, 0.5, 2.0))
