"""One training run that can be stopped and continued, and what is measured on the way."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.engine.modes import with_gradients
from thalweg.optim.closure import stepper
from thalweg.race.protocol import TaskError, endless, evaluate, guarded, new_model, trained
from thalweg.race.racers import Racer
from thalweg.race.result import Run
from thalweg.race.task import Task

EVALUATIONS = 40  # equally spaced over a full run, besides the one before any step


class OptimizerError(Exception):
    """An optimizer cannot train this; the race goes on without it."""


def rounded(value: float) -> float:
    """Five significant digits: what a file keeps of a measured number.

    >>> rounded(0.123456789)
    0.12346
    """
    return float(f"{value:.5g}")


def evaluation_points(steps: int) -> list[int]:
    """The numbers of gradients after which a run of so many is evaluated; a quarter of it is one.

    >>> evaluation_points(8), evaluation_points(400)[:4]
    ([0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 10, 20, 30])
    """
    return sorted({round(i * steps / EVALUATIONS) for i in range(EVALUATIONS + 1)})


class Training:
    """One run of one racer at one learning rate from one seed, under way.

    It has a random state of its own: what else is trained between its steps does not matter.

    Args:
        task: what is trained.
        racer: who trains it.
        lr: learning rate.
        seed: of the initial weights, and of the order of the batches.
        steps: gradients of a full run; it decides where is evaluated.

    Raises:
        OptimizerError: the optimizer refuses the parameters or an option.
        TaskError: the model or the evaluation fails.
    """

    def __init__(self, task: Task, racer: Racer, lr: float, seed: int, steps: int) -> None:
        self.task, self.lr, self.seed = task, lr, seed
        self.model, self._random_state = new_model(task, seed)
        with optimizer_errors():
            self.optimizer = racer.make(trained(self.model), lr)
        self._step = stepper(self.optimizer)
        self._batches = endless(task, torch.Generator().manual_seed(seed))
        self._points = evaluation_points(steps)
        self._loss_sum, self._losses = 0.0, 0
        self.gradients = 0
        self.seconds = self.optimizer_seconds = 0.0
        self.diverged_at: int | None = None
        self._rows: list[tuple[int, float, float, float, float | None]] = []
        with self.randomness():
            self._evaluate()

    @contextmanager
    def randomness(self) -> Iterator[None]:
        """torch's global generator as this run left it; restored afterwards."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random_state)
            try:
                yield
            finally:
                self._random_state = torch.get_rng_state()

    def advance(self, gradients: int, evaluated: Callable[[], None] | None = None) -> None:
        """Train until so many gradients are evaluated, or the loss stops being finite.

        An optimizer that evaluates several per step may go beyond it by its last step.

        Args:
            gradients: in all, from the beginning.
            evaluated: called after each evaluation, for a progress bar.
        """
        with self.randomness():
            while self.gradients < gradients and self.diverged_at is None:
                self.step()
                if self.diverged_at is None and self.gradients >= self._next_point():
                    self._evaluate()
                    if evaluated is not None:
                        evaluated()

    def step(self) -> float:
        """One step of the optimizer on the next batch; the seconds that it took."""
        batch = next(self._batches)
        before, first, in_closure = self.gradients, math.nan, 0.0

        @with_gradients(True)
        def closure() -> Tensor:
            nonlocal first, in_closure
            start = perf_counter()
            self.optimizer.zero_grad()
            loss = guarded(self.task, "loss", self.task.loss, self.model, batch)
            guarded(self.task, "loss", Tensor.backward, loss)
            if self.gradients == before:
                first = float(loss.detach())
            self.gradients += 1
            in_closure += perf_counter() - start
            return loss

        start = perf_counter()
        try:
            with optimizer_errors():
                self._step(closure)
        except TaskError as error:
            self._blame_weights(error, lambda model: self._try(model, batch))
        except OptimizerError:
            if self.gradients == before or math.isfinite(first):
                raise
        took = perf_counter() - start
        if self.diverged_at is None and self.gradients == before:
            raise OptimizerError("its step does not call the closure that evaluates the gradient")
        if not math.isfinite(first):
            self.diverged_at = self.gradients
        self.seconds += took
        self.optimizer_seconds += took - in_closure
        self._loss_sum, self._losses = self._loss_sum + first, self._losses + 1
        return took

    def final(self) -> float:
        """What the race is decided by, evaluated now."""
        with self.randomness():
            loss, score = evaluate(self.task, self.model, self.seed)
        return rounded(loss if score is None else score)

    @property
    def run(self) -> Run:
        """What was measured so far."""
        steps, seconds, train_loss, test_loss, score = zip(*self._rows, strict=True)
        return Run(
            lr=self.lr,
            seed=self.seed,
            steps=steps,
            seconds=seconds,
            train_loss=train_loss[1:],
            test_loss=test_loss,
            score=() if None in score else score,
            diverged_at=self.diverged_at,
            optimizer_seconds=rounded(self.optimizer_seconds),
        )

    def _next_point(self) -> int:
        done = self._rows[-1][0]
        return next((point for point in self._points if point > done), self.gradients)

    def _try(self, model: nn.Module, batch: Any) -> None:
        loss = guarded(self.task, "loss", self.task.loss, model, batch)
        guarded(self.task, "loss", Tensor.backward, loss)

    def _blame_weights(self, error: TaskError, attempt: Callable[[nn.Module], Any]) -> None:
        """The run has diverged if the task fails again, but not with the initial weights.

        Args:
            error: what the task raised.
            attempt: what it was doing, for a model.

        Raises:
            TaskError: the error is the task's own.
            OptimizerError: the optimizer has made something else of the parameters.
        """
        model, _ = new_model(self.task, self.seed)
        before, now = ([(p.dtype, p.shape) for p in trained(m)] for m in (model, self.model))
        if before != now:
            raise OptimizerError(
                "its step changes the parameters' dtype, shape or requires_grad"
            ) from error
        attempt(model)
        try:
            attempt(self.model)
        except TaskError:
            self.diverged_at = self.gradients
        else:
            raise error

    def _evaluate(self) -> None:
        try:
            loss, score = evaluate(self.task, self.model, self.seed)
        except TaskError as error:
            if not self._rows:
                raise
            self._blame_weights(error, lambda model: evaluate(self.task, model, self.seed))
            return
        if not (math.isfinite(loss) and (score is None or math.isfinite(score))):
            if not self._rows:
                raise TaskError(
                    f"race: task {self.task.name}: before the first step the test loss is {loss}"
                    + ("" if score is None else f" and the score {score}")
                    + f" (seed {self.seed}); both must be finite"
                )
            self.diverged_at = self.gradients
            return
        mean = self._loss_sum / self._losses if self._losses else math.nan
        self._loss_sum, self._losses = 0.0, 0
        self._rows.append(
            (
                self.gradients,
                rounded(self.seconds),
                rounded(mean),
                rounded(loss),
                None if score is None else rounded(score),
            )
        )


@contextmanager
def optimizer_errors() -> Iterator[None]:
    """What an optimizer raises becomes an OptimizerError with its message."""
    try:
        yield
    except (OptimizerError, TaskError):
        raise
    except Exception as error:
        raise OptimizerError(" ".join(str(error).split()) or type(error).__name__) from error


def quarters(steps: int) -> Sequence[int]:
    """Gradients at the end of each round of the search: a quarter of a full run, half, all.

    >>> quarters(400), quarters(6)
    ((100, 200, 400), (2, 3, 6))
    """
    points = evaluation_points(steps)
    return tuple(
        next(p for p in points if p >= max(1, round(steps * share))) for share in (0.25, 0.5, 1.0)
    )
