"""Who takes part: an optimizer, its options and the middle of its learning rates."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from thalweg import optim


@dataclass(frozen=True)
class Racer:
    """One row of the table.

    Attributes:
        name: as in the table and on the command line.
        optimizer: the name of its class, the same in ``thalweg.optim`` and ``torch.optim``.
        centre: the middle of the learning rates that are tried. What the optimizer's users
            commonly start from; it decides only where the search looks.
        options: keyword arguments besides ``lr``.
        note: what a reader must know to judge its result; shown where it misses the target.
    """

    name: str
    optimizer: str
    centre: float
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def make(
        self, parameters: Iterable[Tensor], lr: float, library: ModuleType = optim
    ) -> torch.optim.Optimizer:
        """The optimizer on these parameters, of ``thalweg.optim`` or of ``torch.optim``."""
        cls = getattr(library, self.optimizer)
        made: torch.optim.Optimizer = cls(parameters, lr=lr, **self.options)
        return made


RACERS = (
    Racer("SGD", "SGD", 0.1),
    Racer("SGD+momentum", "SGD", 0.03, {"momentum": 0.9}),
    Racer("Adam", "Adam", 3e-3),
    Racer("AdamW", "AdamW", 3e-3),
    Racer("Adamax", "Adamax", 1e-2),
    Racer("NAdam", "NAdam", 3e-3),
    Racer("RAdam", "RAdam", 3e-3),
    Racer("Adagrad", "Adagrad", 0.03),
    Racer("Adadelta", "Adadelta", 1.0),
    Racer("RMSprop", "RMSprop", 1e-3),
    Racer(
        "Rprop",
        "Rprop",
        1e-3,
        note="trusts the sign of the gradient over the whole data set; minibatches, as here, make "
        "that sign flip at random",
    ),
    Racer("ASGD", "ASGD", 0.1),
)


def find(name: str) -> Racer:
    """The racer of that name, in any case.

    Raises:
        ValueError: there is none; the message suggests the nearest name and lists all.
    """
    by_name = {racer.name.lower(): racer for racer in RACERS}
    if name.lower() in by_name:
        return by_name[name.lower()]
    near = difflib.get_close_matches(name.lower(), by_name, n=1)
    hint = f"; did you mean {by_name[near[0]].name}?" if near else "."
    names = ", ".join(racer.name for racer in RACERS)
    raise ValueError(f"unknown optimizer {name!r}{hint} There are: {names}.")


def grid(centre: float, count: int) -> list[float]:
    """So many learning rates around a centre, each √10 times the one before.

    >>> [f"{lr:.2g}" for lr in grid(0.1, 3)]
    ['0.032', '0.1', '0.32']
    """
    if count < 1:
        raise ValueError(f"grid: count must be at least 1, got {count}")
    return [centre * 10 ** ((i - (count - 1) / 2) / 2) for i in range(count)]
