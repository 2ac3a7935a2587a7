"""An average of the parameters, kept up to date by the step itself."""

from collections.abc import Mapping
from functools import wraps
from typing import Any

import torch

from thalweg.ranges import AT_LEAST_ONE, NON_NEGATIVE, UNIT_INTERVAL, OrNone, integer
from thalweg.rule import State, Transform, Update, lerp, where


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


def averaging(update: Update) -> Update:
    """The update that puts its result into ``s.average`` as well."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        new = update(p, g, s, h)
        s.averaged_steps = s.averaged_steps + 1
        n = s.averaged_models
        due = s.averaged_steps - h.average_start >= (n + 1) * h.average_every
        if n < 1 and not due:
            return new  # there is no average yet, and none is allocated
        average = with_next(s.average, new, n, h.average_decay)
        if n < 1 or h.average_every == 1:
            s.average, s.averaged_models = average, n + 1
        else:  # a condition in the kernel: as a switch, it would mean two plans every k steps
            s.average = where(due, average, s.average)
            s.averaged_models = where(due, n + 1, n)
        return new

    return rule


def _dtype(options: Mapping[str, Any]) -> torch.dtype | None:
    return options.get("average_dtype")


def _begun(states: Mapping[str, Any]) -> bool:
    return float(states.get("averaged_models", 0)) >= 1


def _check_dtype(owner: str, options: Mapping[str, Any]) -> None:
    dtype = options.get("average_dtype")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(
            f"{owner}: average_dtype must be a real floating-point dtype, or None for the "
            f"parameter's, got {dtype!r}"
        )


def averaged(
    decay: float | None = 0.999,
    start: int = 0,
    every: int = 1,
    dtype: torch.dtype | None = None,
) -> Transform:
    """An average of the parameter's values, folded into its update: no pass of its own over memory.

    ::

        n == 0:                average <- p
        decay given:           average <- average + (1 - decay) * (p - average)
        equal weights:         average <- average + (p - average) / (n + 1)

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

    The options of the groups are called ``average_decay``, ``average_start``, ``average_every`` and
    ``average_dtype``.

    States:
        average: the average, shape of the parameter.
        averaged_steps, averaged_models: updates counted, and values averaged, 0-d.

    Raises:
        TypeError: start or every is no integer.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992;
    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018.
    """
    return Transform(
        averaging,
        states={
            "average": State(dtype=_dtype, begun=_begun),
            "averaged_steps": State(scalar=True),
            "averaged_models": State(scalar=True),
        },
        options={
            "average_decay": decay,
            "average_start": integer("averaged", "start", start),
            "average_every": integer("averaged", "every", every),
            "average_dtype": dtype,
        },
        ranges={
            "average_decay": OrNone(UNIT_INTERVAL),
            "average_start": NON_NEGATIVE,
            "average_every": AT_LEAST_ONE,
        },
        name="averaged",
        check=_check_dtype,
        every_row=True,
    )
