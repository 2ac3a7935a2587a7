"""A look at a task before the race: that it works, what it costs, and its first gradients."""

import math
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from thalweg.race.protocol import TaskError, endless, evaluate, guarded, new_model, trained
from thalweg.race.result import TaskResult
from thalweg.race.task import Task
from thalweg.race.training import EVALUATIONS

LEAST_STEPS = 4  # a quarter of a full run is the first round


@dataclass(frozen=True, eq=False)
class Probe:
    """What was found out about a task.

    Attributes:
        task: the task.
        steps: gradients of a full run.
        seed: of the weights and the batch that the gradients belong to.
        gradients: of the first batch, one per trained parameter; None where it has none.
        seconds: expected time of a gradient, evaluations included.
        result: the task's part of the result, without entries.
    """

    task: Task
    steps: int
    seed: int
    gradients: list[Tensor | None]
    seconds: float
    result: TaskResult

    def parameters(self) -> list[nn.Parameter]:
        """The initial parameters with their first gradients."""
        found = trained(new_model(self.task, self.seed)[0])
        for p, g in zip(found, self.gradients, strict=True):
            p.grad = None if g is None else g.clone()
        return found


def probe(task: Task, seed: int, steps: int, length: float) -> Probe:
    """Make the model, a gradient and an evaluation, and throw them away.

    Args:
        task: what to look at.
        seed: of the weights and the batches.
        steps: gradients of a full run.
        length: the factor that made them of the task's, for the message.

    Raises:
        TaskError: a ValueError that names the task and the part that fails, or what of it is not
            finite; or there are less than 4 steps.
    """
    if steps < LEAST_STEPS:
        raise TaskError(
            f"race: task {task.name}: a full run must have at least {LEAST_STEPS} steps, got "
            f"{steps} ({task.steps} times length {length:g}); ask for a greater length"
        )
    model, random_state = new_model(task, seed)
    parameters = trained(model)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random_state)
        batches = endless(task, torch.Generator().manual_seed(seed))
        for _ in range(2):  # the first time, kernels are compiled or loaded
            start = perf_counter()
            loss = _gradient(task, model, next(batches))
            gradient_s = perf_counter() - start
        value = float(loss)
        if not math.isfinite(value):
            raise TaskError(
                f"race: task {task.name}: before the first step the loss is {value}; it must be "
                "finite"
            )
        gradients = [None if p.grad is None else p.grad.clone() for p in parameters]
        if all(g is None for g in gradients):
            raise TaskError(
                f"race: task {task.name}: the loss gives no parameter a gradient; compute it from "
                "the model's output"
            )
        evaluate(task, model, seed)
        start = perf_counter()
        test_loss, score = evaluate(task, model, seed)
        evaluation_s = perf_counter() - start
    for name, number in (("test loss", test_loss), (task.metric, score)):
        if number is not None and not math.isfinite(number):
            raise TaskError(
                f"race: task {task.name}: before the first step the {name} is {number}; it must "
                "be finite"
            )
    return Probe(
        task=task,
        steps=steps,
        seed=seed,
        gradients=gradients,
        seconds=gradient_s + evaluation_s * min(1.0, EVALUATIONS / steps),
        result=TaskResult(
            task=task.name,
            description=task.description,
            metric="loss" if task.score is None else task.metric,
            scored=task.score is not None,
            goal=task.target,
            parameters=sum(p.numel() for p in parameters),
            tensors=len(parameters),
            steps=steps,
            entries=(),
        ),
    )


def _gradient(task: Task, model: nn.Module, batch: object) -> Tensor:
    model.zero_grad()
    loss = guarded(task, "loss", task.loss, model, batch)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise TaskError(
            f"race: task {task.name}: loss must return a tensor of one number, got {got}"
        )
    guarded(task, "loss", Tensor.backward, loss)
    return loss.detach()
