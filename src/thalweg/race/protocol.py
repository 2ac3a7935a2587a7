"""What a race asks of a task: its model, batches and evaluation, with errors that name the task."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from thalweg.engine.modes import with_gradients
from thalweg.race.task import Split, Task

T = TypeVar("T")


class TaskError(ValueError):
    """A task does not keep its side of the protocol; the race cannot go on."""


def new_model(task: Task, seed: int) -> tuple[nn.Module, Tensor]:
    """The task's model with the weights of that seed, and the random state that follows.

    torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = guarded(task, "model", task.model)
        if not isinstance(model, nn.Module) or not trained(model):
            raise TaskError(
                f"race: task {task.name}: model must return a torch.nn.Module with parameters, got "
                f"{type(model).__name__}"
            )
        if any(map(is_lazy, model.parameters())):
            raise TaskError(
                f"race: task {task.name}: model has parameters that are made by its first call; "
                "call it once on a batch before returning it"
            )
        return model.train(), torch.get_rng_state()


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that optimizers get."""
    return [p for p in model.parameters() if p.requires_grad]


def passes(
    task: Task, split: Split, generator: torch.Generator, remedy: str = "give one"
) -> Iterator[Any]:
    """One pass over the batches of a split, of which there must be one at least."""
    made: Iterable[Any] = guarded(task, "batches", task.batches, split, generator)
    batches = guarded(task, "batches", iter, made)
    end = object()
    empty = True
    while (batch := guarded(task, "batches", next, batches, end)) is not end:
        empty = False
        yield batch
    if empty:
        raise TaskError(f"race: task {task.name}: batches gives none for {split!r}; {remedy}")


def endless(task: Task, generator: torch.Generator) -> Iterator[Any]:
    """The training batches, pass after pass."""
    yield from passes(task, "train", generator)
    while True:
        yield from passes(task, "train", generator, "make them anew at each call")


@with_gradients(False)
def evaluate(task: Task, model: nn.Module, seed: int) -> tuple[float, float | None]:
    """Mean loss and mean score over the test batches; the score is None if the task has none."""
    loss, score, count = 0.0, 0.0, 0
    model.eval()
    with _remembering(model):
        for batch in passes(task, "test", torch.Generator().manual_seed(seed)):
            loss += _number(task, "loss", task.loss, model, batch)
            if task.score is not None:
                score += _number(task, "score", task.score, model, batch)
            count += 1
    model.train()
    return loss / count, None if task.score is None else score / count


def _number(task: Task, part: str, function: Callable[..., Any], *arguments: Any) -> float:
    """What a task's function gives, which must be one number, in a tensor or not."""
    value = guarded(task, part, function, *arguments)
    single = value.numel() == 1 if isinstance(value, Tensor) else not isinstance(value, str)
    try:
        if single:
            return float(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    raise TaskError(
        f"race: task {task.name}: {part} must return one number, got {got}; take a mean"
    )


@contextmanager
def _remembering(model: nn.Module) -> Iterator[None]:
    """The model's last output is given again for the same input: loss and score both ask for it."""
    if "forward" in vars(model) or isinstance(model, torch.jit.ScriptModule):
        yield  # not a method that could be covered for a while
        return
    forward = model.forward
    last: list[Any] = []  # input, versions of both, output

    def remembered(*inputs: Any, **named: Any) -> Any:
        if named or len(inputs) != 1 or not isinstance(inputs[0], Tensor):
            return forward(*inputs, **named)
        # Neither must have been written to since.
        if last and inputs[0] is last[0] and (last[0]._version, last[2]._version) == last[1]:
            return last[2]
        output = forward(*inputs)
        if isinstance(output, Tensor):
            last[:] = inputs[0], (inputs[0]._version, output._version), output
        return output

    try:
        model.forward = remembered
        yield
    finally:
        # The first call there is: nothing that a signal handler raises comes before.
        model.__dict__.pop("forward", None)


def guarded(task: Task, part: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a task's function; an error says whose it is."""
    try:
        return function(*arguments)
    except TaskError:
        raise
    except Exception as error:
        raise TaskError(
            f"race: task {task.name}: {part} failed: {type(error).__name__}: {error}"
        ) from error
