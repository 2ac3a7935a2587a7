"""Schedulers that cycle the rate, and momentum against it."""

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, Literal

import torch
from torch.optim import lr_scheduler as torchs

from thalweg import schedules
from thalweg.optim.lr_scheduler.arguments import (
    check_integer,
    check_optimizer,
    check_options,
    per_group,
)
from thalweg.optim.lr_scheduler.base import Scheduled
from thalweg.optim.lr_scheduler.rates import made, set_option, unshared
from thalweg.ranges import NON_NEGATIVE, POSITIVE
from thalweg.rule.program import number
from thalweg.schedules import Schedule


class _CyclesMomentum(Scheduled):
    """A scheduler that also moves momentum, or the first of the betas, against the rate."""

    cycle_momentum: bool
    use_beta1: bool

    def momentum_schedule(self, group: int = 0) -> Schedule:
        """Momentum, or beta1, of a group as a pure function of the epoch."""
        raise NotImplementedError

    def _check_momentum(self, optimizer: torch.optim.Optimizer) -> None:
        """Find out what to move; raise where there is nothing."""
        if not {"momentum", "betas"} & set(optimizer.defaults):
            raise ValueError(
                f"{type(self).__name__}: optimizer must support momentum or beta1 with "
                f"`cycle_momentum` option enabled, and {type(optimizer).__name__} has neither; "
                "pass cycle_momentum=False"
            )
        self.use_beta1 = "betas" in optimizer.defaults

    def _update_lr(self, epoch: float | None = None) -> None:
        super()._update_lr(epoch)
        self._set_momenta()

    def _set_momenta(self) -> None:
        if not self.cycle_momentum:
            return
        for k, group in enumerate(self.optimizer.param_groups):
            self._set_momentum(group, self.momentum_schedule(k)(self.last_epoch))

    def _set_momentum(self, group: dict[str, Any], value: float) -> None:
        if self.use_beta1:
            set_option(group, "betas", (value, *group["betas"][1:]))
        else:
            set_option(group, "momentum", value)

    def _begin_momenta(
        self, optimizer: torch.optim.Optimizer, base: Sequence[float], highest: Sequence[float]
    ) -> None:
        for group, low, high in zip(optimizer.param_groups, base, highest, strict=True):
            self._set_momentum(group, high)
            group["max_momentum"], group["base_momentum"] = high, low

    def _reapply(self) -> None:
        self._set_momenta()


class CyclicLR(_CyclesMomentum, torchs.CyclicLR):
    """Up from ``base_lr`` to ``max_lr`` and down again, over and over; momentum the other way.

    ::

        rate = base_lr + (max_lr - base_lr) * triangle(t) * scale
        scale = 1                    "triangular"
                1 / 2^(cycle - 1)    "triangular2", cycle counted from 1
                gamma^t              "exp_range"

    To be stepped after each batch. Momentum is max_momentum - (max_momentum - base_momentum) *
    triangle(t) * scale.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.

    Args:
        optimizer: the optimizer.
        base_lr: the lowest rate, or one for each parameter group.
        max_lr: the highest, or one for each parameter group.
        step_size_up: steps from the lowest to the highest, > 0.
        step_size_down: steps down again, >= 0; as many as up by default.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: of "exp_range", >= 0.
        scale_fn: a function in place of the mode's scale.
        scale_mode: what ``scale_fn`` is a function of: "cycle" or "iterations".
        cycle_momentum: move momentum, or the first of the betas.
        base_momentum: the lowest momentum, or one for each parameter group.
        max_momentum: the highest, or one for each parameter group.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: an unknown mode, a list of another length, no momentum to cycle.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
    >>> CyclicLR(optimizer, base_lr=0.0, max_lr=1.0, step_size_up=2).schedule().values(5)
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    _options = ("max_lrs", "total_size", "step_ratio", "mode", "gamma", "scale_mode")
    _modes = ("triangular", "triangular2", "exp_range")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: Literal["cycle", "iterations"] = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer)
        lowest = per_group("CyclicLR", "base_lr", optimizer, base_lr)
        self.max_lrs = per_group("CyclicLR", "max_lr", optimizer, max_lr)
        down = step_size_up if step_size_down is None else step_size_down
        check_options(
            "CyclicLR",
            {"step_size_up": POSITIVE, "step_size_down": NON_NEGATIVE, "gamma": NON_NEGATIVE},
            step_size_up=step_size_up,
            step_size_down=down,
            gamma=gamma,
        )
        if scale_fn is None and mode not in self._modes:
            raise ValueError(
                f"CyclicLR: mode is invalid and scale_fn is None: mode must be one of "
                f"{', '.join(map(repr, self._modes))}, got {mode!r}"
            )
        if scale_mode not in ("cycle", "iterations"):
            raise ValueError(
                f"CyclicLR: scale_mode must be 'cycle' or 'iterations', got {scale_mode!r}"
            )
        self.total_size = float(step_size_up) + float(down)  # type: ignore[assignment]
        self.step_ratio = float(step_size_up) / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._check_momentum(optimizer)
            momenta = per_group("CyclicLR", "base_momentum", optimizer, base_momentum)
            self.max_momentums = per_group("CyclicLR", "max_momentum", optimizer, max_momentum)
            self.base_momentums = momenta
            if last_epoch == -1:
                self._begin_momenta(optimizer, momenta, self.max_momentums)
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, lowest, strict=True):
                set_option(group, "lr", rate)
        self._attach(optimizer, last_epoch, lowest)

    def _cycle(self, start: float, peak: float) -> schedules.Cyclic:
        up = self.total_size * self.step_ratio
        options = start, peak, up, self.total_size - up, self.mode, number(self.gamma)
        if self._scale_fn_custom is None:
            return made(schedules.Cyclic, *options)
        return schedules.Cyclic(*options, self._scale_fn_custom, self.scale_mode)

    def schedule(self, group: int = 0) -> Schedule:
        """The rate of a group as a pure function of the step."""
        return self._cycle(number(self.base_lrs[group]), number(self.max_lrs[group]))

    def momentum_schedule(self, group: int = 0) -> Schedule:
        """Momentum, or beta1, of a group as a pure function of the step."""
        highest, lowest = self.max_momentums[group], self.base_momentums[group]
        return self._cycle(number(highest), number(lowest))

    def scale_fn(self, x: float) -> float:
        """The scale of a cycle's height, at a cycle or a step (``scale_mode``)."""
        return self._cycle(0.0, 1.0).scale_at(x)

    def state_dict(self) -> dict[str, Any]:
        """As for every scheduler; of ``scale_fn``, what a callable object holds is saved."""
        saved = super().state_dict()
        function = self._scale_fn_custom
        plain = function is None or isinstance(function, FunctionType)
        saved["_scale_fn_custom"] = None if plain else dict(function.__dict__)
        return saved

    def _take_state(self, saved: Mapping[str, Any]) -> None:
        super()._take_state({k: v for k, v in saved.items() if k != "_scale_fn_custom"})
        held = saved.get("_scale_fn_custom")
        if held is not None and self._scale_fn_custom is not None:
            self._scale_fn_custom.__dict__.update(unshared(held))


class OneCycleLR(_CyclesMomentum, torchs.OneCycleLR):
    """Up to ``max_lr`` and down to nearly nothing, once; momentum the other way.

    ::

        max_lr / div_factor -> max_lr                       until step pct_start * total_steps - 1
        max_lr -> max_lr / div_factor / final_div_factor    until step total_steps - 1

    With ``three_phase`` the way down first takes as many steps as the way up, to where it began,
    and the rest to the final rate. Momentum goes from max_momentum to base_momentum and back. To be
    stepped after each batch.

    Source: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", 2018, section 2; the cosine and two phases as in fastai's.

    Args:
        optimizer: the optimizer.
        max_lr: the highest rate, or one for each parameter group.
        total_steps: steps of the whole cycle, an int > 0; or else ``epochs * steps_per_epoch``.
        epochs: epochs, an int > 0.
        steps_per_epoch: steps of each, an int > 0.
        pct_start: share of the steps that the way up takes, >= 0 and <= 1.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: move momentum, or the first of the betas.
        base_momentum: the lowest momentum, or one for each parameter group.
        max_momentum: the highest, or one for each parameter group.
        div_factor: max_lr over the first rate.
        final_div_factor: the first rate over the last.
        three_phase: go down to the first rate before going to the last.
        last_epoch: see :class:`LRScheduler`.

    The step after the last (t = total_steps) keeps the last rate; torch goes on past it there.

    Raises:
        ValueError: a value out of its range, no momentum to cycle, or, at ``step``, more steps than
            there are.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
    >>> scheduler = OneCycleLR(optimizer, 1.0, total_steps=6, pct_start=0.5, div_factor=4.0,
    ...                        final_div_factor=2.0, anneal_strategy="linear")
    >>> [round(rate, 3) for rate in scheduler.schedule().values(6)]
    [0.25, 0.625, 1.0, 0.708, 0.417, 0.125]
    """

    _options = ("total_steps", "_schedule_phases", "_anneal_func_type")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer)
        name = "OneCycleLR"
        if total_steps is not None:
            check_integer(name, "total_steps", total_steps, 1)
        elif epochs is not None and steps_per_epoch is not None:
            check_integer(name, "epochs", epochs, 1)
            check_integer(name, "steps_per_epoch", steps_per_epoch, 1)
            total_steps = epochs * steps_per_epoch
        else:
            raise ValueError(
                f"{name}: You must define either total_steps OR (epochs AND steps_per_epoch)"
            )
        if not (isinstance(pct_start, (int, float)) and 0 <= pct_start <= 1):
            raise ValueError(
                f"{name}: Expected float between 0 and 1 pct_start, but got {pct_start!r}"
            )
        if three_phase and 2 * (pct_start * total_steps - 1) > total_steps - 1:
            raise ValueError(
                f"{name}: pct_start must leave room for three phases, got {pct_start}: the way up "
                "and as long a way down take more than all steps; give at most 0.5"
            )
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"{name}: anneal_strategy must be one of 'cos' or 'linear', got {anneal_strategy!r}"
            )
        ranges = {"div_factor": POSITIVE, "final_div_factor": POSITIVE}
        check_options(name, ranges, div_factor=div_factor, final_div_factor=final_div_factor)
        highest = per_group(name, "max_lr", optimizer, max_lr)
        self.total_steps = total_steps
        self._schedule_phases = _phases(pct_start, total_steps, three_phase)  # type: ignore[assignment]
        self._anneal_func_type = anneal_strategy
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._check_momentum(optimizer)
            base = per_group(name, "base_momentum", optimizer, base_momentum)
            largest = per_group(name, "max_momentum", optimizer, max_momentum)
        if last_epoch == -1:
            if cycle_momentum:
                self._begin_momenta(optimizer, base, largest)
            for group, rate in zip(optimizer.param_groups, highest, strict=True):
                group["max_lr"] = rate
                group["initial_lr"] = rate / div_factor
                group["min_lr"] = group["initial_lr"] / final_div_factor
                set_option(group, "lr", group["initial_lr"])
        super().__init__(optimizer, last_epoch)

    def _one_cycle(self, group: dict[str, Any], initial: str, peak: str, final: str) -> Schedule:
        phases = self._schedule_phases
        steps = phases[-1]["end_step"] + 1  # total_steps is how many are allowed
        return made(
            schedules.OneCycle,
            number(group[initial]),
            number(group[peak]),
            number(group[final]),
            steps,
            (phases[0]["end_step"] + 1) / steps,
            "cosine" if self._anneal_func_type == "cos" else "linear",
            len(phases) == 3,
        )

    def _check_state(self, saved: Any) -> None:
        super()._check_state(_renewed(saved))

    def _take_state(self, saved: Mapping[str, Any]) -> None:
        super()._take_state(_renewed(saved))

    def _check_epoch(self, epoch: float) -> None:
        super()._check_epoch(epoch)
        if epoch > self.total_steps:
            raise ValueError(
                f"OneCycleLR: Tried to step {epoch} times. The specified number of total steps is "
                f"{self.total_steps}; give as many as are made"
            )

    def schedule(self, group: int = 0) -> Schedule:
        """The rate of a group as a pure function of the step."""
        options = self.optimizer.param_groups[group]
        return self._one_cycle(options, "initial_lr", "max_lr", "min_lr")

    def momentum_schedule(self, group: int = 0) -> Schedule:
        """Momentum, or beta1, of a group as a pure function of the step."""
        options = self.optimizer.param_groups[group]
        return self._one_cycle(options, "max_momentum", "base_momentum", "max_momentum")


def _renewed(saved: Any) -> Any:
    """A state dict of torch before 2.1, which names the annealing by its function, as today's."""
    if not isinstance(saved, Mapping) or "anneal_func" not in saved:
        return saved
    kinds = {"_annealing_cos": "cos", "_annealing_linear": "linear"}
    kind = kinds.get(getattr(saved["anneal_func"], "__name__", ""))
    if kind is None:
        return saved
    rest = {key: value for key, value in saved.items() if key != "anneal_func"}
    return {"_anneal_func_type": kind, **rest}


def _phases(pct_start: float, steps: int, three: bool) -> list[dict[str, Any]]:
    """The phases by the step at which each ends: what torch's state dicts hold of a cycle."""
    ends = [float(pct_start * steps) - 1, steps - 1]
    rates = ["initial_lr", "max_lr", "min_lr"]
    momenta = ["max_momentum", "base_momentum", "max_momentum"]
    if three:
        ends.insert(1, float(2 * pct_start * steps) - 2)
        rates.insert(2, "initial_lr")
        momenta.append("max_momentum")
    return [
        {
            "end_step": end,
            "start_lr": rates[k],
            "end_lr": rates[k + 1],
            "start_momentum": momenta[k],
            "end_momentum": momenta[k + 1],
        }
        for k, end in enumerate(ends)
    ]
