"""The rule language: an optimizer's update written once, as the formula in its paper.

A rule is plain Python on the parameter ``p``, its gradient ``g``, its states ``s`` and the
hyperparameters ``h`` of its group, and returns the parameter's new value:

>>> from thalweg.rule import Rule, lerp, sign
>>> def update(p, g, s, h):
...     s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta)
...     return p - h.lr * sign(s.exp_avg)
>>> rule = Rule(update, states={"exp_avg": 0.0})
>>> program = rule.program({"lr": 0.1, "beta": 0.9}, [1.0])
>>> program.states
('exp_avg',)

Called with tensors it runs as it stands; called with symbols it is recorded and becomes a kernel.
"""

from thalweg.rule.functions import (
    abs,
    atan,
    clear,
    clip,
    dimensions,
    exp,
    expm1,
    held,
    is_at,
    largest,
    lerp,
    log,
    log1p,
    logsumexp,
    maximum,
    mean,
    measure,
    minimum,
    norm,
    offer,
    offered,
    pick,
    sigmoid,
    sign,
    softplus,
    sqrt,
    stored,
    sum,
    tanh,
    veto,
    where,
)
from thalweg.rule.program import Program, Stage
from thalweg.rule.rule import Initial, Rule, State, Update
from thalweg.rule.transforms import Transform, transformed
from thalweg.rule.update import followed, update_of

__all__ = [
    "Initial",
    "Program",
    "Rule",
    "Stage",
    "State",
    "Transform",
    "Update",
    "abs",
    "atan",
    "clear",
    "clip",
    "dimensions",
    "exp",
    "expm1",
    "followed",
    "held",
    "is_at",
    "largest",
    "lerp",
    "log",
    "log1p",
    "logsumexp",
    "maximum",
    "mean",
    "measure",
    "minimum",
    "norm",
    "offer",
    "offered",
    "pick",
    "sigmoid",
    "sign",
    "softplus",
    "sqrt",
    "stored",
    "sum",
    "tanh",
    "transformed",
    "update_of",
    "veto",
    "where",
]
