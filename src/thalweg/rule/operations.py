"""The operations a rule may use: one row each, with its float64, tensor and printed forms.

Back ends keep a table of their own with the same keys: how the operation is spelled there.
"""

import operator
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from thalweg.rule import scalars

# The dtype an eager run computes in: what two numbers become that a condition chooses between.
# (torch would make them of the default dtype, whatever the parameter's.)
eager_dtype: ContextVar[torch.dtype] = ContextVar("eager_dtype", default=torch.float64)


@dataclass(frozen=True)
class Operation:
    """One operation of the rule language.

    ``scalar`` takes floats (bools for conditions), ``tensor`` takes tensors and floats; ``text`` is
    how people and the generated Python for scalars write it, ``precedence`` that of its operator
    (0 for a call). ``condition`` tells that the result is true or false, not a number.
    """

    scalar: Callable[..., Any]
    tensor: Callable[..., Any]
    text: str
    precedence: int = 0
    condition: bool = False


def _tensor_maximum(a: Any, b: Any) -> torch.Tensor:
    if not isinstance(a, torch.Tensor):
        return torch.clamp_min(b, a)
    return torch.maximum(a, b) if isinstance(b, torch.Tensor) else torch.clamp_min(a, b)


def _tensor_minimum(a: Any, b: Any) -> torch.Tensor:
    if not isinstance(a, torch.Tensor):
        return torch.clamp_max(b, a)
    return torch.minimum(a, b) if isinstance(b, torch.Tensor) else torch.clamp_max(a, b)


def _tensor_where(condition: Any, a: Any, b: Any) -> Any:
    if not isinstance(condition, torch.Tensor):
        return a if condition else b
    numbers = not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor)
    if numbers and not torch.compiler.is_compiling():  # which cannot follow a ContextVar
        a = torch.tensor(float(a), dtype=eager_dtype.get(), device=condition.device)
    return torch.where(condition, a, b)


def _tensor_power(a: Any, b: Any) -> torch.Tensor:
    return torch.pow(a, b)


OPERATIONS: dict[str, Operation] = {
    "or": Operation(operator.or_, operator.or_, "{0} | {1}", 1, condition=True),
    "and": Operation(operator.and_, operator.and_, "{0} & {1}", 2, condition=True),
    "not": Operation(operator.not_, torch.logical_not, "invert({0})", condition=True),
    "less": Operation(operator.lt, operator.lt, "{0} < {1}", 3, condition=True),
    "less_equal": Operation(operator.le, operator.le, "{0} <= {1}", 3, condition=True),
    "equal": Operation(operator.eq, operator.eq, "{0} == {1}", 3, condition=True),
    "not_equal": Operation(operator.ne, operator.ne, "{0} != {1}", 3, condition=True),
    "add": Operation(operator.add, operator.add, "{0} + {1}", 4),
    "subtract": Operation(operator.sub, operator.sub, "{0} - {1}", 4),
    "multiply": Operation(operator.mul, operator.mul, "{0} * {1}", 5),
    "divide": Operation(scalars.divide, operator.truediv, "{0} / {1}", 5),
    "negative": Operation(operator.neg, operator.neg, "-{0}", 6),
    "power": Operation(scalars.power, _tensor_power, "{0} ** {1}", 7),
    "held": Operation(lambda x: x, torch.Tensor.detach, "held({0})"),
    "stored": Operation(lambda x: x, lambda x: x, "stored({0})"),
    "abs": Operation(abs, torch.abs, "abs({0})"),
    "sqrt": Operation(scalars.sqrt, torch.sqrt, "sqrt({0})"),
    "exp": Operation(scalars.exp, torch.exp, "exp({0})"),
    "log": Operation(scalars.log, torch.log, "log({0})"),
    "log1p": Operation(scalars.log1p, torch.log1p, "log1p({0})"),
    "expm1": Operation(scalars.expm1, torch.expm1, "expm1({0})"),
    "tanh": Operation(scalars.tanh, torch.tanh, "tanh({0})"),
    "sigmoid": Operation(scalars.sigmoid, torch.sigmoid, "sigmoid({0})"),
    "atan": Operation(scalars.atan, torch.atan, "atan({0})"),
    "sign": Operation(scalars.sign, torch.sign, "sign({0})"),
    "maximum": Operation(scalars.maximum, _tensor_maximum, "maximum({0}, {1})"),
    "minimum": Operation(scalars.minimum, _tensor_minimum, "minimum({0}, {1})"),
    "where": Operation(scalars.where, _tensor_where, "where({0}, {1}, {2})"),
}
