"""Functions from rules to rules: the modes that many optimizers share, each written once.

A composition is still one rule, traced and compiled as one kernel. Each switch is read from ``h``
and is an ordinary ``if``: a mode that is off leaves no trace in the kernel.
"""

from collections.abc import Mapping
from functools import cache, wraps
from typing import Any

import torch

from thalweg.rule import Rule, State, Update, lerp, where


def maximizable(update: Update) -> Update:
    """With ``h.maximize``, ascend: the rule sees -g.

    Reads ``h.maximize``.
    """

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return update(p, -g if h.maximize else g, s, h)

    return rule


def l2_regularized(update: Update) -> Update:
    """Weight decay as the gradient of (weight_decay / 2) · ‖p‖²: g grows by it.

    Reads ``h.weight_decay``.
    """

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return update(p, g + h.weight_decay * p if h.weight_decay else g, s, h)

    return rule


def decoupled_decayed(update: Update) -> Update:
    """Decoupled weight decay: p shrinks by the factor 1 - lr · weight_decay, outside the rule.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, Algorithm 2 (with
    the schedule multiplier in lr). Reads ``h.weight_decay`` and ``h.lr``.
    """

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return update(p * (1 - h.lr * h.weight_decay) if h.weight_decay else p, g, s, h)

    return rule


def weight_decayed(update: Update) -> Update:
    """Decoupled decay where ``h.decoupled_weight_decay`` is set, L2 regularization elsewhere."""
    decoupled, l2 = decoupled_decayed(update), l2_regularized(update)

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return (decoupled if h.decoupled_weight_decay else l2)(p, g, s, h)

    return rule


def average_weight(n: Any, decay: Any) -> Any:
    """The weight of the next value in an average of n values before it, n >= 1.

    With a decay 1 - decay (exponential moving average), without one 1 / (n + 1) (equal weights).
    """
    return 1 / (n + 1) if decay is None else 1 - decay


def averaged(average: Any, value: Any, n: Any, decay: Any) -> Any:
    """The average after one more value: the first is taken as it is, whatever stood there.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
    2018, Algorithm 1, for equal weights.
    """
    return lerp(average, value, average_weight(n, decay)) if n >= 1 else value


def with_average(update: Update) -> Update:
    """Fold an average of the parameter's values into its update: no pass of its own over memory.

    Counts the parameter's updates (``s.averaged_steps``). From the first after
    ``h.average_start`` on, every ``h.average_every``-th new value goes into ``s.average``, which
    then holds ``s.averaged_models`` values. The value is taken before it is rounded to the
    parameter's own storage.

    Reads ``h.average_decay`` (None: equal weights), ``h.average_start`` and ``h.average_every``.
    """

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        new = update(p, g, s, h)
        s.averaged_steps = s.averaged_steps + 1
        n = s.averaged_models
        due = s.averaged_steps - h.average_start >= (n + 1) * h.average_every
        if n < 1 and not due:
            return new  # there is no average yet, and none is allocated
        average = averaged(s.average, new, n, h.average_decay)
        if n < 1 or h.average_every == 1:
            s.average, s.averaged_models = average, n + 1
        else:  # a condition in the kernel: as a switch, it would mean two plans every k steps
            s.average = where(due, average, s.average)
            s.averaged_models = where(due, n + 1, n)
        return new

    return rule


def _average_dtype(options: Mapping[str, Any]) -> torch.dtype | None:
    return options.get("average_dtype")


AVERAGE_OPTIONS = ("average_decay", "average_start", "average_every", "average_dtype")
AVERAGE_STATES: Mapping[str, State] = {
    "average": State(dtype=_average_dtype, late=True),
    "averaged_steps": State(scalar=True),
    "averaged_models": State(scalar=True),
}


@cache
def carrying_average(rule: Rule) -> Rule:
    """The rule with an average carried along, the same one each time it is asked for.

    Raises:
        ValueError: a state of the rule has the name of one of the average's.
    """
    for name in AVERAGE_STATES:
        if name in rule.states:
            raise ValueError(
                f"{rule.name}: the rule has a state {name!r}, which a carried average needs for "
                "itself; rename the rule's"
            )
    return Rule(
        with_average(rule.update),
        {**rule.states, **AVERAGE_STATES},
        counted=rule.counted,
        every_row=True,
        name=rule.name,
    )
