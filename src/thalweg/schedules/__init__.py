"""Schedules: pure functions of the step, for learning rates or any other option.

A schedule is a value: it has no state and knows no optimizer. Several of them add, multiply and
are joined to new ones, to any depth.

>>> from thalweg import schedules
>>> schedule = 0.1 * schedules.Warmup(2).then(schedules.Cosine(1, 0, steps=4))
>>> schedule(3)
0.08535533905932738
>>> schedule == 0.1 * schedules.Warmup(2).then(schedules.Cosine(1, 0, steps=4))
True
>>> schedule.bounds
(0.0, 0.1)
>>> schedules.parse("0.1 * (warmup(2) >> cosine(4))") == schedule
True
"""

from thalweg.schedules.base import Schedule, blend
from thalweg.schedules.compose import Join, Product, Sum, join
from thalweg.schedules.cycles import CosineRestarts, Cyclic, OneCycle
from thalweg.schedules.expression import parse
from thalweg.schedules.ramps import Cosine, Linear, Polynomial, Rex
from thalweg.schedules.shapes import Constant, Exponential, Function, MultiStep, Step, Table
from thalweg.schedules.transforms import Clamped, Repeated, Shifted
from thalweg.schedules.warmup import InverseSqrt, Warmup, WarmupStableDecay

__all__ = [
    "Clamped",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "Function",
    "InverseSqrt",
    "Join",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Polynomial",
    "Product",
    "Repeated",
    "Rex",
    "Schedule",
    "Shifted",
    "Step",
    "Sum",
    "Table",
    "Warmup",
    "WarmupStableDecay",
    "blend",
    "join",
    "parse",
]
