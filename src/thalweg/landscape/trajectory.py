"""The path of an optimizer over a surface."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.engine.modes import with_gradients
from thalweg.landscape.surfaces import Array, Point, Surface, pair
from thalweg.optim.closure import stepper
from thalweg.ranges import AT_LEAST_ONE, integer, number
from thalweg.schedules import Schedule

Make = Callable[[list[Tensor]], torch.optim.Optimizer]
Scheduling = Schedule | Callable[[torch.optim.Optimizer], Any]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where an optimizer was after each step.

    Attributes:
        name: the optimizer's, for legends.
        points: positions, shape (steps + 1, 2), float64; the first is the start. If the optimizer
            diverged, they end before the first position that is not finite.
        values: the surface's value at each point, shape (steps + 1,), float64.
        diverged: a position or a value stopped being finite.
    """

    name: str
    points: Array
    values: Array
    diverged: bool = False


def trace(
    surface: Surface,
    make: Make,
    *,
    name: str | None = None,
    start: Point | None = None,
    steps: int = 200,
    schedule: Scheduling | None = None,
    dtype: torch.dtype = torch.float32,
) -> Trajectory:
    """Let an optimizer walk over a surface, and note where it has been.

    The position is one parameter of two elements, its gradient comes from autograd, and a step is
    ``optimizer.step(closure)``, or ``step()`` where it takes no closure. Whatever optimizes a
    parameter can be traced, thalweg's optimizers (on the engine, as ever), torch's and others.

    Args:
        surface: what to walk on.
        make: takes a list with the parameter and returns the optimizer.
        name: for legends (default: the optimizer's class).
        start: where to begin (default: the surface's own start).
        steps: how many to make, at least 1; fewer are made if the optimizer diverges.
        schedule: the learning rate as a :class:`thalweg.schedules.Schedule` of the step, or a
            function that takes the optimizer and returns a scheduler, which is stepped after each
            step of the optimizer.
        dtype: of the parameter. Positions are kept and values computed in float64 all the same.

    Raises:
        TypeError: ``make`` returns no optimizer, its step does not call the closure, or an argument
            has the wrong type.
        ValueError: an argument is out of range, or the surface has no finite value at the start, or
            no gradient.

    >>> from functools import partial
    >>> from thalweg import optim
    >>> from thalweg.landscape import bowl
    >>> path = trace(bowl(), partial(optim.SGD, lr=0.1), start=(2.0, 2.0), steps=2)
    >>> path.points.round(2).tolist()
    [[2.0, 2.0], [1.8, 0.0], [1.62, 0.0]]
    """
    at = pair("trace", "start", surface.start if start is None else start)
    number("trace", "steps", integer("trace", "steps", steps, flags=False), AT_LEAST_ONE)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"trace: dtype must be a torch.dtype, got {dtype!r}")
    if not dtype.is_floating_point:
        raise ValueError(f"trace: dtype must be one of floating point, got {dtype}")
    parameter = torch.nn.Parameter(torch.tensor(at, dtype=dtype, device="cpu"))
    if not bool(torch.isfinite(_value(surface, parameter)).all()):
        raise ValueError(
            f"trace: {surface.name} has no finite value at the start {at}; begin elsewhere"
        )
    optimizer: Any = make([parameter])
    if not callable(getattr(optimizer, "step", None)):
        raise TypeError(
            f"trace: make must return an optimizer, got {type(optimizer).__name__} {optimizer!r}"
        )
    advance = _scheduler(optimizer, schedule)

    seen: list[Tensor] = []

    @with_gradients(True)
    def closure() -> Tensor:
        parameter.grad = None
        value = surface(*parameter.unbind())
        surface.check_gradient("trace", value)
        value.backward()  # type: ignore[no-untyped-call]
        seen.append(value.detach())
        return seen[-1]

    step = stepper(optimizer)
    points = [parameter.detach().double().numpy().copy()]
    for _ in range(steps):
        seen.clear()
        step(closure)
        if not seen:
            raise TypeError(
                f"trace: {type(optimizer).__name__}.step(closure) did not call the closure; it "
                "must, or take none"
            )
        value = seen[0]
        points.append(parameter.detach().double().numpy().copy())
        if not np.isfinite(points[-1]).all():
            break
        advance(value)
    return _until_finite(surface, name or type(optimizer).__name__, np.stack(points))


def trace_all(
    surface: Surface,
    makes: Mapping[str, Make],
    *,
    start: Point | None = None,
    steps: int = 200,
    schedule: Scheduling | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Trajectory, ...]:
    """The trajectories of several optimizers from the same start, in the order given.

    Args:
        surface: what to walk on.
        makes: for each name what makes the optimizer.
        start: see :func:`trace`.
        steps: see :func:`trace`.
        schedule: see :func:`trace`; the same for each.
        dtype: see :func:`trace`.

    Raises:
        TypeError: see :func:`trace`.
        ValueError: see :func:`trace`.
    """
    return tuple(
        trace(surface, make, name=name, start=start, steps=steps, schedule=schedule, dtype=dtype)
        for name, make in makes.items()
    )


def follow(surface: Surface, name: str, points: Array) -> Trajectory:
    """A trajectory through positions that are known already.

    Args:
        surface: what they lie on.
        name: for legends.
        points: positions, shape (count, 2).
    """
    return _until_finite(surface, name, np.asarray(points, dtype=np.float64))


@with_gradients(False)
def _value(surface: Surface, at: Tensor) -> Tensor:
    """The surface's value at each of the points (..., 2), in float64."""
    x, y = at.double().unbind(-1)
    return surface(x, y).expand(x.shape)


def _until_finite(surface: Surface, name: str, points: Array) -> Trajectory:
    values = _value(surface, torch.from_numpy(points)).numpy()
    finite = np.isfinite(points).all(1) & np.isfinite(values)
    count = len(points) if finite.all() else int(finite.argmin())
    return Trajectory(name, points[:count], values[:count], diverged=count < len(points))


def _scheduler(
    optimizer: torch.optim.Optimizer, schedule: Scheduling | None
) -> Callable[[Tensor], None]:
    """What to call with the surface's value after each step of the optimizer."""
    if schedule is None:
        return lambda value: None
    if isinstance(schedule, Schedule):
        from thalweg.optim.lr_scheduler import ScheduledHyperparameters

        scheduler: Any = ScheduledHyperparameters(optimizer, lr=schedule)
    elif callable(schedule):
        scheduler = schedule(optimizer)
    else:
        raise TypeError(
            "trace: schedule must be a thalweg.schedules.Schedule or a function of the optimizer, "
            f"got {type(schedule).__name__} {schedule!r}"
        )
    if not callable(getattr(scheduler, "step", None)):
        raise TypeError(
            f"trace: schedule must return a scheduler, got {type(scheduler).__name__} {scheduler!r}"
        )
    if "metrics" in inspect.signature(scheduler.step).parameters:  # ReduceLROnPlateau
        return lambda value: scheduler.step(value)
    return lambda value: scheduler.step()
