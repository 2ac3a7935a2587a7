"""Schedulers that take functions of the epoch."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import FunctionType
from typing import Any

import torch
from torch.optim import lr_scheduler as torchs

from thalweg import schedules
from thalweg.optim.lr_scheduler.arguments import check_optimizer
from thalweg.optim.lr_scheduler.base import Scheduled
from thalweg.optim.lr_scheduler.rates import Rate, unshared
from thalweg.rule.program import number
from thalweg.schedules import Schedule

Factor = Callable[[int], float]


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
                function.__dict__.update(unshared(held))


class LambdaLR(_ByFunction, torchs.LambdaLR):
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


class MultiplicativeLR(_ByFunction, torchs.MultiplicativeLR):
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
