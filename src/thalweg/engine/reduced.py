"""The constants of a stage that depend on sums of the stages before it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from thalweg.rule import Program
from thalweg.rule.program import compile_function
from thalweg.rule.symbols import Level, Symbol


def _numpy_names() -> dict[str, Any]:
    plain = ("divide", "power", "sqrt", "exp", "log", "log1p", "expm1", "tanh")
    return {
        **{name: getattr(np, name) for name in (*plain, "maximum", "minimum", "where", "abs")},
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "atan": np.arctan,
        "sign": lambda x: np.subtract(x > 0, x < 0, dtype=float),  # 0 for NaN
        "invert": np.logical_not,
        "held": lambda x: x,
        "stored": lambda x: x,
        "nan": np.nan,
        "inf": np.inf,
    }


def _torch_names() -> dict[str, Any]:
    def tensor(x: Any, like: torch.Tensor) -> torch.Tensor:
        return x if isinstance(x, torch.Tensor) else torch.full_like(like, x)

    def of_two(function: Callable[..., torch.Tensor]) -> Callable[[Any, Any], torch.Tensor]:
        def call(a: Any, b: Any) -> torch.Tensor:
            like = a if isinstance(a, torch.Tensor) else b
            return function(tensor(a, like), tensor(b, like))

        return call

    def where(condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, torch.Tensor):
            return a if condition else b
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return torch.where(condition, a, b)
        # Of two numbers torch would make a tensor of its default dtype.
        wide = torch.float32 if condition.device.type == "mps" else torch.float64
        return torch.where(condition, torch.full_like(condition, a, dtype=wide), b)

    plain = ("sqrt", "exp", "log", "log1p", "expm1", "tanh", "sigmoid", "atan", "sign", "abs")
    return {
        **{name: getattr(torch, name) for name in plain},
        "divide": lambda a, b: a / b,
        "power": torch.pow,
        "maximum": of_two(torch.maximum),
        "minimum": of_two(torch.minimum),
        "where": where,
        "invert": torch.logical_not,
        "held": torch.detach,
        "stored": lambda x: x,
        "nan": np.nan,
        "inf": np.inf,
    }


@cache
def _function(program: Program, stage: int, library: str) -> Callable[..., list[Any]]:
    names = _numpy_names() if library == "numpy" else _torch_names()
    return compile_function(program.between_source(stage), "between", names)


@cache
def reduced_constants(program: Program, stage: int) -> tuple[Symbol, ...]:
    """The constants of a stage that depend on sums, in their order."""
    constants = program.stages[stage].constants
    return tuple(c for c in constants if c.level is Level.REDUCED)


def values_between(
    program: Program,
    stage: int,
    constants: Sequence[Any],
    known: Mapping[Symbol, Any],
    counts: Mapping[str, Any],
    library: str = "numpy",
) -> list[Any]:
    """Compute the constants of a stage that depend on sums.

    Args:
        program: the program.
        stage: the number of the stage that takes them.
        constants: the values of ``program.constants``, each a number or one for each tensor.
        known: the values of the reductions and counts (``counts_of_several``) so far.
        counts: by scope, how many elements each tensor and each unit has, and "dimensions".
        library: "numpy" or "torch": which the values belong to.

    Returns:
        Their values, a number or one for each tensor.
    """
    found = _function(program, stage, library)
    sums = [known[r] for s in program.stages[:stage] for r in s.reductions]
    totals = [known[c] for c in counts_of_several(program, stage)]
    if library == "torch":
        return found(constants, sums, counts, totals)
    with np.errstate(all="ignore"):
        return found(constants, sums, counts, totals)


@cache
def counts_of_several(program: Program, stage: int) -> tuple[Symbol, ...]:
    """The nodes that count the elements of all tensors, among those that a stage needs."""
    return program.counts_over_several(stage)


def units_in(shape: Sequence[int]) -> int:
    """How many units ``p[i]`` a parameter of this shape has: a vector is one."""
    return shape[0] if len(shape) > 1 else 1


def counts_in(shape: Sequence[int], numbers: int) -> dict[str, float]:
    """What a rule may ask of a parameter's size, by scope; of so many numbers in all."""
    units = units_in(shape)
    each = numbers / units if units else 0.0
    return {"tensor": float(numbers), "unit": each, "dimensions": float(len(shape))}
