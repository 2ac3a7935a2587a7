"""What is trained: the protocol of a task."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg.ranges import integer, number

Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class Task:
    """A training problem: three functions, and what decides who is first.

    Attributes:
        name: for tables and files.
        model: makes the network with new weights, drawn from torch's global generator, which the
            race seeds first.
        batches: ``batches(split, generator)`` gives one pass over the batches of ``"train"`` or
            ``"test"``; a batch is whatever ``loss`` takes. What is random in their order must come
            from the generator, so that all optimizers see the same batches. Passes are repeated
            until the steps are made. Test batches should be of one size: their means count alike.
        loss: ``loss(model, batch)``: the mean loss, a scalar tensor with a graph. For test batches
            it is called without gradients, with the model in evaluation mode.
        score: ``score(model, batch)``: the mean of a score that should rise, say accuracy, called
            without gradients; without it the test loss decides.
        metric: the score's name.
        target: the score, or without one the test loss, to reach. Without a target it is what the
            median of the optimizers ends at.
        steps: gradients of a full run.
        description: what is trained on what, in one line.
        torch_loss: ``loss`` with torch's function instead of thalweg's, to compare them.
        loss_name: the name of that function.

    Raises:
        TypeError: a function cannot be called, a name is not a string, a number not a number.
        ValueError: there is no name, a text cannot be written to a file, or the target is not
            finite.
    """

    name: str
    model: Callable[[], nn.Module]
    batches: Callable[[Split, torch.Generator], Iterable[Any]]
    loss: Callable[[nn.Module, Any], Tensor]
    score: Callable[[nn.Module, Any], Tensor] | None = None
    metric: str = "loss"
    target: float | None = None
    steps: int = 400
    description: str = ""
    torch_loss: Callable[[nn.Module, Any], Tensor] | None = None
    loss_name: str = "loss"

    def __post_init__(self) -> None:
        for name in ("model", "batches", "loss", "score", "torch_loss"):
            function = getattr(self, name)
            optional = name in ("score", "torch_loss")
            if not callable(function) and not (optional and function is None):
                raise TypeError(f"Task: {name} must be a function, got {function!r}")
        for name in ("name", "metric", "description", "loss_name"):
            _check_text(name, getattr(self, name))
        if not self.name.strip():
            raise ValueError("Task: name must not be empty; tables and files need one")
        # As plain numbers, which files can hold.
        object.__setattr__(self, "steps", integer("Task", "steps", self.steps, flags=False))
        if self.target is not None:
            object.__setattr__(self, "target", float(number("Task", "target", self.target)))


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(f"Task: {name} must be a string, got {type(text).__name__} {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Task: {name} must be text that a file can hold, got {text!r} ({error.reason})"
        ) from error
