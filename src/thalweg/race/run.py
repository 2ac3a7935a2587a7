"""The race itself: training runs, and the time of the optimizers' steps."""

import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from thalweg import losses
from thalweg.race.racers import Racer, grid
from thalweg.race.result import LossTime, Result, Standing, StepTime, Trial, ranked
from thalweg.race.task import Task

Listener = Callable[[Racer, float], None]
LossFunction = Callable[[Tensor, Tensor], Tensor]

# Layers this small gain nothing from a second thread, and lose much when it waits for a core.
THREADS = 1
WARMUP = 5  # steps that are made before those that are timed


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
        standings = ranked(
            [_standing(task, r, learning_rates, epochs, before_trial) for r in racers]
        )
        winner = next(r for r in racers if r.name == standings[0].name)
        loss = measure_loss(task, winner, standings[0].best.lr, epochs)
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
        standings=standings,
        loss=loss,
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
        loss, took = _train(network, optimizer, cross_entropy, x, y)
        seconds += took
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


def measure_loss(task: Task, racer: Racer, lr: float, epochs: int) -> LossTime:
    """Train the same network with thalweg's cross entropy and with torch's, step by step in turn.

    Weights, batches and optimizer are the same. The first steps, in which kernels are compiled or
    loaded, are not timed.
    """
    functions: tuple[LossFunction, ...] = (losses.cross_entropy, cross_entropy)
    networks = task.network(), task.network()
    optimizers = [racer.make(network.parameters(), lr) for network in networks]
    times: list[tuple[float, float]] = []
    for i, (x, y) in enumerate(task.batches(epochs)):
        took = [0.0, 0.0]
        # Whoever goes first finds the caches as the other left them: take turns at that, too.
        for k in (0, 1) if i % 2 else (1, 0):
            _, took[k] = _train(networks[k], optimizers[k], functions[k], x, y)
        times.append((took[0], took[1]))
    counted = times[WARMUP:] or times
    return LossTime(
        loss=cross_entropy.__name__,
        optimizer=racer.name,
        steps=len(counted),
        thalweg_us=1e6 * statistics.median(t[0] for t in counted),
        torch_us=1e6 * statistics.median(t[1] for t in counted),
        saved_us=1e6 * statistics.median(t[1] - t[0] for t in counted),
        thalweg_accuracy=task.accuracy(networks[0]),
        torch_accuracy=task.accuracy(networks[1]),
    )


def _train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: LossFunction,
    x: Tensor,
    y: Tensor,
) -> tuple[Tensor, float]:
    """One training step; the loss, and the seconds that it took."""
    start = perf_counter()
    optimizer.zero_grad()
    loss = loss_of(network(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss, perf_counter() - start


def measure_steps(task: Task, racer: Racer, repeats: int = 100) -> StepTime:
    """Time a step of thalweg's and of torch's class, in turn, on equal parameters and gradients.

    The gradients are those of the task's first batch, at every step. The medians of ``repeats``
    steps are reported, after a few that are not counted.
    """
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
    for i in range(WARMUP + repeats):
        # Whoever goes first finds the caches as the other left them: take turns at that, too.
        if i % 2:
            theirs_s, ours_s = _time(theirs), _time(ours)
        else:
            ours_s, theirs_s = _time(ours), _time(theirs)
        times.append((ours_s, theirs_s))
    counted = times[WARMUP:]
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
