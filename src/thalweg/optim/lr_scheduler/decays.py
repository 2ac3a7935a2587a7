"""Schedulers that multiply the rate: each a factor of the base rate, and chainable."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

import torch
from torch.optim import lr_scheduler as torchs

from thalweg import schedules
from thalweg.optim.lr_scheduler.arguments import check_options
from thalweg.optim.lr_scheduler.base import Scheduled
from thalweg.optim.lr_scheduler.rates import Rate, like, made
from thalweg.ranges import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, Range
from thalweg.ranges import milestones as milestones_in_order
from thalweg.rule.program import number
from thalweg.schedules import Schedule
from thalweg.schedules.base import blend

Factor = Callable[[int], float]


class Decay(Scheduled):
    """A scheduler of the form rate = floor + (base rate - floor) * shape(t).

    Stepped alone, it sets exactly that. Where something else has changed the rate (another
    scheduler stepped back to back, or the user), it moves the present rate in proportion::

        rate <- floor + (rate - floor) * shape(t) / shape(t - 1)

    so that several of them multiply.
    """

    def shape(self) -> Schedule:
        """The pure function of the epoch that is 1 where the rate is the base rate."""
        raise NotImplementedError

    def floor(self, group: int) -> float:
        """The rate where the shape is 0."""
        return 0.0

    @property
    def floorless(self) -> bool:
        """Whether the rate is the base rate times the shape."""
        return not any(self.floor(k) for k in range(len(self.base_lrs)))

    def schedule(self, group: int = 0) -> Schedule:
        """The rate of a group as a pure function of the epoch."""
        floor = self.floor(group)
        scaled = (number(self.base_lrs[group]) - floor) * self.shape()
        return scaled + floor if floor else scaled

    def _rates_at(self, t: float) -> list[float]:
        weight = self.shape()(t)
        pairs = enumerate(self.base_lrs)
        return [blend(number(base), self.floor(k), weight) for k, base in pairs]

    def _rates_after(self, rates: Sequence[Rate], t: float) -> list[float]:
        shape = self.shape()
        before, after = shape(t - 1) if t > 0 else 1.0, shape(t)
        moved = []
        for k, (lr, base_lr) in enumerate(zip_longest(rates, self.base_lrs)):
            rate, floor = number(lr), self.floor(k)
            # A group that was added later has no base rate, and moves in proportion.
            base = None if base_lr is None else number(base_lr)
            if base is not None and rate == number(like(lr, blend(base, floor, before))):
                moved.append(blend(base, floor, after))
            elif before and after != before:
                moved.append(floor + (rate - floor) * (after / before))
            elif base is not None:  # a cosine comes up again from its floor
                moved.append(rate + (base - floor) * (after - before))
            else:
                moved.append(rate)
        return moved


class StepLR(Decay, torchs.StepLR):
    """Decay by ``gamma`` every ``step_size`` epochs.

    ::

        rate(t) = base rate * gamma ** floor(t / step_size)

    Args:
        optimizer: the optimizer.
        step_size: epochs between decays, > 0.
        gamma: factor of each decay, >= 0.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: ``step_size`` is not above 0.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> StepLR(optimizer, step_size=2, gamma=0.5).schedule().values(6)
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    _options = ("step_size", "gamma")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        step_size: int,
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        check_options(
            "StepLR",
            {"step_size": POSITIVE, "gamma": NON_NEGATIVE},
            step_size=step_size,
            gamma=gamma,
        )
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def shape(self) -> Schedule:
        """The pure function of the epoch that is 1 where the rate is the base rate."""
        return made(schedules.Step, number(self.step_size), number(self.gamma))


class MultiStepLR(Decay, torchs.MultiStepLR):
    """Decay by ``gamma`` at each milestone.

    ::

        rate(t) = base rate * gamma ** (number of milestones <= t)

    Args:
        optimizer: the optimizer.
        milestones: epochs, >= 0 and not decreasing; one given twice decays twice.
        gamma: factor of each decay, >= 0.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: milestones are negative or decrease.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5).schedule().values(5)
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    _options = ("milestones", "gamma")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        given = list(milestones)
        milestones_in_order("MultiStepLR", given)
        check_options("MultiStepLR", {"gamma": NON_NEGATIVE}, gamma=gamma)
        self.milestones = Counter(given)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def shape(self) -> Schedule:
        """The pure function of the epoch that is 1 where the rate is the base rate."""
        milestones = tuple(sorted(self.milestones.elements()))
        return made(schedules.MultiStep, milestones, number(self.gamma))


class ConstantLR(Decay, torchs.ConstantLR):
    """A constant share of the base rate until ``total_iters``, then the whole.

    ::

        rate(t) = base rate * (factor if t < total_iters else 1)

    Args:
        optimizer: the optimizer.
        factor: the share, >= 0 and <= 1.
        total_iters: epochs until the base rate is reached, >= 0.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: a value out of its range.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> ConstantLR(optimizer, factor=0.5, total_iters=2).schedule().values(4)
    [0.5, 0.5, 1.0, 1.0]
    """

    _options = ("factor", "total_iters")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        ranges = {"factor": UNIT_INTERVAL, "total_iters": NON_NEGATIVE}
        check_options("ConstantLR", ranges, factor=factor, total_iters=total_iters)
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def shape(self) -> Schedule:
        """The pure function of the epoch that is 1 where the rate is the base rate."""
        parts = (number(self.factor), 1.0)
        return made(schedules.join, parts, (number(self.total_iters),))


class LinearLR(Decay, torchs.LinearLR):
    """From one share of the base rate to another in equal steps.

    ::

        rate(t) = base rate * (start_factor + (end_factor - start_factor) * min(t / total_iters, 1))

    Args:
        optimizer: the optimizer.
        start_factor: the share at epoch 0, > 0 and <= 1.
        end_factor: the share from ``total_iters`` on, >= 0 and <= 1.
        total_iters: epochs that the way takes, >= 0; with 0 it is over at once.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: a value out of its range.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> LinearLR(optimizer, start_factor=0.5, total_iters=2).schedule().values(4)
    [0.5, 0.75, 1.0, 1.0]
    """

    _options = ("start_factor", "end_factor", "total_iters")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        check_options(
            "LinearLR",
            {
                "start_factor": Range(0, 1, open="low"),
                "end_factor": UNIT_INTERVAL,
                "total_iters": NON_NEGATIVE,
            },
            start_factor=start_factor,
            end_factor=end_factor,
            total_iters=total_iters,
        )
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def shape(self) -> Schedule:
        """The pure function of the epoch that is 1 where the rate is the base rate."""
        options = self.start_factor, self.end_factor, self.total_iters
        return made(schedules.Linear, *map(number, options))


class ExponentialLR(Decay, torchs.ExponentialLR):
    """Decay by ``gamma`` every epoch.

    ::

        rate(t) = base rate * gamma ** t

    Args:
        optimizer: the optimizer.
        gamma: factor of each decay, >= 0.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: ``gamma`` is negative.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> ExponentialLR(optimizer, gamma=0.5).schedule().values(3)
    [1.0, 0.5, 0.25]
    """

    _options = ("gamma",)

    def __init__(
        self, optimizer: torch.optim.Optimizer, gamma: float, last_epoch: int = -1
    ) -> None:
        check_options("ExponentialLR", {"gamma": NON_NEGATIVE}, gamma=gamma)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def shape(self) -> Schedule:
        """The pure function of the epoch that is 1 where the rate is the base rate."""
        return made(schedules.Exponential, number(self.gamma))


class PolynomialLR(Decay, torchs.PolynomialLR):
    """From the base rate to 0 by a power of the way that is left.

    ::

        rate(t) = base rate * (1 - min(t / total_iters, 1)) ** power

    Args:
        optimizer: the optimizer.
        total_iters: epochs until 0 is reached, >= 0.
        power: > 0; 1 is linear.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: a value out of its range.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> PolynomialLR(optimizer, total_iters=2, power=2).schedule().values(4)
    [1.0, 0.25, 0.0, 0.0]
    """

    _options = ("total_iters", "power")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        ranges = {"total_iters": NON_NEGATIVE, "power": POSITIVE}
        check_options("PolynomialLR", ranges, total_iters=total_iters, power=power)
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def shape(self) -> Schedule:
        """The pure function of the epoch that is 1 where the rate is the base rate."""
        options = number(self.total_iters), number(self.power)
        return made(schedules.Polynomial, 1.0, 0.0, *options)


def _wave(half: float) -> Schedule:
    """Half a cosine down from 1 to 0, up again, and so on."""
    return schedules.Cosine(1.0, 0.0, half).repeated(mirrored=True)


class CosineAnnealingLR(Decay, torchs.CosineAnnealingLR):
    """Half a cosine down from the base rate to ``eta_min``, up again, and so on.

    ::

        rate(t) = eta_min + (base rate - eta_min) * (1 + cos(pi * t / T_max)) / 2

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    equation 5, without the restarts.

    Args:
        optimizer: the optimizer.
        T_max: epochs from the base rate to ``eta_min``, > 0.
        eta_min: the lowest rate.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: ``T_max`` is not above 0.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> CosineAnnealingLR(optimizer, T_max=2).schedule().values(5)
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """

    _options = ("T_max", "eta_min")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        T_max: int,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        check_options("CosineAnnealingLR", {"T_max": POSITIVE}, T_max=T_max, eta_min=eta_min)
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def shape(self) -> Schedule:
        """The pure function of the epoch that is 1 where the rate is the base rate."""
        return made(_wave, number(self.T_max))

    def floor(self, group: int) -> float:
        """The rate where the shape is 0."""
        return number(self.eta_min)
