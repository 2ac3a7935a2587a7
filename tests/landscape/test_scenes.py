"""The two scenes show what they say: who leaves the saddle, and who ends where in the ravine."""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.references.optimizers import RULES
from thalweg import optim
from thalweg.landscape import SCENES, Scene, Trajectory, ravine_scene, saddle_scene, trace
from thalweg.schedules import Constant, Linear

Array = NDArray[np.float64]

# At a constant rate these two overshoot the bottom of the ravine more from step to step, out of
# rounding errors: test_they_part_by_overshooting. They end within 1% of the picture's width.
OVERSHOOTING = ("Adadelta", "RMSprop")
NAMES = tuple(ravine_scene().optimizers)
REFERENCED = tuple(name for name in NAMES if name != "LBFGS")


@cache
def run(scene: str, dtype: torch.dtype = torch.float32) -> dict[str, Trajectory]:
    return {path.name: path for path in SCENES[scene]().run(dtype)}


def off_valley(path: Trajectory) -> Array:
    return path.points[:, 1] - path.points[:, 0] ** 2


# ------------------------------------------------------------------------------------ both scenes


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SCENES))
def test_all_begin_at_the_same_point_and_make_all_steps(name: str) -> None:
    scene = SCENES[name]()
    assert list(run(name)) == list(scene.optimizers)
    for path in run(name).values():
        np.testing.assert_allclose(path.points[0], scene.start, rtol=1e-6)
        assert path.points.shape == (scene.steps + 1, 2)
        assert not path.diverged


@pytest.mark.parametrize("name", sorted(SCENES))
def test_every_dense_first_order_optimizer_takes_part(name: str) -> None:
    have = {recipe.func for recipe in SCENES[name]().optimizers.values()}
    classes = {getattr(optim, n) for n in optim.__all__ if hasattr(torch.optim, n)}
    classes = {c for c in classes if isinstance(c, type) and issubclass(c, optim.Optimizer)}
    assert classes - {optim.Optimizer, optim.SparseAdam, optim.LBFGS} == have - {optim.LBFGS}


@pytest.mark.parametrize("name", sorted(SCENES))
def test_the_caption_tells_every_learning_rate(name: str) -> None:
    scene = SCENES[name]()
    assert scene.caption.startswith(scene.text)
    rates = scene.caption.split("Learning rates: ")[1].rstrip(".")
    told = {
        racer: float(rate)
        for rate, names in (group.split(": ") for group in rates.split("; "))
        for racer in names.split(", ")
    }
    assert told == {racer: recipe.keywords["lr"] for racer, recipe in scene.optimizers.items()}


def test_a_schedule_takes_the_place_of_the_rates() -> None:
    whole = ravine_scene()
    few = {name: whole.optimizers[name] for name in ("SGD", "Adam")}
    scene = Scene("few", whole.surface, whole.start, 3, few, "")
    still = scene.run(schedule=Constant(0.0))
    assert all(len(np.unique(path.points, axis=0)) == 1 for path in still)


# ---------------------------------------------------------------------------------------- saddle


def leaves(path: Trajectory) -> float:
    """The first step at which it is further than 1% of the half height from the ridge y = 0."""
    half_height = saddle_scene().surface.region[3]
    gone = np.flatnonzero(abs(path.points[:, 1]) > 0.01 * half_height)
    return float(gone[0]) if len(gone) else math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sgd_stays_on_the_ridge_and_the_adaptive_ones_leave(dtype: torch.dtype) -> None:
    when = {name: leaves(path) for name, path in run("saddle", dtype).items()}
    assert when["SGD"] == when["ASGD"] == math.inf
    momentum = when["SGD+momentum"], when["SGD+Nesterov"]
    assert max(momentum) < 200
    for name in set(when) - {"SGD", "ASGD", "SGD+momentum", "SGD+Nesterov"}:
        assert when[name] < min(momentum), name


def test_the_leavers_do_not_come_back() -> None:
    for name, path in run("saddle").items():
        if math.isfinite(when := leaves(path)):
            assert (abs(path.points[int(when) :, 1]) > 0.01).all(), name


@pytest.mark.parametrize(("lr", "steps"), [(0.01, 349), (0.1, 38)])
def test_sgd_leaves_too_in_the_end(lr: float, steps: int) -> None:
    """The docstring's numbers: SGD is late by its rate, and not held back by anything."""
    scene = saddle_scene()
    recipe = scene.optimizers["SGD"]
    path = trace(scene.surface, lambda p: recipe(p, lr=lr), start=scene.start, steps=400)
    assert leaves(path) == steps == math.ceil(math.log(1000) / math.log(1 + 2 * lr))
    n = np.arange(401)
    np.testing.assert_allclose(path.points[:, 1], 1e-5 * (1 + 2 * lr) ** n, rtol=1e-4)


# ---------------------------------------------------------------------------------------- ravine


@pytest.mark.parametrize("name", NAMES)
def test_a_trajectory_ends_where_a_float64_run_ends(name: str) -> None:
    path, exact = run("ravine")[name], run("ravine", torch.float64)[name]
    left, right, _, _ = ravine_scene().surface.region
    # 1e-4 is a fortieth of a pixel in a picture 1000 pixels wide; 1% of the width is 10 pixels.
    allowed = 0.01 * (right - left) if name in OVERSHOOTING else 1e-4
    assert abs(path.points[-1] - exact.points[-1]).max() < allowed


@pytest.mark.parametrize("name", OVERSHOOTING)
def test_they_part_by_overshooting(name: str) -> None:
    """Float32 and float64 agree until a step across the ravine is too long to be stable.

    The steps of these two are divided by the recent size of the gradient, which falls on the way,
    while the rate stays. Once curvature times step is above 2, a deviation across the ravine
    changes its side from step to step and grows: rounding errors do, which float32 has greater.
    """
    path, exact = run("ravine")[name], run("ravine", torch.float64)[name]
    apart = off_valley(path) - off_valley(exact)
    onset = int(np.argmax(abs(apart) > 1e-4))
    assert onset > 150
    assert abs(path.points - exact.points)[: onset - 15].max() < 1e-5
    growth = apart[onset - 8 : onset + 1] / apart[onset - 9 : onset]
    assert (growth < -1).all()  # the other side at each step, and further off
    assert (growth > -2).all()


@pytest.mark.parametrize("name", OVERSHOOTING)
def test_they_do_not_part_if_the_rate_falls(name: str) -> None:
    scene = ravine_scene()
    recipe = scene.optimizers[name]
    falling = Linear(recipe.keywords["lr"], 0.0, scene.steps)
    path, exact = (
        trace(scene.surface, recipe, steps=scene.steps, schedule=falling, dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    assert abs(path.points - exact.points).max() < 1e-4


@pytest.mark.parametrize("name", REFERENCED)
def test_float64_runs_are_those_of_the_papers(name: str) -> None:
    scene = ravine_scene()
    recipe = scene.optimizers[name]
    cls = recipe.func
    group = recipe([torch.nn.Parameter(torch.zeros(2))]).param_groups[0]
    h = SimpleNamespace(**{"decoupled_weight_decay": False, **group})
    p, state = np.array(scene.start), {}
    points = [p]
    for t in range(1, scene.steps + 1):
        x, y = p
        g = np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])
        p = RULES[cls.__name__](p, g, state, t, h)
        points.append(p)
    # Where rounding errors grow without end, before they do.
    count = 150 if name in OVERSHOOTING else scene.steps + 1
    found = run("ravine", torch.float64)[name].points
    np.testing.assert_allclose(found[:count], points[:count], rtol=0, atol=1e-8)


def test_all_get_down_into_the_valley() -> None:
    for name, path in run("ravine").items():
        assert abs(off_valley(path)[0]) > 0.4
        assert abs(off_valley(path)[-1]) < 0.03, name
        assert path.values[-1] < path.values[0] / 5, name


def test_momentum_and_adam_get_along_it_and_sgd_does_not() -> None:
    value = {name: path.values[-1] for name, path in run("ravine").items()}
    assert value["SGD"] > 1
    assert max(value["SGD+momentum"], value["SGD+Nesterov"], value["Adam"]) < 0.05
    assert value["LBFGS"] < 1e-6
