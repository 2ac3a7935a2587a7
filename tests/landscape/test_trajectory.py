"""Trajectories: the steps of an optimizer, its schedule, and where it stops."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.references.optimizers import RULES
from thalweg import optim
from thalweg.landscape import Surface, bowl, follow, rosenbrock, saddle, trace, trace_all
from thalweg.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from thalweg.schedules import Linear

QUIET = Surface("level", "f(x, y) = 0", lambda x, y: 0 * x * y, (-1.0, 1.0, -1.0, 1.0))


def test_gradient_descent_on_a_bowl_is_the_closed_form() -> None:
    path = trace(
        bowl(4), partial(optim.SGD, lr=0.1), start=(1.0, -2.0), steps=20, dtype=torch.float64
    )
    n = np.arange(21)[:, None]
    want = np.array([1.0, -2.0]) * np.array([0.9, 0.6]) ** n
    np.testing.assert_allclose(path.points, want, rtol=1e-13)
    np.testing.assert_allclose(path.values, (want[:, 0] ** 2 + 4 * want[:, 1] ** 2) / 2, rtol=1e-12)
    assert path.points.dtype == path.values.dtype == np.float64
    assert path.name == "SGD"
    assert not path.diverged


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (optim.Adam, {"lr": 0.05}),
        (optim.RMSprop, {"lr": 0.01}),
        (optim.Adadelta, {"lr": 1.0}),
        (optim.Rprop, {"lr": 0.02}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_rosenbrock_is_walked_as_the_paper_says(cls: Any, options: dict[str, float]) -> None:
    path = trace(rosenbrock(), partial(cls, **options), steps=60, dtype=torch.float64)
    group = cls([torch.nn.Parameter(torch.zeros(2))], **options).param_groups[0]
    h = SimpleNamespace(**{"decoupled_weight_decay": False, **group})
    p, state = np.array([-1.2, 1.0]), {}
    for t, point in enumerate(path.points):
        np.testing.assert_allclose(point, p, rtol=0, atol=1e-10)
        x, y = p
        g = np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])
        p = RULES[cls.__name__](p, g, state, t + 1, h)


def test_float32_rounds_the_positions_and_not_the_values() -> None:
    path = trace(rosenbrock(), partial(optim.SGD, lr=1e-3), steps=5)
    np.testing.assert_array_equal(path.points, path.points.astype(np.float32))
    x, y = path.points.T
    np.testing.assert_allclose(path.values, (1 - x) ** 2 + 100 * (y - x * x) ** 2, rtol=1e-13)


@pytest.mark.parametrize("library", [optim, torch.optim], ids=["thalweg", "torch"])
def test_lbfgs_gets_its_closure(library: Any) -> None:
    make = partial(library.LBFGS, line_search_fn="strong_wolfe")
    path = trace(rosenbrock(), make, steps=6, dtype=torch.float64)
    np.testing.assert_allclose(path.points[-1], 1, atol=1e-4)


def test_an_optimizer_of_ones_own_is_traced_too() -> None:
    class Signs(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {})

        def step(self, closure: Any = None) -> None:
            closure()
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p -= 0.25 * p.grad.sign()

    path = trace(bowl(), Signs, start=(1.0, 0.5), steps=2)
    np.testing.assert_array_equal(path.points, [[1, 0.5], [0.75, 0.25], [0.5, 0]])
    assert path.name == "Signs"


def test_a_schedule_is_the_learning_rate() -> None:
    make = partial(optim.SGD, lr=123.0)
    path = trace(
        bowl(1),
        make,
        start=(1.0, 0.0),
        steps=4,
        schedule=Linear(0.5, 0.1, steps=4),
        dtype=torch.float64,
    )
    want = np.cumprod([1, 0.5, 0.6, 0.7, 0.8])
    np.testing.assert_allclose(path.points[:, 0], want, rtol=1e-12)


@pytest.mark.parametrize(
    "make_scheduler",
    [
        partial(StepLR, step_size=2, gamma=0.5),
        partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5),
    ],
    ids=["thalweg", "torch"],
)
def test_a_scheduler_is_stepped_after_each_step(make_scheduler: Any) -> None:
    make = partial(optim.SGD, lr=0.4)
    path = trace(
        bowl(1), make, start=(1.0, 0.0), steps=4, schedule=make_scheduler, dtype=torch.float64
    )
    np.testing.assert_allclose(path.points[:, 0], np.cumprod([1, 0.6, 0.6, 0.8, 0.8]), rtol=1e-12)


def test_a_scheduler_that_watches_a_metric_gets_the_value() -> None:
    # The value never gets better than at first, so the rate is halved after each step but that one.
    schedule = partial(ReduceLROnPlateau, factor=0.5, patience=0)
    rates = []

    def make(parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        optimizer = optim.SGD(parameters, lr=0.5)
        optimizer.register_step_post_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
        return optimizer

    trace(QUIET, make, steps=4, schedule=schedule)
    assert rates == [0.5, 0.5, 0.25, 0.125]


def test_divergence_ends_the_trajectory_before_what_is_not_finite() -> None:
    path = trace(bowl(4), partial(optim.SGD, lr=100.0), start=(1.0, 1.0), steps=200)
    assert path.diverged
    assert 5 < len(path.points) < 100
    assert len(path.points) == len(path.values)
    assert np.isfinite(path.points).all()
    assert np.isfinite(path.values).all()


def test_a_value_that_is_not_finite_ends_it_too() -> None:
    # log x has no value beyond 0, while the position stays finite: the gradient there is 1 / x.
    log = Surface(
        "log", "f(x, y) = log x", lambda x, y: torch.log(x) + 0 * y, (0.1, 2.0, -1.0, 1.0)
    )
    path = trace(log, partial(optim.SGD, lr=0.6), start=(1.0, 0.0), steps=5, dtype=torch.float64)
    assert path.diverged
    np.testing.assert_allclose(path.points[:, 0], [1.0, 0.4])


def test_all_of_several_start_alike_and_keep_their_order() -> None:
    makes = {"slow": partial(optim.SGD, lr=0.01), "fast": partial(optim.Adam, lr=0.1)}
    paths = trace_all(saddle(), makes, steps=3)
    assert [path.name for path in paths] == ["slow", "fast"]
    for path in paths:
        np.testing.assert_allclose(path.points[0], saddle().start, rtol=1e-7)
        assert path.points.shape == (4, 2)


def test_positions_can_be_followed() -> None:
    path = follow(bowl(4), "mine", np.array([[2.0, 0.0], [1.0, 1.0], [np.inf, 0.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(path.points, [[2, 0], [1, 1]])
    np.testing.assert_array_equal(path.values, [2, 2.5])
    assert path.diverged


def test_torchs_random_numbers_and_gradient_mode_stay() -> None:
    state = torch.get_rng_state()
    with torch.no_grad():
        path = trace(bowl(), partial(optim.SGD, lr=0.1), steps=3)
    assert not np.array_equal(path.points[0], path.points[-1])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"steps": 0}, ValueError, "steps must be a finite number >= 1, got 0"),
        ({"steps": 2.5}, TypeError, "steps must be an integer, got float 2.5"),
        ({"steps": True}, TypeError, "steps must be an integer, got bool True"),
        ({"start": (1.0,)}, ValueError, "start must be two numbers"),
        ({"start": (1.0, float("nan"))}, ValueError, r"start\[1\] must be finite"),
        ({"start": "here"}, TypeError, "start must be a list or a tuple of numbers"),
        ({"dtype": torch.int64}, ValueError, "dtype must be one of floating point"),
        ({"dtype": "float32"}, TypeError, "dtype must be a torch.dtype, got 'float32'"),
        (
            {"make": lambda parameters: None},
            TypeError,
            "make must return an optimizer, got NoneType",
        ),
        ({"schedule": 0.1}, TypeError, "schedule must be a thalweg.schedules.Schedule or"),
        ({"schedule": lambda o: 0.1}, TypeError, "schedule must return a scheduler, got float"),
    ],
    ids=[
        *("steps-0", "steps-2.5", "steps-true", "start-1", "start-nan", "start-str"),
        *("dtype-int", "dtype-str", "make", "schedule", "schedule-of"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    given: dict[str, Any] = {"make": partial(optim.SGD, lr=0.1), **changes}
    with pytest.raises(kind, match=f"^trace: {words}"):
        trace(bowl(), **given)


def test_a_start_without_a_value_is_refused() -> None:
    log = Surface(
        "log", "f(x, y) = log x", lambda x, y: torch.log(x) + 0 * y, (-1.0, 1.0, -1.0, 1.0)
    )
    with pytest.raises(ValueError, match=r"^trace: log has no finite value at the start"):
        trace(log, partial(optim.SGD, lr=0.1), start=(-1.0, 0.0))


def test_a_surface_without_a_gradient_is_refused() -> None:
    steps = Surface("steps", "f", lambda x, y: (x > 0) + (y > 0) * 1.0, (-1.0, 1.0, -1.0, 1.0))
    with pytest.raises(ValueError, match="trace: steps must be differentiable by autograd"):
        trace(steps, partial(optim.SGD, lr=0.1))


class Plain(torch.optim.Optimizer):
    """Descent whose step takes no closure."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            p -= self.param_groups[0]["lr"] * p.grad


class Deaf(Plain):
    """It takes a closure, and does not call it."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


def test_a_step_without_a_closure_is_traced_and_one_that_ignores_it_refused() -> None:
    ours = trace(bowl(), partial(optim.SGD, lr=0.1), steps=5)
    plain = trace(bowl(), partial(Plain, lr=0.1), steps=5)
    np.testing.assert_allclose(plain.points, ours.points, rtol=1e-6, atol=1e-12)
    with pytest.raises(TypeError, match=r"trace: Deaf.step\(closure\) did not call the closure"):
        trace(bowl(), partial(Deaf, lr=0.1))
