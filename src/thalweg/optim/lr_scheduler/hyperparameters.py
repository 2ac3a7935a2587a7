"""One object that schedules any hyperparameter of an optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from thalweg.names import nearest
from thalweg.optim.lr_scheduler.arguments import check_optimizer
from thalweg.optim.lr_scheduler.base import LRScheduler
from thalweg.optim.lr_scheduler.rates import Rate, like, set_option
from thalweg.schedules import Constant, Schedule

Values = float | Schedule | None
Plan = Values | tuple[Values, ...]


class ScheduledHyperparameters(LRScheduler):
    """Sets hyperparameters to the values of schedules: the rate, weight decay, momentum, betas.

    ::

        group[name] <- schedule(t)

    The values are set outright. It is stepped as a learning-rate scheduler and is one to trainers.

    Args:
        optimizer: the optimizer, thalweg's or torch's.
        last_epoch: see :class:`LRScheduler`.
        schedules: for each option its values: a :class:`thalweg.schedules.Schedule`, a number, or
            None to leave it as it is; for an option that is a tuple (``betas``), a tuple of these;
            a list of one for each parameter group where they differ.

    Attributes:
        schedules: the schedules of each group, by option.

    Raises:
        TypeError: not a schedule or a number; no optimizer.
        ValueError: the optimizer lacks the option, the option is no number, a list or tuple of
            another length, or a value that the optimizer refuses.

    >>> import torch
    >>> from thalweg.schedules import Cosine, Linear
    >>> optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
    >>> scheduler = ScheduledHyperparameters(
    ...     optimizer, lr=Cosine(0.1, 0.0, 4), weight_decay=0.01, betas=(Linear(0.5, 0.9, 4), None)
    ... )
    >>> optimizer.step(); scheduler.step(); scheduler.step()
    >>> [optimizer.param_groups[0][name] for name in ("lr", "weight_decay", "betas")]
    [0.05, 0.01, (0.7, 0.999)]
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        last_epoch: int = -1,
        **schedules: Plan | list[Plan],
    ) -> None:
        check_optimizer(optimizer)
        if not schedules:
            raise ValueError(
                "ScheduledHyperparameters: no hyperparameter is given; pass one, such as "
                "lr=Cosine(0.1, 0.0, steps=100)"
            )
        groups = optimizer.param_groups
        self.schedules: list[dict[str, Any]] = [{} for _ in groups]
        for name, plan in schedules.items():
            plans = plan if isinstance(plan, list) else [plan] * len(groups)
            if len(plans) != len(groups):
                raise ValueError(
                    f"ScheduledHyperparameters: {name} has {len(plans)} entries for {len(groups)} "
                    "parameter groups; give one for each, or a single one for all"
                )
            for k, (group, own) in enumerate(zip(groups, plans, strict=True)):
                self.schedules[k][name] = _checked(name, own, group)
        self._values_at(optimizer, last_epoch + 1)  # raises before anything is changed
        super().__init__(optimizer, last_epoch)

    def schedule(self, group: int = 0, name: str = "lr") -> Any:
        """The schedule of a group's option: a tuple of them where the option is one."""
        return self.schedules[group][name]

    def get_lr(self) -> list[Rate]:
        """The rate of each group at ``last_epoch``."""
        self._warn_of_get_lr()
        values = self._values_at(self.optimizer, self.last_epoch)
        return [new["lr"] for new in values]

    def _update_lr(self, epoch: float | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch  # type: ignore[assignment]
        self._reapply()

    def _reapply(self) -> None:
        new = self._values_at(self.optimizer, self.last_epoch)
        for group, values in zip(self.optimizer.param_groups, new, strict=True):
            for name in values:
                set_option(group, name, values[name])
        self._last_lr = self._rates_now()

    def _values_at(self, optimizer: torch.optim.Optimizer, t: float) -> list[dict[str, Any]]:
        """Each group's scheduled options and its rate at epoch t; raises if one is refused."""
        if len(optimizer.param_groups) != len(self.schedules):
            raise ValueError(
                f"ScheduledHyperparameters: the optimizer has {len(optimizer.param_groups)} "
                f"parameter groups, the schedules are for {len(self.schedules)}; make a new one "
                "after add_param_group"
            )
        found = []
        for group, plans in zip(optimizer.param_groups, self.schedules, strict=True):
            values = {name: _evaluated(plan, group[name], t) for name, plan in plans.items()}
            check = getattr(optimizer, "check_options", None)
            if check is not None:
                check({**group, **values})
            found.append({"lr": group["lr"], **values})
        return found

    def state_dict(self) -> dict[str, Any]:
        """As for every scheduler; the schedules are not in it: build with the same to resume."""
        saved = super().state_dict()
        saved["schedules"] = [sorted(plans) for plans in self.schedules]
        return saved

    def _check_state(self, saved: Any) -> None:
        super()._check_state(saved)
        own = [sorted(plans) for plans in self.schedules]
        if saved.get("schedules") != own:
            raise ValueError(
                "ScheduledHyperparameters: the state dict schedules "
                f"{saved.get('schedules')}, this one {own}"
            )

    def _take_state(self, saved: Mapping[str, Any]) -> None:
        super()._take_state({key: v for key, v in saved.items() if key != "schedules"})


def _checked(name: str, plan: Any, group: Mapping[str, Any]) -> Any:
    """The plan with numbers as schedules; raises unless the group has such an option."""
    where = f"ScheduledHyperparameters: {name}"
    if name not in group or name == "params":
        options = [key for key in group if key != "params"]
        hint = nearest(name, options)
        raise ValueError(
            f"{where} is no option of this optimizer, which has {', '.join(options)}{hint}"
        )
    present = group[name]
    if isinstance(present, (tuple, list)):
        if not isinstance(plan, tuple) or len(plan) != len(present):
            raise ValueError(
                f"{where} is a tuple of {len(present)}, got {plan!r}; give a tuple of as many "
                "schedules, numbers or None"
            )
        return tuple(_schedule(where, item) for item in plan)
    if isinstance(present, (bool, str)) or present is None:
        raise ValueError(f"{where} is {present!r}, no number; only numbers can be scheduled")
    return _schedule(where, plan)


def _schedule(where: str, plan: Any) -> Schedule | None:
    if plan is None or isinstance(plan, Schedule):
        return plan
    if isinstance(plan, (int, float)) and not isinstance(plan, bool):
        return Constant(plan)
    raise TypeError(
        f"{where} must be a Schedule, a number or None, got {type(plan).__name__} {plan!r}; wrap "
        "a function as thalweg.schedules.Function"
    )


def _evaluated(plan: Any, present: Any, t: float) -> Any:
    if isinstance(plan, tuple):
        pairs: Sequence[Any] = list(zip(plan, present, strict=True))
        return tuple(_evaluated(own, value, t) for own, value in pairs)
    return present if plan is None else like(present, plan(t))
