"""The scheduler for the time in which weights are averaged."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch.optim import swa_utils

from thalweg import schedules
from thalweg.optim.lr_scheduler.arguments import check_integer, per_group
from thalweg.optim.lr_scheduler.decays import Decay
from thalweg.optim.lr_scheduler.rates import Rate, made
from thalweg.rule.program import number
from thalweg.schedules import Schedule


class SWALR(Decay, swa_utils.SWALR):
    """From the present rate to ``swa_lr``, and on with that: for weight averaging.

    ::

        rate(t) = swa_lr + (base rate - swa_lr) * (1 - anneal(min(t / anneal_epochs, 1)))
        anneal(x) = x ("linear") or (1 - cos(pi * x)) / 2 ("cos")

    It may begin late, where another scheduler has left the rate: the way then begins there.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
    2018, section 3.2.

    Args:
        optimizer: the optimizer.
        swa_lr: the rate at the end, or one for each parameter group; kept in the groups.
        anneal_epochs: epochs that the way takes, an int >= 0.
        anneal_strategy: "cos" or "linear".
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: an unknown strategy, a list of another length, epochs that are no count.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> SWALR(optimizer, 0.5, anneal_epochs=2, anneal_strategy="linear").schedule().values(4)
    [1.0, 0.75, 0.5, 0.5]
    """

    _options = ("anneal_epochs", "_anneal_strategy")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        swa_lr: float | Sequence[float],
        anneal_epochs: int = 10,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        last_epoch: int = -1,
    ) -> None:
        self._check_beginning(optimizer, last_epoch)
        rates = per_group("SWALR", "swa_lr", optimizer, swa_lr)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"SWALR: anneal_strategy must be one of 'cos' or 'linear', got {anneal_strategy!r}"
            )
        check_integer("SWALR", "anneal_epochs", anneal_epochs, 0)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = rate
        self.anneal_epochs = anneal_epochs
        self._anneal_strategy = anneal_strategy
        super().__init__(optimizer, last_epoch)

    def shape(self) -> Schedule:
        """The pure function of the epoch that is 1 where the rate is the base rate."""
        way = schedules.Cosine if self._anneal_strategy == "cos" else schedules.Linear
        return made(way, 1.0, 0.0, number(self.anneal_epochs))

    def floor(self, group: int) -> float:
        """The rate where the shape is 0."""
        options = self.optimizer.param_groups[group]
        if "swa_lr" not in options:
            raise ValueError(
                f"SWALR: parameter group {group} has no 'swa_lr'; set it in a group added later"
            )
        return number(options["swa_lr"])

    def _rates_after(self, rates: Sequence[Rate], t: float) -> list[float]:
        if t > self.anneal_epochs:  # arrived: whatever else has set the rate gives way
            return self._rates_at(t)
        return super()._rates_after(rates, t)
