"""Functions from rules to rules: the modes that many optimizers share, each written once.

A composition is still one rule, traced and compiled as one kernel. Each switch is read from ``h``
and is an ordinary ``if``: a mode that is off leaves no trace in the kernel.
"""

from functools import wraps
from typing import Any

from thalweg.rule import Update


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
