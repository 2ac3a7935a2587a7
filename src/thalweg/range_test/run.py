"""The range test itself: one step at each of many rates."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from thalweg.engine.modes import with_gradients
from thalweg.optim.closure import Step, stepper
from thalweg.range_test.found import LRFound
from thalweg.range_test.unchanged import unchanged
from thalweg.ranges import FRACTION, POSITIVE, Range, integer, number

Progress = Callable[[int, int], None]


def lr_find(
    model: nn.Module,
    data: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Any, Any], Tensor],
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.85,
    stop: float = 4.0,
    progress: Progress | None = None,
) -> LRFound:
    """Train at growing learning rates, and suggest one to begin with.

    ::

        rate[i] = low * (high / low) ** (i / (steps - 1))         i = 0 ... steps - 1
        loss[i] = loss(model(input), target) before step i, which is made at rate[i]
        sum     = smoothing * sum + (1 - smoothing) * loss[i]
        mean[i] = sum / (1 - smoothing ** (i + 1))

    It ends early where the loss is not finite, or where the mean exceeds the lowest one so far by
    (stop - 1) times the size of that: for a positive loss, at ``stop`` times the lowest. The
    smoothed losses are this mean, and the same mean of it from the last to the first, which takes
    away the lag; losses above all those before the lowest mean count as the highest of these.

    Model and optimizer are left exactly as they were, also if it is interrupted: see
    :func:`thalweg.range_test.unchanged`. The test begins where they are, with the optimizer's
    state and options. A model in evaluation mode is tested in training mode; one in training mode
    is tested as it is, with its parts in the modes that they have. With several parameter groups,
    their rates keep their ratios.

    Args:
        model: gives ``model(input)``.
        data: pairs of input and target. Gone through again and again, as often as is needed: a
            list, or a DataLoader, which shuffles anew each time. An iterator is used up; it must
            have a batch for each step.
        optimizer: any ``torch.optim.Optimizer`` on the model's parameters, with a ``step`` that
            takes a closure or none. LBFGS evaluates each batch up to ``max_eval`` times.
        loss: ``loss(model(input), target)``, a scalar.
        low: the first rate, > 0.
        high: the last, > ``low``.
        steps: how many rates, >= 3.
        smoothing: of the moving average, >= 0 and < 1; 0 leaves the losses as they are.
        stop: how far the loss may rise, > 1.
        progress: called with the steps made and ``steps``, after each.

    Raises:
        TypeError: the model is not a module or the optimizer not one of torch's kind, a batch is
            not a pair, the loss not a tensor.
        ValueError: an argument out of range; no batches, or too few of an iterator; a loss of more
            than one element, or that is not finite at the lowest rate; a model with parameters that
            are made by its first call.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017 (arXiv:1506.01186),
    section 3.3, which grows the rate linearly; geometric growth gives each power of ten its share.
    """

    def of_pair(model: nn.Module, batch: Any) -> Tensor:
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
            raise TypeError(
                f"lr_find: a batch must be a pair (input, target), got a {type(batch).__name__}"
                f"{size}; wrap the data so that it gives pairs"
            )
        return loss(model(batch[0]), batch[1])

    if not callable(loss):
        raise TypeError(f"lr_find: loss must be a function or a module, got {loss!r}")
    return range_test(
        model, data, optimizer, of_pair, low=low, high=high, steps=steps, smoothing=smoothing,
        stop=stop, progress=progress, parts=(loss,),
    )  # fmt: skip


def range_test(
    model: nn.Module,
    data: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    loss: Callable[[nn.Module, Any], Tensor],
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.85,
    stop: float = 4.0,
    progress: Progress | None = None,
    parts: tuple[Any, ...] = (),
) -> LRFound:
    """The test of :func:`lr_find` for batches of any kind, as the race's tasks have them.

    Args:
        model: what is trained.
        data: batches of any kind.
        optimizer: as there.
        loss: ``loss(model, batch)``, a scalar.
        low: as there.
        high: as there.
        steps: as there.
        smoothing: as there.
        stop: as there.
        progress: as there.
        parts: other modules that take part and are to be left as they were.

    Raises:
        TypeError: as there.
        ValueError: as there.
    """
    _check_subjects(model, optimizer)
    low = number("lr_find", "low", low, POSITIVE)
    high = number("lr_find", "high", high, Range(low, open="both"))
    smoothing = number("lr_find", "smoothing", smoothing, FRACTION)
    stop = number("lr_find", "stop", stop, Range(1, open="both"))
    if (steps := integer("lr_find", "steps", steps, flags=False)) < 3:
        raise ValueError(f"lr_find: steps must be at least 3, got {steps}")
    if not isinstance(data, Iterable):
        raise TypeError(f"lr_find: data must be iterable, got {type(data).__name__} {data!r}")

    curve = _Curve(smoothing, stop)

    @with_gradients(True)
    def train() -> None:
        if not model.training:
            model.train()
        set_rate = _setter(optimizer)
        batches = _endless(data, steps)
        step = stepper(optimizer)
        for i in range(steps):
            rate = low * (high / low) ** (i / (steps - 1))
            set_rate(rate)
            if not curve.add(rate, _step(model, optimizer, loss, next(batches), step)):
                break
            if progress is not None:
                progress(i + 1, steps)

    with unchanged(model, optimizer, *parts):
        train()
    return curve.found()


class _Mean:
    """An exponential moving average without the pull of its beginning at 0."""

    def __init__(self, smoothing: float) -> None:
        self.smoothing, self.sum, self.weight = smoothing, 0.0, 0.0

    def add(self, value: float) -> float:
        """Take a value in; the mean so far."""
        self.sum = self.smoothing * self.sum + (1 - self.smoothing) * value
        self.weight = self.smoothing * self.weight + (1 - self.smoothing)
        return self.sum / self.weight


class _Curve:
    """The losses so far."""

    def __init__(self, smoothing: float, stop: float) -> None:
        self.smoothing, self.stop = smoothing, stop
        self.mean, self.lowest = _Mean(smoothing), math.inf
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.means: list[float] = []
        self.diverged = False

    def add(self, rate: float, loss: float) -> bool:
        """Take a loss in; False ends the test. One that is not finite is left out."""
        if not math.isfinite(loss):
            if not self.losses:
                raise ValueError(
                    f"lr_find: the loss is {loss} before the first step; check the data and the "
                    "model's weights"
                )
            self.diverged = True
            return False
        self.rates.append(rate)
        self.losses.append(loss)
        self.means.append(self.mean.add(loss))
        self.lowest = min(self.lowest, self.means[-1])
        self.diverged = self.means[-1] > self.lowest + (self.stop - 1) * abs(self.lowest)
        return not self.diverged

    def found(self) -> LRFound:
        # A rise may be a thousandfold, and would reach far back into the fall before it.
        top = max(self.losses[: self.means.index(self.lowest) + 1])
        capped = [min(loss, top) for loss in self.losses]
        smoothed = self._averaged(self._averaged(capped)[::-1])[::-1]
        return LRFound(tuple(self.rates), tuple(self.losses), tuple(smoothed), self.diverged)

    def _averaged(self, values: list[float]) -> list[float]:
        mean = _Mean(self.smoothing)
        return [mean.add(value) for value in values]


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[nn.Module, Any], Tensor],
    batch: Any,
    step: Step,
) -> float:
    """One step; the loss that it began with."""
    losses: list[Tensor] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model, batch)
        if not losses:
            _check_loss(value)
            losses.append(value.detach())
        value.backward()  # type: ignore[no-untyped-call]
        return value

    step(closure)
    if not losses:
        raise TypeError(
            f"lr_find: {type(optimizer).__name__}.step(closure) did not call the closure; it must, "
            "or take none"
        )
    return float(losses[0])


def _setter(optimizer: torch.optim.Optimizer) -> Callable[[float], None]:
    """Sets all groups' rates, given the highest of them."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    highest = max(rates)
    shares = [rate / highest if highest else 1.0 for rate in rates]

    def set_rate(rate: float) -> None:
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * share)
            else:
                group["lr"] = rate * share

    return set_rate


def _endless(data: Iterable[Any], steps: int) -> Iterator[Any]:
    """The batches, and again from the first."""
    made = 0
    while True:
        before = made
        for batch in data:
            made += 1
            yield batch
        if made == before:
            if not made:
                raise ValueError("lr_find: data has no batches; pass at least one")
            raise ValueError(
                f"lr_find: data ended after {made} of {steps} batches and cannot be gone through "
                "again; pass a list or a DataLoader, or fewer steps"
            )


def _check_subjects(model: Any, optimizer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"lr_find: model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"lr_find: optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(
            "lr_find: the model has parameters that are made by its first call, which cannot be "
            "undone; call the model once before"
        )
    if not all("lr" in group for group in optimizer.param_groups):
        raise ValueError(f"lr_find: {type(optimizer).__name__} has groups without a rate ('lr')")
    mine = {id(p) for p in model.parameters()}
    if not any(id(p) in mine for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(
            "lr_find: the optimizer holds none of the model's parameters; make it with "
            "model.parameters()"
        )


def _check_loss(value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"lr_find: the loss must be a tensor, got {type(value).__name__}")
    if value.numel() != 1:
        raise ValueError(
            f"lr_find: the loss must have one element, got shape {tuple(value.shape)}; take the "
            "mean"
        )
    if not value.requires_grad:
        raise ValueError(
            "lr_find: the loss does not depend on parameters that require a gradient; nothing "
            "would be trained"
        )
