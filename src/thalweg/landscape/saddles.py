"""Surfaces without a minimum: a saddle with one way down on either side, and one with three."""

import math

from thalweg.landscape.surfaces import Surface


def saddle() -> Surface:
    """The hyperbolic saddle: down along y, up along x, level at the origin.

    ::

        f(x, y) = x^2 - y^2

    It has no minimum. Its ridge is the line y = 0, its valley the line x = 0. The start lies near
    the ridge, a hundred-thousandth of the picture's half height away.

    Source: as a model of the critical points that high dimensions have most of: Dauphin et al.,
    "Identifying and Attacking the Saddle Point Problem in High-Dimensional Non-Convex
    Optimization", 2014.

    >>> import torch
    >>> saddle()(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    tensor([ 1., -1.])
    """
    return Surface(
        name="Saddle",
        formula="f(x, y) = x² - y²",
        function=lambda x, y: x * x - y * y,
        region=(-1.5, 1.5, -1.0, 1.0),
        start=(-1.0, 1e-5),
        across=(1.0, 0.0),
        source="Dauphin et al., 2014",
    )


def monkey_saddle() -> Surface:
    """The monkey saddle: three valleys meet, two for the legs and one for the tail.

    ::

        f(x, y) = x^3 - 3 x y^2

    It has no minimum, and at the origin neither slope nor curvature. Turned by 120 degrees it is
    the same; its valleys run from the origin at 60, 180 and 300 degrees to the x axis, and the
    cross-sections are taken at right angles to each of them.

    Source: Hilbert and Cohn-Vossen, "Geometry and the Imagination", 1932 (1952 in English),
    section 29.

    >>> import torch
    >>> monkey_saddle()(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 0.0]))
    tensor([ 1., -1.])
    """
    half_root = math.sqrt(0.75)
    return Surface(
        name="Monkey saddle",
        formula="f(x, y) = x³ - 3xy²",
        function=lambda x, y: x * (x * x - 3 * y * y),
        region=(-1.5, 1.5, -1.5, 1.5),
        start=(1.0, 1e-3),
        across=((0.0, 1.0), (-half_root, 0.5), (half_root, 0.5)),
        source="Hilbert and Cohn-Vossen, Geometry and the Imagination, 1932, section 29",
    )
