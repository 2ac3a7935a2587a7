"""Formulas computed by tensor operations, where there is no kernel or autograd must see through."""

from collections.abc import Mapping

import torch

from thalweg.engine.backends.eager.apply import EagerHyperparameters
from thalweg.losses.evaluation.evaluator import Options
from thalweg.losses.evaluation.operands import HALVES
from thalweg.rule.formula import Formula
from thalweg.rule.operations import eager_dtype
from thalweg.rule.rows import RowFormula


def called_with_tensors(
    formula: Formula | RowFormula,
    operands: Mapping[str, torch.Tensor],
    options: Options,
    dtype: torch.dtype,
) -> torch.Tensor:
    """What the formula's function returns for tensors of this dtype."""
    if torch.compiler.is_compiling():  # the compiler cannot trace the wrappers of numbers
        result: torch.Tensor = formula.function(**operands, h=_PlainHyperparameters(options))
        return result
    before = eager_dtype.get()
    try:
        eager_dtype.set(dtype)
        h = EagerHyperparameters(formula.name, options, 1.0)
        result = formula.function(**operands, h=h)
    finally:
        eager_dtype.set(before)
    return result


class _PlainHyperparameters:
    """``h`` whose numbers are Python's own."""

    def __init__(self, options: Options) -> None:
        for name, value in options.items():
            setattr(self, name, value)


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the dtype that is computed in: float32 for 16 bits, else its own.

    A negated view is written out: of one, torch's forward mode takes no views.
    """
    return tensor.float() if tensor.dtype in HALVES else tensor.resolve_neg()


def summed(each: torch.Tensor, divisor: float | torch.Tensor) -> torch.Tensor:
    """The sum of values over a divisor. 16-bit values are added up in float32."""
    values = widened(each)
    if isinstance(divisor, (int, float)) and divisor in (1, values.numel()):
        # Within vmap over nothing, torch does not divide by a number.
        total = values.sum() if divisor == 1 else values.mean()
    else:
        total = values.sum() / divisor
    return total.to(each.dtype) if each.dtype in HALVES else total
