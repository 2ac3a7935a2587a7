"""Schedulers made of schedulers: one after another, and all at once."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch.optim import lr_scheduler as torchs

from thalweg import ranges
from thalweg.engine.interrupts import uninterrupted
from thalweg.optim.lr_scheduler.arguments import check_optimizer
from thalweg.optim.lr_scheduler.base import _MADE, LRScheduler
from thalweg.optim.lr_scheduler.decays import Decay
from thalweg.optim.lr_scheduler.rates import Rate, copied, like, set_option
from thalweg.rule.program import number


class Composition(LRScheduler):
    """What schedulers made of others share: checks, and the state of the parts.

    The parts are stepped through their own :meth:`step`, so that any scheduler can be one.
    """

    _options: ClassVar[tuple[str, ...]] = ("_schedulers",)
    _schedulers: list[Any]

    def _take_parts(self, optimizer: Any, parts: Sequence[Any]) -> None:
        name = type(self).__name__
        if len(parts) < 1:
            raise ValueError(f"{name} expects at least one scheduler, but got no scheduler.")
        for k, part in enumerate(parts):
            if not hasattr(part, "optimizer"):
                raise TypeError(
                    f"{name}: at index {k} should have `optimizer` as its attribute: a "
                    f"{type(part).__name__} is no scheduler"
                )
        owner = parts[0].optimizer if optimizer is None else optimizer
        check_optimizer(owner)
        for k, part in enumerate(parts):
            if isinstance(part, torchs.ReduceLROnPlateau):
                raise ValueError(
                    f"{name} does not support `ReduceLROnPlateau`, whose step needs a metric, but "
                    f"got one at index {k}; step it beside this one"
                )
            torchs_own = isinstance(part, (torchs.SequentialLR, torchs.ChainedScheduler))
            if torchs_own and not isinstance(part, Composition):
                raise ValueError(
                    f"{name}: torch's {type(part).__name__}, at index {k}, cannot be begun anew; "
                    f"use thalweg.optim.lr_scheduler.{type(part).__name__}"
                )
            if part.optimizer is not owner:
                raise ValueError(
                    f"{name} expects all schedulers to belong to the same optimizer, but "
                    f"{type(part).__name__} at index {k} belongs to another "
                    f"{type(part.optimizer).__name__}"
                )
        if len({id(part) for part in parts}) != len(parts):
            raise ValueError(f"{name}: a scheduler is given twice; make one for each place")
        self._schedulers = list(parts)
        self.optimizer = owner

    def step(self, epoch: float | None = None) -> None:
        """Go on to the next epoch, or to this one, and set its rates.

        Args:
            epoch: the epoch; None for the next.

        Raises:
            ValueError: an epoch is given to a ChainedScheduler, and a part is no function of it.
        """
        self._check_epoch(self.last_epoch + 1 if epoch is None else epoch)
        self._advance(epoch)

    def _advance(self, epoch: float | None) -> None:
        with uninterrupted():
            self._advance_all(epoch)

    def _advance_all(self, epoch: float | None) -> None:
        groups = self.optimizer.param_groups
        members = [(member, dict(member.__dict__)) for member in self._members()]
        options = [{k: copied(v) for k, v in group.items() if k != "params"} for group in groups]
        try:
            super()._advance(epoch)
        except BaseException:  # no part goes on alone
            for member, before in members:
                member.__dict__.clear()
                member.__dict__.update(before)
            for group, kept in zip(groups, options, strict=True):
                for key, value in kept.items():
                    set_option(group, key, value)
            raise

    def _members(self) -> Iterator[Any]:
        """This scheduler, its parts, and theirs."""
        yield self
        for part in self._schedulers:
            yield from part._members() if isinstance(part, Composition) else [part]

    def _undo_parts(self) -> None:
        """Take back what the parts did to the rates when they were made, and only that.

        So it does not matter in which order they were made, and another scheduler's share stays.
        """
        groups = self.optimizer.param_groups
        if any(part.last_epoch != 0 or not hasattr(part, "_initial") for part in self._schedulers):
            self._to_base([group["initial_lr"] for group in groups])
            return
        for part in sorted(self._schedulers, key=lambda part: -part._initial[0]):
            for group, before, after in zip(groups, *part._initial[1:], strict=True):
                rate = number(group["lr"])
                if rate == number(after) or not number(after):
                    set_option(group, "lr", copied(before))
                else:
                    set_option(group, "lr", rate * (number(before) / number(after)))

    def _begin_anew(self, part: Any) -> None:
        """Let a part go from the base rates to those of its epoch 0."""
        part.last_epoch = -1
        part._initial_step()

    def _to_base(self, bases: Sequence[Rate]) -> None:
        for group, base in zip(self.optimizer.param_groups, bases, strict=True):
            set_option(group, "lr", copied(base))

    def get_lr(self) -> list[Rate]:
        """The rate of each group at ``last_epoch``."""
        self._warn_of_get_lr()
        return self._rates_now()

    def state_dict(self) -> dict[str, Any]:
        """As for every scheduler, with the state dicts of the parts."""
        saved = super().state_dict()
        saved["_schedulers"] = [part.state_dict() for part in self._schedulers]
        return saved

    def _check_state(self, saved: Any) -> None:
        super()._check_state(saved)
        parts = saved["_schedulers"]
        if len(parts) != len(self._schedulers):
            raise ValueError(
                f"{type(self).__name__}: the state dict has {len(parts)} schedulers, this one "
                f"{len(self._schedulers)}"
            )
        for own, other in zip(self._schedulers, parts, strict=True):
            if isinstance(own, LRScheduler):
                own._check_state(other)

    def _take_state(self, saved: Mapping[str, Any]) -> None:
        super()._take_state({key: v for key, v in saved.items() if key != "_schedulers"})
        for own, other in zip(self._schedulers, saved["_schedulers"], strict=True):
            if isinstance(own, LRScheduler):
                own._take_state(other)
            else:
                own.load_state_dict(dict(other))


def _same(rate: Rate) -> float:
    """The relative difference up to which two rates are the same but for rounding."""
    return 8 * torch.finfo(rate.dtype).eps if isinstance(rate, torch.Tensor) else 1e-12


class SequentialLR(Composition, torchs.SequentialLR):
    """One scheduler after another, each from its own epoch 0.

    ::

        rate(t) = rate of schedulers[i] at epoch t - milestones[i - 1]
        from epoch milestones[i - 1] to milestones[i]

    Each part begins from the base rate. What others have done to the rate stays: a scheduler
    stepped back to back with this one multiplies, across the milestones too. (A part that ends at a
    rate of 0 leaves nothing to tell it by; the next one then begins from the base rate itself.)

    Args:
        optimizer: the optimizer.
        schedulers: the parts, all of this optimizer; compositions too.
        milestones: the epochs at which the second and later parts begin; >= 0, not decreasing.
        last_epoch: see :class:`LRScheduler`.

    Attributes:
        last_epoch: the epoch, counted over all parts.

    Raises:
        TypeError: a part is no scheduler.
        ValueError: no parts, one of another optimizer, one that needs a metric, or not one
            milestone fewer than parts.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> from thalweg.optim.lr_scheduler import ConstantLR, ExponentialLR
    >>> parts = [ConstantLR(optimizer, 0.5), ExponentialLR(optimizer, 0.9)]
    >>> scheduler = SequentialLR(optimizer, parts, milestones=[1])
    >>> optimizer.step(); scheduler.step(); scheduler.get_last_lr()
    [1.0]
    """

    _options = ("_schedulers", "_milestones")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedulers: Sequence[torchs.LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self._check_beginning(optimizer, last_epoch)
        given = list(milestones)
        if len(schedulers) >= 1 and len(given) != len(schedulers) - 1:
            raise ValueError(
                "SequentialLR expects number of schedulers provided to be one more than the number "
                f"of milestone points, but got {len(schedulers)} schedulers and {len(given)} "
                "milestones"
            )
        ranges.milestones("SequentialLR", given)
        self._take_parts(optimizer, schedulers)
        self._milestones = given
        self._undo_parts()
        super().__init__(optimizer, last_epoch)

    def recursive_undo(self, sched: Any = None) -> None:
        """Take one epoch off each part, at any depth, as torch's does; nothing here needs it."""
        whole = self if sched is None else sched
        if hasattr(whole, "_schedulers"):
            for part in whole._schedulers:
                self.recursive_undo(part)
        elif hasattr(whole, "last_epoch"):
            whole.last_epoch -= 1

    def _active(self, t: float) -> tuple[Any, float]:
        """The part of epoch t, and the epoch at which it begins."""
        index = bisect_right(self._milestones, t)
        return self._schedulers[index], self._milestones[index - 1] if index else 0

    def _initial_step(self) -> None:
        self._step_count = 1
        if self.last_epoch >= 0:
            self._update_lr(self.last_epoch + 1)
            return
        self._begin_anew(self._active(0)[0])
        self.last_epoch = 0
        self._last_lr = self._rates_now()

    def _update_lr(self, epoch: float | None = None) -> None:
        t = self.last_epoch + 1 if epoch is None else epoch
        part, start = self._active(t)
        if epoch is not None:
            self._to_base(self.base_lrs)
            self._begin_anew(part)
            if t > start:
                part._update_lr(t - start)
        elif t == start:
            present = [group["lr"] for group in self.optimizer.param_groups]
            self._to_base(self._from_base(present, t))
            self._begin_anew(part)
        else:
            part.step()
        self.last_epoch = t  # type: ignore[assignment]
        self._last_lr = self._rates_now()

    def _from_base(self, rates: Sequence[Rate], t: float) -> list[Rate]:
        """The base rates times what others have multiplied the rates by, before milestone t."""
        alone = self._rates_at(t - 1)
        if alone is None:  # a part that is no function of the epoch: it cannot be told
            return self.base_lrs
        result: list[Rate] = []
        for rate, own, base in zip(rates, alone, self.base_lrs, strict=True):
            present, expected = number(rate), number(like(rate, own))
            share = present / expected if expected else 1.0
            result.append(base if abs(share - 1) < _same(rate) else base * share)
        return result

    def _rates_at(self, t: float) -> list[float] | None:
        part, start = self._active(t)
        return part._rates_at(t - start) if isinstance(part, LRScheduler) else None

    def _rates_after(self, rates: Sequence[Rate], t: float) -> list[float] | None:
        part, start = self._active(t)
        if not isinstance(part, LRScheduler):
            return None
        if t > start or t == 0:
            return part._rates_after(rates, t - start)
        return part._rates_after(self._from_base(rates, t), 0)

    def _reapply(self) -> None:
        part, _ = self._active(self.last_epoch)
        if isinstance(part, LRScheduler):
            part._reapply()


class ChainedScheduler(Composition, torchs.ChainedScheduler):  # type: ignore[misc]
    """Several schedulers stepped back to back as one: their factors multiply.

    Args:
        schedulers: the parts, all of one optimizer; compositions too.
        optimizer: the optimizer; the parts' by default.

    Attributes:
        last_epoch: the epoch of the first part.

    Raises:
        TypeError: a part is no scheduler.
        ValueError: no parts, one of another optimizer, or one that needs a metric.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> from thalweg.optim.lr_scheduler import ConstantLR, ExponentialLR
    >>> parts = [ConstantLR(optimizer, 0.5), ExponentialLR(optimizer, 0.8)]
    >>> scheduler = ChainedScheduler(parts)
    >>> optimizer.step(); scheduler.step(); scheduler.get_last_lr()
    [0.4]
    """

    _position = ()  # torch's has no last_epoch

    def __init__(
        self,
        schedulers: Sequence[torchs.LRScheduler],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self._take_parts(optimizer, schedulers)
        groups = self.optimizer.param_groups
        self.base_lrs = [copied(group["initial_lr"]) for group in groups]
        self.last_epoch = self._schedulers[0].last_epoch
        self._step_count = 1
        found = self._rates_now()
        if all(part.last_epoch == 0 for part in self._schedulers):
            self._undo_parts()
            found = self._rates_now()
            self._initial_step()
        self._last_lr = self._rates_now()
        self._initial = next(_MADE), found, self._rates_now()

    def _initial_step(self) -> None:
        self._step_count = 1
        for part in self._schedulers:
            self._begin_anew(part)
        self.last_epoch = 0
        self._last_lr = self._rates_now()

    def _update_lr(self, epoch: float | None = None) -> None:
        if epoch is None:
            for part in self._schedulers:
                part.step()
        else:
            rates = self._rates_at(epoch)
            if rates is None:
                raise ValueError(
                    "ChainedScheduler: step(epoch) needs parts that are functions of the epoch; "
                    "step without an epoch"
                )
            for part in self._schedulers:
                part._update_lr(epoch)
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                set_option(group, "lr", rate)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch  # type: ignore[assignment]
        self._last_lr = self._rates_now()

    def _rates_at(self, t: float) -> list[float] | None:
        bases = [number(base) for base in self.base_lrs]
        if all(isinstance(part, Decay) and part.floorless for part in self._schedulers):
            shapes = prod(part.shape()(t) for part in self._schedulers)
            return [base * shapes for base in bases]
        # A chain about a floor (CosineAnnealingLR's eta_min) has no closed form.
        rates: list[float] | None = bases
        for epoch in range(int(t) + 1):
            if rates is not None:
                rates = self._rates_after(rates, epoch)
        return rates

    def _rates_after(self, rates: Sequence[Rate], t: float) -> list[float] | None:
        for part in self._schedulers:
            moved = part._rates_after(rates, t) if isinstance(part, LRScheduler) else None
            if moved is None:
                return None
            rates = moved
        return [number(rate) for rate in rates]

    def _take_state(self, saved: Mapping[str, Any]) -> None:
        super()._take_state(saved)
        # Not the saved one: torch's has none, and carries ours along as it was.
        self.last_epoch = self._schedulers[0].last_epoch

    def _reapply(self) -> None:
        for part in self._schedulers:
            if isinstance(part, LRScheduler):
                part._reapply()
