"""Schedulers that multiply the rate: each a factor of the base rate, and chainable."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from math import prod
from types import FunctionType
from typing import Any, Literal

import torch

from thalweg import schedules
from thalweg.optim.lr_scheduler.base import (
    Rate,
    Scheduled,
    apart,
    check_integer,
    check_optimizer,
    check_options,
    like,
    made,
    per_group,
)
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


class _ByFunction(Scheduled):
    """What the two schedulers that take functions share."""

    _options = ("lr_lambdas",)

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        lr_lambda: Factor | Sequence[Factor],
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer)
        groups, name = len(optimizer.param_groups), type(self).__name__
        several = isinstance(lr_lambda, (list, tuple))
        lambdas: list[Any] = list(lr_lambda) if several else [lr_lambda] * groups  # type: ignore[arg-type]
        if len(lambdas) != groups:
            raise ValueError(
                f"{name}: Expected {groups} lr_lambdas, but got {len(lambdas)}; pass one for each "
                "parameter group, or a single function for all"
            )
        for function in lambdas:
            if not callable(function):
                raise TypeError(
                    f"{name}: lr_lambda should be a function, but got {type(function).__name__}"
                )
        self.lr_lambdas = lambdas
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """As for every scheduler; of the functions, what callable objects hold is saved.

        A plain function or lambda is not: build the scheduler with the same one to resume.
        """
        saved = super().state_dict()
        saved["lr_lambdas"] = [
            None if isinstance(f, FunctionType) else dict(f.__dict__) for f in self.lr_lambdas
        ]
        return saved

    def _check_state(self, saved: Any) -> None:
        super()._check_state(saved)
        if len(saved["lr_lambdas"]) != len(self.lr_lambdas):
            raise ValueError(
                f"{type(self).__name__}: the state dict has {len(saved['lr_lambdas'])} lr_lambdas, "
                f"the scheduler {len(self.lr_lambdas)}"
            )

    def _take_state(self, saved: Mapping[str, Any]) -> None:
        super()._take_state({k: v for k, v in saved.items() if k != "lr_lambdas"})
        for function, held in zip(self.lr_lambdas, saved["lr_lambdas"], strict=True):
            if held is not None:
                function.__dict__.update(apart(held))


class LambdaLR(_ByFunction):
    """The base rate times a function of the epoch.

    ::

        rate(t) = base rate * lr_lambda(t)

    The rate is set outright: other schedulers' changes are overwritten, as in torch.

    Args:
        optimizer: the optimizer.
        lr_lambda: a function of the epoch, or one for each parameter group.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        TypeError: not a function.
        ValueError: not one function for each group.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
    >>> scheduler = LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    >>> scheduler.get_last_lr()
    [0.5]
    """

    def schedule(self, group: int = 0) -> Schedule:
        """The rate of a group as a pure function of the epoch."""
        function: Any = self.lr_lambdas[group]
        return number(self.base_lrs[group]) * schedules.Function(function)

    def _rates_at(self, t: float) -> list[float]:
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [number(base) * number(function(t)) for base, function in pairs]


class MultiplicativeLR(_ByFunction):
    """The present rate times a function of the epoch, at each epoch after the first.

    ::

        rate(t) = rate(t - 1) * lr_lambda(t)

    Args:
        optimizer: the optimizer.
        lr_lambda: a function of the epoch, or one for each parameter group.
        last_epoch: see :class:`LRScheduler`; resuming calls the function for all epochs so far.

    Raises:
        TypeError: not a function.
        ValueError: not one function for each group.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
    >>> scheduler = MultiplicativeLR(optimizer, lambda epoch: 0.5)
    >>> optimizer.step(); scheduler.step(); scheduler.get_last_lr()
    [0.25]
    """

    def schedule(self, group: int = 0) -> Schedule:
        """The rate of a group as a pure function of the epoch."""
        base, function = number(self.base_lrs[group]), self.lr_lambdas[group]

        def rate(t: float) -> float:
            return base * prod(number(function(epoch)) for epoch in range(1, int(t) + 1))

        return schedules.Function(rate)

    def _rates_after(self, rates: Sequence[Rate], t: float) -> list[float]:
        pairs = zip(rates, self.lr_lambdas, strict=False)
        return [number(rate) * (number(f(t)) if t > 0 else 1.0) for rate, f in pairs]


class StepLR(Decay):
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


class MultiStepLR(Decay):
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


class ConstantLR(Decay):
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


class LinearLR(Decay):
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


class ExponentialLR(Decay):
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


class PolynomialLR(Decay):
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


class CosineAnnealingLR(Decay):
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


class SWALR(Decay):
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
