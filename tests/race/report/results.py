"""Results of races that were never run, for tests of what is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from thalweg.race.result import Entry, LossTime, Result, Run, Settings, StepTime, TaskResult

STEPS = tuple(range(0, 401, 20))
SETTINGS = Settings("small", ("digits",), ("adam", "sgd"), 5, 3, 0, 1.0)
VERSIONS = {
    "thalweg": "0.1.0",
    "python": "3.11.2",
    "torch": "2.13.0",
    "llvmlite": "0.44",
    "threads": "1",
    "machine": "Linux x86_64",
}
LOSS_TIME = LossTime("cross_entropy", "Adam", 339, 251.4, 262.6, 11.2, 0.973, 0.971)
STEP_TIME = StepTime(own_us=10.0, torch_us=75.0, first_step_s=0.5, state_bytes=8.0)


def run(
    lr: float = 0.01,
    seed: int = 0,
    *,
    reach: float = 100,
    upto: int = 400,
    diverged: bool = False,
    ms: float = 1.0,
    scored: bool = True,
) -> Run:
    """A run whose score passes 0.95, and whose loss passes 0.3, at the step ``reach``.

    Both are exponentials of the step; at ``inf`` steps nothing is learnt.
    """
    steps = tuple(step for step in STEPS if step <= upto)
    left = [math.exp(step / reach * math.log(0.0499)) for step in steps]  # below 0.05 at `reach`
    test = tuple(0.2 + 2.0 * share for share in left)
    return Run(
        lr=lr,
        seed=seed,
        steps=steps,
        seconds=tuple(step * ms / 1000 for step in steps),
        train_loss=test[1:],
        test_loss=test,
        score=tuple(1 - share for share in left) if scored else (),
        diverged_at=steps[-1] if diverged else None,
        optimizer_seconds=0.2 * steps[-1] * ms / 1000,
    )


def entry(
    name: str = "Adam",
    reach: float | Sequence[float] = 100,
    *,
    rates: Sequence[float | None] = (math.inf, 400, 100, 300, None),
    centre: float = 0.01,
    ms: float = 1.0,
    step_time: StepTime | None = STEP_TIME,
    scored: bool = True,
    note: str = "",
) -> Entry:
    """An optimizer that reaches the target at these steps, one for each seed.

    Args:
        name: the racer's.
        reach: see :func:`run`.
        rates: likewise for each learning rate, √10 apart, in the first 100 steps; None diverged.
        centre: the learning rate in the middle, with which the full runs are made.
        ms: milliseconds per step.
        step_time: what a step costs.
        scored: whether there is a score.
        note: what a reader must know.
    """
    reaches = reach if isinstance(reach, Sequence) else [reach, reach, reach]
    search = tuple(
        run(
            centre * 10 ** ((i - (len(rates) - 1) / 2) / 2),
            reach=400 if r is None else r,
            upto=20 if r is None else 100,
            diverged=r is None,
            scored=scored,
        )
        for i, r in enumerate(rates)
    )
    runs = tuple(run(centre, seed, reach=r, ms=ms, scored=scored) for seed, r in enumerate(reaches))
    return Entry(name, f"thalweg.optim.{name}", {}, note, search, runs, step_time)


def diverged(name: str) -> Entry:
    """An optimizer that diverged at every rate."""
    return replace(entry(name, rates=(None,) * 5), runs=())


def failed(name: str, why: str = "SparseAdam does not support dense gradients") -> Entry:
    """An optimizer that raised an error."""
    return Entry(name, f"thalweg.optim.{name}", {}, "", (), (), None, why)


def task(
    *entries: Entry,
    name: str = "digits",
    scored: bool = True,
    goal: float | None = 0.95,
    loss_time: LossTime | None = LOSS_TIME,
) -> TaskResult:
    """A task decided by accuracy, or by test loss."""
    return TaskResult(
        task=name,
        description="a small convolutional net on 1797 handwritten digits",
        metric="accuracy" if scored else "loss",
        scored=scored,
        goal=goal,
        parameters=8314,
        tensors=8,
        steps=STEPS[-1],
        entries=entries,
        loss_time=loss_time,
    )


def result(*tasks: TaskResult, complete: bool = True) -> Result:
    """A race over these tasks."""
    names = dict.fromkeys(one.name.lower() for t in tasks for one in t.entries)
    settings = replace(SETTINGS, tasks=tuple(t.task for t in tasks), optimizers=tuple(names))
    return Result(settings, VERSIONS, 12.3, tasks, complete)


def usual() -> Result:
    """A race with one of everything: a score and none, ties, misses, divergence and failure."""
    fast = StepTime(8.0, 20.0, 0.4, 0.0)
    first = task(
        entry("SGD", (300, 310, 290), step_time=fast, rates=(math.inf, math.inf, 300, None, None)),
        entry("SGD+momentum", (180, 170, 200), step_time=StepTime(9.0, 24.0, 0.4, 4.0)),
        entry("Adam", (100, 110, 120), ms=1.1, rates=(math.inf, 120, 100, 105, None)),
        entry("RMSprop", (100, 110, 120), ms=1.05, rates=(300, 110, 100, 110, None)),
        entry("Rprop", (900, 1000, 1100), note="trusts the sign of the gradient"),
        diverged("Adadelta"),
        failed("SparseAdam"),
    )
    second = task(
        entry("SGD", (200, 210, math.inf), scored=False, step_time=fast),
        entry("Adam", (150, 110, 120), scored=False, rates=(10, 10, 10, 10, 10)),
        failed("SparseAdam"),
        name="diabetes",
        scored=False,
        goal=0.3,
        loss_time=None,
    )
    return result(first, second)
