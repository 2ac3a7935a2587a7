"""The same training with a loss of thalweg.losses and with torch's, step by step in turn."""

import math
import statistics
from dataclasses import replace

from thalweg.race.racers import Racer
from thalweg.race.result import LossTime
from thalweg.race.step_time import WARMUP
from thalweg.race.task import Task
from thalweg.race.training import Training, rounded


def measure_loss(task: Task, racer: Racer, lr: float, seed: int, steps: int) -> LossTime | None:
    """Train with ``task.loss`` and with ``task.torch_loss``, a step of each in turn.

    Weights, batches and optimizer are the same. The first steps, in which kernels are compiled or
    loaded, are not timed. None if the task has no loss of torch's, or a run diverged.

    Args:
        task: what is trained.
        racer: who trains it.
        lr: learning rate.
        seed: of weights and batches.
        steps: gradients of each run.

    Raises:
        TaskError: the task fails.
        OptimizerError: the optimizer does.
    """
    if task.torch_loss is None:
        return None
    tasks = task, replace(task, loss=task.torch_loss)
    runs = [Training(each, racer, lr, seed, steps) for each in tasks]
    times: list[tuple[float, float]] = []
    while min(run.gradients for run in runs) < steps:
        took = [0.0, 0.0]
        # Whoever goes first finds the caches as the other left them: take turns at that, too.
        for k in (0, 1) if len(times) % 2 else (1, 0):
            before = runs[k].gradients
            with runs[k].randomness():
                took[k] = runs[k].step() / max(1, runs[k].gradients - before)
        if any(run.diverged_at is not None for run in runs):
            return None
        times.append((took[0], took[1]))
    finals = [run.final() for run in runs]
    if not all(map(math.isfinite, finals)):
        return None
    counted = times[WARMUP:] or times
    return LossTime(
        loss=task.loss_name,
        optimizer=racer.name,
        steps=len(counted),
        thalweg_us=rounded(1e6 * statistics.median(t[0] for t in counted)),
        torch_us=rounded(1e6 * statistics.median(t[1] for t in counted)),
        saved_us=rounded(1e6 * statistics.median(t[1] - t[0] for t in counted)),
        thalweg_score=finals[0],
        torch_score=finals[1],
    )
