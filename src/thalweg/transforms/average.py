"""An average of the parameters, kept up to date by the step itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch

from thalweg.ranges import (
    AT_LEAST_ONE,
    NON_NEGATIVE,
    UNIT_INTERVAL,
    OrNone,
    Ranges,
    flag,
    integer,
)
from thalweg.rule import State, Transform, Update, lerp, minimum, where


def weight_of_next(n: Any, decay: Any) -> Any:
    """The weight of the next value in an average of n values before it, n >= 1.

    With a decay 1 - decay (exponential moving average), without one 1 / (n + 1) (equal weights).
    """
    return 1 / (n + 1) if decay is None else 1 - decay


def with_next(average: Any, value: Any, n: Any, decay: Any) -> Any:
    """The average of n + 1 values from that of n; the first value is taken as it is.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
    2018, Algorithm 1, for equal weights.
    """
    return lerp(average, value, weight_of_next(n, decay)) if n >= 1 else value


@dataclass(frozen=True)
class Averaging:
    """A transform's function: the update that puts its result into an average as well.

    Attributes:
        name: what states and options are called by: ``name + "average"`` and so on.
    """

    name: str = ""

    def __call__(self, update: Update) -> Update:
        @wraps(update)
        def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
            new = update(p, g, s, h)
            steps = self._get(s, "averaged_steps") + 1
            self._set(s, "averaged_steps", steps)
            n, every = self._get(s, "averaged_models"), self._get(h, "average_every")
            due = steps - self._get(h, "average_start") >= (n + 1) * every
            if n < 1 and not due:
                return new  # there is no average yet, and none is allocated
            before = self._get(s, "average") if n >= 1 else None
            average = new if before is None else with_next(before, new, n, self._decay(n, h))
            if before is None or every == 1:
                self._set(s, "average", average)
                self._set(s, "averaged_models", n + 1)
            else:  # a condition in the kernel: as a switch, it would mean two plans every k steps
                self._set(s, "average", where(due, average, before))
                self._set(s, "averaged_models", where(due, n + 1, n))
            return new

        return rule

    def _decay(self, n: Any, h: Any) -> Any:
        decay = self._get(h, "average_decay")
        if decay is None or not self._get(h, "average_warmup"):
            return decay
        return minimum(decay, (1 + n) / (10 + n))

    def _get(self, holder: Any, key: str) -> Any:
        return getattr(holder, self.name + key)

    def _set(self, holder: Any, key: str, value: Any) -> None:
        setattr(holder, self.name + key, value)


@dataclass(frozen=True)
class Named:
    """A function of an average's name first: equal to another one of the same, unlike a closure."""

    function: Callable[..., Any]
    name: str

    def __call__(self, *args: Any) -> Any:
        return self.function(self.name, *args)


def _dtype(name: str, options: Mapping[str, Any]) -> torch.dtype | None:
    return options.get(f"{name}average_dtype")


def _begun(name: str, states: Mapping[str, Any]) -> bool:
    return float(states.get(f"{name}averaged_models", 0)) >= 1


def _check_dtype(name: str, owner: str, options: Mapping[str, Any]) -> None:
    dtype = _dtype(name, options)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(
            f"{owner}: {name}average_dtype must be a real floating-point dtype, or None for the "
            f"parameter's, got {dtype!r}"
        )


def averaged(
    decay: float | None = 0.999,
    start: int = 0,
    every: int = 1,
    dtype: torch.dtype | None = None,
    warmup: bool = False,
    name: str = "",
) -> Transform:
    """An average of the parameter's values, folded into its update: no pass of its own over memory.

    ::

        n == 0:                average <- p
        decay given:           average <- average + (1 - decay) * (p - average)
        equal weights:         average <- average + (p - average) / (n + 1)
        warmup:                as with min(decay, (1 + n) / (10 + n)) for decay

    with p the value after the update, before it is rounded to the parameter's storage, and n the
    values averaged so far. Each parameter counts its own updates.

    ``optim.swa_utils.CarriedAverage`` reads the averages, and swaps them with the parameters.

    Args:
        decay: of an exponential moving average, in [0, 1]; None for equal weights.
        start: updates to let pass before the first value is averaged, >= 0. Until then the kernel
            has no trace of an average, and no memory is allocated.
        every: average each ``every``-th update after that, >= 1.
        dtype: what to store the averages as, a real floating-point dtype; None: the parameter's.
            With 16-bit parameters use ``torch.float32``: a decay near 1 moves the average by less
            than 16 bits can tell.
        warmup: begin with a smaller decay, as above; without effect on equal weights.
        name: an identifier that options and states begin with, so that there can be several
            averages: ``slow`` makes ``slow_average`` and ``slow_average_decay``. Empty: as below.

    The options of the groups are called ``average_decay``, ``average_start``, ``average_every``,
    ``average_dtype`` and ``average_warmup``.

    States:
        average: the average, shape of the parameter.
        averaged_steps, averaged_models: updates counted, and values averaged, 0-d.

    Raises:
        TypeError: start or every is no integer, or warmup no bool.
        ValueError: the name is no identifier.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992;
    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018.
    The warm-up is that of TensorFlow's moving averages.
    """
    if name and not name.isidentifier():
        raise ValueError(f"averaged: name must be an identifier, as 'slow', got {name!r:.200}")
    own = Averaging(f"{name}_" if name else "")
    states = {
        "average": State(dtype=Named(_dtype, own.name), begun=Named(_begun, own.name)),
        "averaged_steps": State(scalar=True),
        "averaged_models": State(scalar=True),
    }
    options = {
        "average_decay": decay,
        "average_start": integer("averaged", "start", start),
        "average_every": integer("averaged", "every", every),
        "average_dtype": dtype,
        "average_warmup": flag("averaged", "warmup", warmup),
    }
    ranges: Ranges = {
        "average_decay": OrNone(UNIT_INTERVAL),
        "average_start": NON_NEGATIVE,
        "average_every": AT_LEAST_ONE,
    }
    return Transform(
        own,
        states={own.name + key: state for key, state in states.items()},
        options={own.name + key: value for key, value in options.items()},
        ranges={own.name + key: allowed for key, allowed in ranges.items()},
        name=f"{own.name}averaged",
        check=Named(_check_dtype, own.name),
        every_row=True,
    )
