"""Made-up trajectories: what pictures are tested with, without any optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from thalweg.landscape import Surface
from thalweg.landscape.trajectory import Trajectory


def straight(
    surface: Surface, name: str, end: Sequence[float], steps: int = 30, diverged: bool = False
) -> Trajectory:
    """From the surface's start in equal steps to an end."""
    points = np.linspace(surface.start, end, steps + 1)
    values = surface(*torch.from_numpy(points).unbind(1)).numpy()
    return Trajectory(name, points, values, diverged)


def three(surface: Surface) -> tuple[Trajectory, ...]:
    """Two inside the region, and one that leaves it early."""
    left, right, bottom, top = surface.region
    middle = (left + right) / 2, (bottom + top) / 2
    return (
        straight(surface, "SGD", middle),
        straight(surface, "Adam", (right - 0.1, top - 0.1)),
        straight(surface, "RMSprop", (9 * right, 9 * top), steps=12, diverged=True),
    )
