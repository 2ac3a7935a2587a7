"""The model, optimizer and scheduler that are looked at."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import nn

from thalweg.optim.grouping import Found, parameters_of


class Setup:
    """What is to be trained, and by what.

    Args:
        model: the model.
        optimizer: any optimizer of torch's kind.
        scheduler: its scheduler, or None.

    Raises:
        TypeError: the model is no module, or the optimizer none of torch's kind.
    """

    def __init__(self, model: Any, optimizer: Any, scheduler: Any = None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"doctor: model must be a torch.nn.Module, got {type(model).__name__}")
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(
                f"doctor: optimizer must be an optimizer of torch's kind, with param_groups, got "
                f"{type(optimizer).__name__}"
            )
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler

    @cached_property
    def parameters(self) -> list[Found]:
        """The model's parameters, each once."""
        return parameters_of(self.model)

    @cached_property
    def names(self) -> dict[int, str]:
        """Their names by their ids."""
        return {id(found.parameter): found.name for found in self.parameters}

    def name_of(self, p: torch.Tensor) -> str:
        """What the model calls a parameter."""
        return self.names.get(id(p), "one without a name")

    def held(self) -> Iterator[tuple[torch.Tensor, Mapping[str, Any]]]:
        """Each parameter that a group holds, with its group's options, as often as it is held."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                yield p, group

    @cached_property
    def group_of(self) -> dict[int, Mapping[str, Any]]:
        """The options of each parameter that a group holds, by its id."""
        return {id(p): group for p, group in self.held()}
