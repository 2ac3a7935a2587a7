"""The scheduler that looks at a metric."""

import math
import warnings
from typing import Any, Literal, SupportsFloat

import torch
from torch.optim import lr_scheduler as torchs

from thalweg.engine.interrupts import uninterrupted
from thalweg.optim.lr_scheduler.arguments import check_optimizer, check_options, per_group
from thalweg.optim.lr_scheduler.base import LRScheduler
from thalweg.optim.lr_scheduler.rates import Rate, copied, set_option
from thalweg.ranges import NON_NEGATIVE, Range
from thalweg.rule.program import number


# Trainers look for torch's class, because step() takes a metric; no method of it is used.
class ReduceLROnPlateau(LRScheduler, torchs.ReduceLROnPlateau):
    """Reduce the rate when a metric has stopped getting better.

    ::

        rate <- max(rate * factor, min_lr)    after more than ``patience`` epochs without a best

    A metric is a new best if it is better than the best so far by ``threshold``: by this share of
    it ("rel") or by this much ("abs").

    Args:
        optimizer: the optimizer.
        mode: "min" or "max", whichever is better.
        factor: of each reduction, >= 0 and < 1.
        patience: epochs without a new best that are let pass, >= 0.
        threshold: how much better counts, >= 0.
        threshold_mode: "rel" or "abs".
        cooldown: epochs after a reduction during which none counts as bad, >= 0.
        min_lr: the lowest rate, >= 0, or one for each parameter group.
        eps: a reduction by no more than this is left out, >= 0.

    Attributes:
        best: the best metric so far.
        num_bad_epochs: epochs since then.
        cooldown_counter: epochs of the cooldown that are left.

    Raises:
        TypeError: ``optimizer`` is no optimizer.
        ValueError: a value out of its range, an unknown mode, a metric that is NaN.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    >>> scheduler = ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (0.5, 0.6, 0.7):
    ...     scheduler.step(loss)
    >>> scheduler.get_last_lr()
    [0.1]
    """

    _options = ("mode", "threshold_mode", "patience", "cooldown")
    _position = ("last_epoch", "best", "num_bad_epochs", "cooldown_counter")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
    ) -> None:
        check_optimizer(optimizer)
        name = "ReduceLROnPlateau"
        amounts = dict(patience=patience, threshold=threshold, cooldown=cooldown, eps=eps)
        ranges = {"factor": Range(0, 1), **dict.fromkeys(amounts, NON_NEGATIVE)}
        check_options(name, ranges, factor=factor, **amounts)
        for what, value, known in (
            ("mode", mode, ("min", "max")),
            ("threshold_mode", threshold_mode, ("rel", "abs")),
        ):
            if value not in known:
                raise ValueError(f"{name}: {what} {value!r} is unknown; it must be one of {known}")
        self.min_lrs = per_group(name, "min_lr", optimizer, min_lr)
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.eps = eps
        self.last_epoch = 0
        groups = optimizer.param_groups
        self.base_lrs = [copied(group.get("initial_lr", group["lr"])) for group in groups]
        self._last_lr = self._rates_now()
        self._reset()

    @property
    def in_cooldown(self) -> bool:
        """Whether a reduction was made less than ``cooldown`` epochs ago."""
        return self.cooldown_counter > 0

    def get_lr(self) -> list[Rate]:
        """The rate of each group; a metric decides on the next."""
        return self._rates_now()

    def _reset(self) -> None:
        """Forget all metrics."""
        self.mode_worse = math.inf if self.mode == "min" else -math.inf
        self.best: float = self.mode_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take a metric into account, and reduce the rates if it is time.

        Args:
            metrics: the metric of this epoch; not NaN, which would pass for a bad epoch unseen.
            epoch: its number; torch has deprecated it, and so it warns.
        """
        try:
            metric = float(metrics)
        except (TypeError, ValueError, RuntimeError) as error:
            raise type(error)(
                f"ReduceLROnPlateau: metrics must be one number, got {metrics!r}"
            ) from None
        if math.isnan(metric):
            raise ValueError(
                f"ReduceLROnPlateau: metrics must be a number, got {metric}; leave step() out for "
                "this epoch, or find out why the metric is none"
            )
        better = self._is_better(metric, self.best)
        bad = 0 if better or self.in_cooldown else self.num_bad_epochs + 1
        minimums = self._minimums() if bad > self.patience else None  # raises before any change
        if epoch is not None:
            warnings.warn(torchs.EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        with uninterrupted():  # the epoch, the counters and the rates of all groups belong together
            self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
            if better:
                self.best = metric
            self.num_bad_epochs = bad
            if self.in_cooldown:
                self.cooldown_counter -= 1
            if minimums is not None:
                self._reduce(minimums)
                self.cooldown_counter = self.cooldown
                self.num_bad_epochs = 0
            self._last_lr = self._rates_now()

    def _is_better(self, metric: float, best: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        threshold: float = self.threshold
        if self.threshold_mode == "rel":
            return sign * metric < sign * best * (1.0 - sign * threshold)
        return sign * metric < sign * best - threshold

    def _minimums(self) -> list[Any]:
        """The lowest rate of each group, of groups that were added later too."""
        groups = len(self.optimizer.param_groups)
        if len(self.min_lrs) != groups:
            if self.default_min_lr is None:
                raise RuntimeError(
                    f"ReduceLROnPlateau: min_lr was given for {len(self.min_lrs)} parameter "
                    f"groups, and the optimizer has {groups} now; set `min_lrs` to as many values"
                )
            self.min_lrs = [self.default_min_lr] * groups
        return self.min_lrs

    def _reduce(self, minimums: list[Any]) -> None:
        for group, minimum in zip(self.optimizer.param_groups, minimums, strict=True):
            rate = number(group["lr"])
            reduced = max(rate * self.factor, number(minimum))
            if rate - reduced > self.eps:
                set_option(group, "lr", reduced)
