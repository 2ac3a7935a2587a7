"""The base of learning-rate schedulers: epochs, rates, checkpoints and torch's protocol.

A scheduler is a pure function of the epoch, and this is what ties one to an optimizer. Trainers ask
for a ``torch.optim.lr_scheduler.LRScheduler``, so it is one by inheritance; the work is done here.
"""

import warnings
import weakref
from collections.abc import Mapping, Sequence
from functools import wraps
from itertools import count
from typing import Any, ClassVar

import torch
from torch.optim import lr_scheduler as torchs

from thalweg.engine.interrupts import uninterrupted
from thalweg.optim.lr_scheduler.arguments import check_integer, check_optimizer
from thalweg.optim.lr_scheduler.rates import Rate, copied, like, set_option, unshared
from thalweg.schedules import Schedule

_ORDER = (
    "the first rate of the schedule is skipped that way. Call `optimizer.step()` first, then "
    "`lr_scheduler.step()`"
)
# The names under which the rates of the groups and the scheduler's class are saved.
_RATES, _CLASS = "_group_lrs", "_class"
_UNSAVED = ("optimizer", "_initial")  # what a state dict leaves out

_MADE = count()


class LRScheduler(torchs.LRScheduler):
    """Base class of learning-rate schedulers.

    A subclass gives :meth:`get_lr`, the rate of each group at ``last_epoch``, as with torch.

    Args:
        optimizer: the optimizer whose groups' ``lr`` is set; thalweg's or torch's.
        last_epoch: -1 begins at epoch 0. N >= 0 goes on after epoch N: the rates are those of epoch
            N + 1. The groups must then hold ``initial_lr``, which a saved optimizer has.

    Attributes:
        optimizer: the optimizer.
        base_lrs: the rate of each group that the schedule starts from (``initial_lr``).
        last_epoch: the epoch whose rates are set.

    A rate that is a Tensor is filled in place: the group keeps its object, and nothing here shares
    its memory.

    Raises:
        TypeError: ``optimizer`` is no optimizer.
        KeyError: ``last_epoch >= 0`` and a group lacks ``initial_lr``.
    """

    # Not among the attributes, which are those of any scheduler that has loaded this one's state.
    __slots__ = ("_initial",)

    # The attributes that make this scheduler what it is, and those that tell where it stands: a
    # state dict must hold both.
    _options: ClassVar[tuple[str, ...]] = ()
    _position: ClassVar[tuple[str, ...]] = ("last_epoch",)
    _is_initial: bool = False
    _get_lr_called_within_step: bool = False
    # When it was made, and the rates before and after.
    _initial: tuple[int, list[Rate], list[Rate]]
    _step_count: int
    _last_lr: list[Rate]

    def __init__(self, optimizer: torch.optim.Optimizer, last_epoch: int = -1) -> None:
        self._attach(optimizer, last_epoch)

    def _attach(
        self,
        optimizer: torch.optim.Optimizer,
        last_epoch: int,
        base_lrs: Sequence[Rate] | None = None,
    ) -> None:
        """Tie to the optimizer, and set the rates of the first epoch.

        ``base_lrs``: where they are not the groups' ``initial_lr``.
        """
        self._check_beginning(optimizer, last_epoch)
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", copied(group["lr"]))
        initial = [group["initial_lr"] for group in optimizer.param_groups]
        self.base_lrs = [copied(lr) for lr in (initial if base_lrs is None else base_lrs)]
        self.last_epoch = last_epoch
        self._get_lr_called_within_step = False
        _note_steps(optimizer)
        found = self._rates_now()
        self._initial_step()
        self._initial = next(_MADE), found, self._rates_now()

    def _check_beginning(self, optimizer: Any, last_epoch: Any) -> None:
        """Raise where no scheduler can begin; for what must be known before groups are changed."""
        name = type(self).__name__
        check_optimizer(optimizer)
        check_integer(name, "last_epoch", last_epoch, -1)
        if last_epoch == -1:
            return
        for k, group in enumerate(optimizer.param_groups):
            if "initial_lr" not in group:
                raise KeyError(
                    f"{name}: param 'initial_lr' is not specified in param_groups[{k}] when "
                    f"resuming with last_epoch={last_epoch}; load the optimizer's state first, "
                    "or set it to the rate that training began with"
                )

    def __getstate__(self) -> dict[str, Any]:
        made = {"_initial": self._initial} if hasattr(self, "_initial") else {}
        return {**self.__dict__, **made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rest = dict(state)
        if "_initial" in rest:
            self._initial = rest.pop("_initial")
        self.__dict__.update(rest)
        _note_steps(self.optimizer)  # a copied optimizer has lost its marks

    def _initial_step(self) -> None:
        """Set the rates of the epoch after ``last_epoch``; also begins a schedule anew."""
        self._step_count = 0
        try:
            self._is_initial = True
            self.step()
        finally:
            self._is_initial = False

    def get_lr(self) -> list[Rate]:
        """The rate of each group at ``last_epoch``; for :meth:`step`."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr()")

    def get_last_lr(self) -> list[Rate]:
        """The rates that were set last, one for each group."""
        return [copied(lr) for lr in self._last_lr]

    def print_lr(
        self,
        is_verbose: bool = True,
        group: int | None = None,
        lr: Rate | None = None,
        epoch: int | None = None,
    ) -> None:
        """Print the rate that was set last, of one group or of each.

        Args:
            is_verbose: False prints nothing.
            group: the group's number; None for all.
            lr: print this rate instead.
            epoch: name this epoch too.
        """
        if not is_verbose:
            return
        prefix = "" if epoch is None else f"Epoch {epoch:5d}: "
        last = self.get_last_lr()
        for k in range(len(last)) if group is None else [group]:
            rate = float(last[k] if lr is None else lr)
            print(f"{prefix}Adjusting learning rate of group {k} to {rate:.4e}.")

    def step(self, epoch: float | None = None) -> None:
        """Go on to the next epoch and set its rates.

        Args:
            epoch: go to this epoch instead; torch has deprecated it, and so it warns.
        """
        self._warn_of_order()
        self._check_epoch(self.last_epoch + 1 if epoch is None else epoch)
        if epoch is not None:
            warnings.warn(torchs.EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        self._advance(epoch)

    def _advance(self, epoch: float | None) -> None:
        with uninterrupted():  # the epoch, the rates of all groups and the count belong together
            before = self.last_epoch
            try:
                self._update_lr(epoch)
            except BaseException:
                self.last_epoch = before
                raise
            self._step_count += 1

    def _update_lr(self, epoch: float | None = None) -> None:
        """Set the rates of the next epoch, or of this one, by the formula for it alone."""
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr
        else:
            self.last_epoch = epoch  # type: ignore[assignment]
            rates = getattr(self, "_get_closed_form_lr", self.get_lr)
        try:
            self._get_lr_called_within_step = True
            values = rates()
        finally:
            self._get_lr_called_within_step = False
        self._set_rates(values)

    def _set_rates(self, values: Sequence[Rate]) -> None:
        groups = self.optimizer.param_groups
        if len(values) != len(groups):
            raise ValueError(
                f"{type(self).__name__}: the optimizer has {len(groups)} parameter groups, the "
                f"scheduler was made for {len(values)}; make a new one after add_param_group"
            )
        for group, value in zip(groups, values, strict=True):
            set_option(group, "lr", value)
        self._last_lr = self._rates_now()

    def _rates_now(self) -> list[Rate]:
        return [copied(group["lr"]) for group in self.optimizer.param_groups]

    def _check_epoch(self, epoch: float) -> None:
        """Raise unless it can go to this epoch."""
        if not epoch >= 0:
            raise ValueError(
                f"{type(self).__name__}: Expected non-negative epoch, but got {epoch}; the first "
                "epoch is 0"
            )

    def _warn_of_get_lr(self) -> None:
        if not self._get_lr_called_within_step:
            warnings.warn(
                "To get the last learning rate computed by the scheduler, please use "
                "`get_last_lr()`; get_lr() is for the scheduler's own step",
                UserWarning,
                stacklevel=3,
            )

    def _warn_of_order(self) -> None:
        if self._step_count != 1:
            return
        if not hasattr(self.optimizer.step, "_wrapped_by_lr_sched"):
            message = (
                "Seems like `optimizer.step()` has been overridden after learning rate scheduler "
                f"initialization, so it is not known whether it was called; {_ORDER}"
            )
        elif not getattr(self.optimizer, "_opt_called", False):
            message = f"Detected call of `lr_scheduler.step()` before `optimizer.step()`; {_ORDER}"
        else:
            return
        warnings.warn(message, UserWarning, stacklevel=3)

    # ---- composition -------------------------------------------------------------------------

    def _rates_at(self, t: float) -> list[float] | None:
        """The rates at epoch t of this scheduler alone; None if it is no function of the epoch."""
        return None

    def _rates_after(self, rates: Sequence[Rate], t: float) -> list[float] | None:
        """The rates at epoch t where those at t - 1 are as given, other schedulers' share in them.

        At t = 0 what comes before is ``base_lrs``.
        """
        return None

    # ---- checkpoints -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, as torch's; also the rates of the groups as they are now.

        Loads into torch's scheduler of the same name, and torch's loads here.
        """
        own = self.__dict__.items()
        saved = {key: unshared(value) for key, value in own if key not in _UNSAVED}
        saved[_CLASS] = type(self).__name__
        saved[_RATES] = {"epoch": self.last_epoch, "lrs": self._rates_now()}
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state dict of this class, thalweg's or torch's.

        Everything is checked first. The groups' rates are set to what they were when it was saved,
        so that it does not matter whether the optimizer's state is loaded before or after. (A
        dict of torch's does not hold them; load the optimizer's last, then.)

        Raises:
            TypeError: not a dict.
            ValueError: it is another scheduler's, or for another number of groups.
        """
        self._check_state(state_dict)
        self._take_state(state_dict)
        rates = state_dict.get(_RATES)
        # Another epoch: torch carried the entry along and went on.
        if rates is not None and rates["epoch"] == self.last_epoch:
            for group, value in zip(self.optimizer.param_groups, rates["lrs"], strict=True):
                set_option(group, "lr", value)
        self._reapply()

    def _reapply(self) -> None:
        """Set again what the scheduler sets besides the rate."""

    def _check_state(self, saved: Any) -> None:
        """Raise unless the state dict fits; changes nothing."""
        name = type(self).__name__
        if not isinstance(saved, Mapping):
            raise TypeError(f"{name}: a state dict must be a dict, got {type(saved).__name__}")
        if saved.get(_CLASS, name) != name:
            raise ValueError(f"{name}: this is the state dict of a {saved[_CLASS]}")
        for key in (*self._options, *self._position):
            if key not in saved:
                raise ValueError(
                    f"{name}: the state dict lacks {key!r}; it has {sorted(map(str, saved))}. Is "
                    "it another scheduler's?"
                )
        foreign = sorted((_all_options(LRScheduler) - set(self.__dict__)) & set(saved))
        if foreign:
            raise ValueError(
                f"{name}: the state dict has {', '.join(map(repr, foreign))}, which belongs to "
                "another scheduler"
            )
        if odd := [
            k for k in saved if k in _UNSAVED or callable(getattr(type(self), str(k), None))
        ]:
            raise ValueError(
                f"{name}: the state dict has {', '.join(map(repr, odd))}, which no scheduler saves"
            )
        now = saved.get(_RATES)
        if now is not None and not (isinstance(now, Mapping) and {"epoch", "lrs"} <= now.keys()):
            raise ValueError(f"{name}: {_RATES} must have an epoch and lrs, got {now!r:.80}")
        groups = len(self.optimizer.param_groups)
        for rates in (saved.get("_last_lr"), now and now["lrs"]):
            if rates is not None and not isinstance(rates, (list, tuple)):
                raise ValueError(f"{name}: the groups' rates must be a list, got {rates!r:.80}")
            if rates is not None and len(rates) != groups:
                raise ValueError(
                    f"{name}: the state dict is for {len(rates)} parameter groups; the optimizer "
                    f"has {groups}"
                )

    def _take_state(self, saved: Mapping[str, Any]) -> None:
        """Take over a state dict that was checked."""
        self.__dict__.update(
            (key, unshared(value)) for key, value in saved.items() if key not in (_CLASS, _RATES)
        )


class Scheduled(LRScheduler):
    """A scheduler whose rates are a pure function of the epoch, set outright."""

    def schedule(self, group: int = 0) -> Schedule:
        """The rate of a group as a pure function of the epoch."""
        raise NotImplementedError

    def get_lr(self) -> list[Rate]:
        """The rate of each group at ``last_epoch``; for :meth:`step`."""
        self._warn_of_get_lr()
        if self._is_initial and self.last_epoch > 0:
            return self._get_closed_form_lr()  # resumed: what came before is not known
        present = [group["lr"] for group in self.optimizer.param_groups]
        rates = self._rates_after(present, self.last_epoch)
        return [like(lr, rate) for lr, rate in zip(present, rates, strict=False)]

    def _get_closed_form_lr(self) -> list[Rate]:
        rates = self._rates_at(self.last_epoch)
        return [like(base, rate) for base, rate in zip(self.base_lrs, rates, strict=True)]

    def _rates_at(self, t: float) -> list[float]:
        return [self.schedule(k)(t) for k in range(len(self.base_lrs))]

    def _rates_after(self, rates: Sequence[Rate], t: float) -> list[float]:
        return self._rates_at(t)


def _all_options(cls: type[LRScheduler]) -> set[str]:
    return set(cls._options).union(*(_all_options(sub) for sub in cls.__subclasses__()))


def _note_steps(optimizer: torch.optim.Optimizer) -> None:
    """Let the optimizer note that its step was called, with the marks that torch's look for."""
    if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        return
    function = optimizer.step.__func__  # type: ignore[attr-defined]
    owner = weakref.ref(optimizer)  # no cycle: the optimizer is freed when it is dropped

    @wraps(function)
    def step(*args: Any, **kwargs: Any) -> Any:
        own: Any = owner()
        own._opt_called = True
        return function(own, *args, **kwargs)

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    optimizer.step = step  # type: ignore[method-assign]
