"""The race itself: training runs, and the time of the optimizers' steps."""

import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from thalweg.race.racers import Racer, grid
from thalweg.race.result import Result, Standing, StepTime, Trial, ranked
from thalweg.race.task import Task

Listener = Callable[[Racer, float], None]

# Layers this small gain nothing from a second thread, and lose much when it waits for a core.
THREADS = 1


def race(
    task: Task,
    racers: Sequence[Racer],
    *,
    learning_rates: int = 7,
    epochs: int = 8,
    before_trial: Listener | None = None,
) -> Result:
    """Train the task's network with every racer at every learning rate of its grid, on one thread.

    Args:
        task: what is trained; the same weights and batches for all.
        racers: who takes part.
        learning_rates: how many are tried per racer, each √10 times the one before.
        epochs: passes over the training set per trial.
        before_trial: called with the racer and learning rate of each trial, for a progress bar.

    Raises:
        ValueError: ``learning_rates`` or ``epochs`` is below 1, or there is no racer.
    """
    if not racers:
        raise ValueError("race: racers is empty; name at least one optimizer")
    if learning_rates < 1 or epochs < 1:
        raise ValueError(
            f"race: learning_rates and epochs must be at least 1, got {learning_rates} and {epochs}"
        )
    start = perf_counter()
    with _threads(THREADS):
        standings = [_standing(task, r, learning_rates, epochs, before_trial) for r in racers]
    parameters = list(task.network().parameters())
    return Result(
        task=task.name,
        target=task.target,
        epochs=epochs,
        batch_size=task.batch_size,
        seed=task.seed,
        parameters=sum(p.numel() for p in parameters),
        tensors=len(parameters),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": str(THREADS),
        },
        seconds=perf_counter() - start,
        standings=ranked(standings),
    )


def _standing(
    task: Task, racer: Racer, learning_rates: int, epochs: int, before_trial: Listener | None
) -> Standing:
    # Measured first: it also compiles the kernel, which must not count as training time.
    step_time = measure_steps(task, racer)
    trials = []
    for lr in grid(racer.centre, learning_rates):
        if before_trial is not None:
            before_trial(racer, lr)
        trials.append(run_trial(task, racer, lr, epochs))
    return Standing(
        racer.name, racer.optimizer, dict(racer.options), racer.note, tuple(trials), step_time
    )


def run_trial(task: Task, racer: Racer, lr: float, epochs: int) -> Trial:
    """Train from the task's initial weights, evaluating after every step until the target."""
    network = task.network()
    optimizer = racer.make(network.parameters(), lr)
    steps, seconds = 0, 0.0
    steps_to_target: int | None = None
    seconds_to_target: float | None = None
    diverged = False
    for x, y in task.batches(epochs):
        start = perf_counter()
        optimizer.zero_grad()
        loss = cross_entropy(network(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds += perf_counter() - start
        steps += 1
        if not bool(torch.isfinite(loss)):
            diverged = True
            break
        if steps_to_target is None and task.accuracy(network) >= task.target:
            steps_to_target, seconds_to_target = steps, seconds
    accuracy = task.accuracy(network)
    return Trial(
        lr=lr,
        steps=steps,
        steps_to_target=steps_to_target,
        seconds_to_target=seconds_to_target,
        accuracy=accuracy,
        held=accuracy >= task.target,
        diverged=diverged,
    )


def measure_steps(task: Task, racer: Racer, repeats: int = 100) -> StepTime:
    """Time a step of thalweg's and of torch's class, in turn, on equal parameters and gradients.

    The gradients are those of the task's first batch, at every step. The medians of ``repeats``
    steps are reported, after a few that are not counted.
    """
    warmup = 5
    networks = task.network(), task.network()
    ours = racer.make(networks[0].parameters(), racer.centre)
    theirs = racer.make(networks[1].parameters(), racer.centre, library=torch.optim)
    gradients = _gradients(task)
    for network in networks:
        for p, g in zip(network.parameters(), gradients, strict=True):
            p.grad = g.clone()
    first_step = _time(ours)
    _time(theirs)
    times: list[tuple[float, float]] = []
    for i in range(warmup + repeats):
        # Whoever goes first finds the caches as the other left them: take turns at that, too.
        if i % 2:
            theirs_s, ours_s = _time(theirs), _time(ours)
        else:
            ours_s, theirs_s = _time(ours), _time(theirs)
        times.append((ours_s, theirs_s))
    counted = times[warmup:]
    return StepTime(
        thalweg_us=1e6 * statistics.median(t[0] for t in counted),
        torch_us=1e6 * statistics.median(t[1] for t in counted),
        first_step_s=first_step,
        state_bytes=_state_bytes(ours) / sum(g.numel() for g in gradients),
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _gradients(task: Task) -> list[Tensor]:
    network = task.network()
    x, y = next(task.batches(1))
    return list(torch.autograd.grad(cross_entropy(network(x), y), list(network.parameters())))


def _time(optimizer: torch.optim.Optimizer) -> float:
    start = perf_counter()
    optimizer.step()
    return perf_counter() - start


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
