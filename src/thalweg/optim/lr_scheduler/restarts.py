"""The scheduler that begins anew, cycle after cycle."""

import math

import torch
from torch.optim import lr_scheduler as torchs

from thalweg import schedules
from thalweg.optim.lr_scheduler.arguments import check_integer, check_options
from thalweg.optim.lr_scheduler.base import Scheduled
from thalweg.optim.lr_scheduler.rates import made
from thalweg.rule.program import number
from thalweg.schedules import Schedule


class CosineAnnealingWarmRestarts(Scheduled, torchs.CosineAnnealingWarmRestarts):
    """Half a cosine down to ``eta_min``, then from the base rate again, cycle after cycle.

    ::

        rate = eta_min + (base rate - eta_min) * (1 + cos(pi * T_cur / T_i)) / 2

    with T_cur the epochs since the last restart, T_i the length of this cycle: T_0 * T_mult^i.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    equation 5.

    Args:
        optimizer: the optimizer.
        T_0: epochs of the first cycle, an int > 0.
        T_mult: how much longer each cycle is than the one before, an int >= 1.
        eta_min: the lowest rate.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: a value out of its range or not an int.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> CosineAnnealingWarmRestarts(optimizer, T_0=2).schedule().values(5)
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    _options = ("T_0", "T_mult", "eta_min")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        name = "CosineAnnealingWarmRestarts"
        check_integer(name, "T_0", T_0, 1)
        check_integer(name, "T_mult", T_mult, 1)
        if not isinstance(eta_min, (int, float)):
            raise ValueError(
                f"{name}: Expected float or int eta_min, but got {eta_min!r} of type "
                f"{type(eta_min).__name__}"
            )
        check_options(name, {}, eta_min=eta_min)
        self.T_0 = T_0
        self.T_i: float = T_0  # type: ignore[assignment]
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch  # type: ignore[assignment]
        super().__init__(optimizer, last_epoch)

    def schedule(self, group: int = 0) -> Schedule:
        """The rate of a group as a pure function of the epoch."""
        base = number(self.base_lrs[group])
        return made(schedules.CosineRestarts, base, self.eta_min, self.T_0, self.T_mult)

    def _initial_step(self) -> None:
        self.T_cur = self.last_epoch
        super()._initial_step()

    def step(self, epoch: float | None = None) -> None:
        """Go on to the next epoch, or to this one, which may be a fraction.

        Args:
            epoch: epochs since the start, such as ``epoch + batch / batches``, >= 0.
        """
        self._check_epoch(self.last_epoch + 1 if epoch is None else epoch)
        self._advance(epoch)

    def _update_lr(self, epoch: float | None = None) -> None:
        if epoch is None and not self._is_initial:
            # On from where it stands, be it a fraction, or a place that a user has set.
            position, length = self.T_cur + 1, self.T_i
            if position >= length:
                position, length = position % length, length * self.T_mult
        else:
            cycles = made(schedules.CosineRestarts, 1.0, 0.0, self.T_0, self.T_mult)
            position, length = cycles.place(self.last_epoch + 1 if epoch is None else epoch)
        bases = map(number, self.base_lrs)
        cycle = [made(schedules.CosineRestarts, base, self.eta_min, length) for base in bases]
        self._set_rates([rate(position) for rate in cycle])
        self.last_epoch = math.floor(self.last_epoch + 1 if epoch is None else epoch)
        self.T_cur, self.T_i = position, length
