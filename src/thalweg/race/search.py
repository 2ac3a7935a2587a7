"""One optimizer on one task: its learning rate found by successive halving, then every seed.

All rates of the grid train for a quarter of a full run; the better half of them goes on to half of
it, and the better half of these to the end. Nothing is trained twice: a run that stays in goes on
from where it stopped. The best of those that finished is trained once more from each further seed.

Every optimizer gets the same: ``n`` rates, of which ``ceil(n / 2)`` and then half of these, rounded
up, go on. A run that diverges leaves at once, and its place goes to the best that stays. Only where
all that are in a round diverge, the best of those that were out goes on in their place.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization", AISTATS 2016, Algorithm 1.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from thalweg.race.racers import Racer, grid
from thalweg.race.result import Entry, Run, StepTime
from thalweg.race.task import Task
from thalweg.race.training import OptimizerError, Training, quarters

Listener = Callable[[float, int], None]
"""Called with the learning rate that is trained and the gradients evaluated for the entry."""


def compete(
    task: Task,
    racer: Racer,
    *,
    steps: int,
    learning_rates: int,
    seed: int,
    seeds: int,
    step_time: Callable[[], StepTime],
    listen: Listener | None = None,
) -> Entry:
    """Find the racer's learning rate and train with it from every seed.

    Args:
        task: what is trained.
        racer: who trains it.
        steps: gradients of a full run.
        learning_rates: how many are tried.
        seed: the first seed, with which the rates are compared.
        seeds: how many there are.
        step_time: measures what a step costs. It comes first, so that kernels are there when the
            training time is taken.
        listen: called after each evaluation.

    Raises:
        TaskError: the task fails. What the optimizer raises becomes the entry's ``failed``.
    """
    entry = Entry(racer.name, racer.optimizer, dict(racer.options), racer.note, (), (), None)
    tell = Teller(listen)
    try:
        entry = replace(entry, step_time=step_time())
        runs = [Training(task, racer, lr, seed, steps) for lr in grid(racer.centre, learning_rates)]
        best = halve(runs, steps, tell)
        full = [] if best is None else [best]
        for i in range(1, seeds if best else 0):
            full.append(Training(task, racer, full[0].lr, seed + i, steps))
            tell.advance(full[-1], steps)
    except OptimizerError as error:
        return replace(entry, failed=str(error), step_time=None)
    return replace(
        entry, search=tuple(run.run for run in runs), runs=tuple(run.run for run in full)
    )


def budget(steps: int, learning_rates: int, seeds: int) -> int:
    """Gradients that every optimizer may evaluate.

    >>> budget(400, learning_rates=5, seeds=3)
    2000
    """
    total, done, left = 0, 0, learning_rates
    for end in quarters(steps):
        total += left * (end - done)
        done, left = end, math.ceil(left / 2)
    return total + (seeds - 1) * steps


class Teller:
    """Advances runs and tells a listener how many gradients they evaluated together."""

    def __init__(self, listen: Listener | None) -> None:
        self._listen, self._done = listen, 0

    def advance(self, run: Training, gradients: int) -> None:
        before = run.gradients

        def evaluated() -> None:
            if self._listen is not None:
                self._listen(run.lr, self._done + run.gradients - before)

        run.advance(gradients, evaluated)
        self._done += run.gradients - before


def halve(runs: list[Training], steps: int, tell: Teller) -> Training | None:
    """Successive halving; the best run, which is a full one, or None if all diverged.

    Args:
        runs: at the beginning, one for each learning rate.
        steps: gradients of a full run.
        tell: advances them.
    """
    inside, outside, places = list(runs), list[Training](), len(runs)
    for end in quarters(steps):
        for run in inside:
            tell.advance(run, end)
        inside = best_first(inside)
        while not inside and outside:
            run = outside.pop(0)
            tell.advance(run, end)
            inside = best_first([run])
        if end != steps:
            places = math.ceil(places / 2)
            # Those that went further are the better ones, whatever those before them reached.
            inside, outside = inside[:places], inside[places:] + outside
    return inside[0] if inside else None


def best_first(runs: list[Training]) -> list[Training]:
    """Those that did not diverge: see :func:`rank`."""
    left = [run for run in runs if run.diverged_at is None]
    return sorted(left, key=lambda run: rank(run.run, run.task.target))


def rank(run: Run, target: float | None) -> tuple[bool, float, float]:
    """Smaller is better: holds the target, reached it in fewer steps, has the lower test loss."""
    if target is None:
        return False, 0.0, run.test_loss[-1]
    index = run.reached(target)
    steps = math.inf if index is None else run.steps[index]
    return not run.holds(target), steps, run.test_loss[-1]
