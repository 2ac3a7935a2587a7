"""Evaluating formulas that have a value for each element."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import torch

from thalweg.engine import observed
from thalweg.engine.layout import memory_order
from thalweg.engine.passes.elementwise import ElementPass
from thalweg.losses.evaluation.autograd import evaluated
from thalweg.losses.evaluation.evaluator import Gradients, Needed, Options, Tensors
from thalweg.losses.evaluation.operands import (
    HALVES,
    broadcast,
    have_kernel,
    in_float32_under_autocast,
    in_one_memory_order,
    of_one_dtype,
)
from thalweg.losses.evaluation.tensor_operations import called_with_tensors, summed, widened
from thalweg.rule.formula import EACH, FACTOR, SUM, Formula

_requires_grad = attrgetter("requires_grad")


def evaluate(
    formula: Formula,
    operands: Mapping[str, torch.Tensor],
    options: Options,
    reduction: str,
    divisor: float | None = None,
    composed: bool = False,
) -> torch.Tensor:
    """The values of a formula, or their sum over a divisor.

    Args:
        formula: the formula.
        operands: its operands by name; they broadcast, and integers become floating-point.
        options: what the formula reads from ``h``.
        reduction: "none", "sum" or "mean".
        divisor: of the sum; by default the number of elements for "mean", and 1 for "sum".
        composed: see :func:`in_float32_under_autocast`.
    """
    if observed.observer is not None:
        observed.observer(observed.FormulaCall(formula, operands, options, reduction))
    names = tuple(operands)
    values = in_float32_under_autocast([*operands.values()], composed)
    if not have_kernel(values):
        values = of_one_dtype([v.resolve_neg() for v in broadcast(values)])
        if not have_kernel(values):
            each = _by_tensor_operations(formula, names, values, options)
            if reduction == "none":
                return each
            return summed(each, _divisor(each.numel(), reduction, divisor))
    if not all(map(torch.Tensor.is_contiguous, values)):
        values = in_one_memory_order(values)
    first = values[0]
    needed = tuple(map(_requires_grad, values)) if torch.is_grad_enabled() else ()
    if reduction == "none":
        evaluator = _evaluator(
            formula, EACH, names, (), first.dtype, (*options,), *options.values()
        )
        return evaluated(evaluator, values, needed)
    count = _divisor(first.numel(), reduction, divisor)
    scale = 1.0 / count if count else math.nan
    keys = (*options, FACTOR)
    evaluator = _evaluator(formula, SUM, names, needed, first.dtype, keys, *options.values(), scale)
    return evaluated(evaluator, values, needed)


def _divisor(count: int, reduction: str, divisor: float | None) -> float:
    if divisor is not None:
        return divisor
    return count if reduction == "mean" else 1


class ElementEvaluator:
    """A formula's kernel with its constants; an :class:`Evaluator`.

    Args:
        formula: the formula.
        kind: what the kernel does with the values.
        names: the names of the operands.
        needed: which operands need a gradient; empty if none does.
        dtype: of every tensor.
        options: what the formula reads from ``h``, and for ``SUM`` the option FACTOR.
    """

    converts = True

    def __init__(
        self,
        formula: Formula,
        kind: str,
        names: tuple[str, ...],
        needed: Needed,
        dtype: torch.dtype,
        options: Options,
    ) -> None:
        self.formula, self.kind, self.names, self.dtype = formula, kind, names, dtype
        self.options = options
        self.scale: float = options.get(FACTOR, 1.0)
        self._needed = [k for k, need in enumerate(needed) if need]
        wanted = [names[k] for k in self._needed]
        program = formula.program(kind, options, names, wanted)
        constants = program.scalars(options)
        assert constants is not None, "the program was found for these options"
        # The tensors of a call: operands, gradients, then the values or what comes from above.
        places = {name: k for k, name in enumerate((*names, *(f"_d_{name}" for name in wanted)))}
        self._places = [places.get(name, len(places)) for name in program.operands]
        self._pass = ElementPass(program, [dtype] * len(self._places), constants)

    def __call__(
        self, values: Tensors, *values_or_upstream: torch.Tensor
    ) -> tuple[list[float], Gradients]:
        gradients: Gradients = [None] * len(values)
        tensors = [*values]
        for k in self._needed:
            gradients[k] = gradient = torch.empty_like(values[k])
            tensors.append(gradient)
        tensors += values_or_upstream
        addresses = [tensors[k].data_ptr() for k in self._places]
        return self._pass.run(values[0].numel(), *addresses), gradients

    def with_kind(self, kind: str, needed: Needed, **options: Any) -> "ElementEvaluator":
        options = {**self.options, **options}
        keys = (*options,)
        return _evaluator(
            self.formula, kind, self.names, needed, self.dtype, keys, *options.values()
        )

    def arranged(self, values: list[torch.Tensor]) -> "tuple[ElementEvaluator, list[torch.Tensor]]":
        return self, in_one_memory_order(values)

    def new_values(self, values: Tensors) -> torch.Tensor:
        return torch.empty_like(values[0])

    def arranged_upstream(self, upstream: torch.Tensor, values: Tensors) -> torch.Tensor:
        like = values[0]
        if memory_order(upstream) == memory_order(like) and not upstream.is_neg():
            return upstream
        return torch.empty_like(like, dtype=upstream.dtype).copy_(upstream)

    def by_tensor_operations(self, values: Tensors) -> torch.Tensor:
        each = _by_tensor_operations(self.formula, self.names, values, self.options)
        return each if self.kind == EACH else summed(each, 1.0) * self.scale


# A new scale for each batch size, say, makes many evaluators; each is small. ``typed``: True and
# 1.0 are equal, but a formula branches on one and computes with the other.
@lru_cache(maxsize=1024, typed=True)
def _evaluator(
    formula: Formula,
    kind: str,
    names: tuple[str, ...],
    needed: Needed,
    dtype: torch.dtype,
    keys: tuple[str, ...],
    *options: Any,
) -> ElementEvaluator:
    given = dict(zip(keys, options, strict=True))
    return ElementEvaluator(formula, kind, names, needed, dtype, given)


def _by_tensor_operations(
    formula: Formula, names: Sequence[str], values: Tensors, options: Options
) -> torch.Tensor:
    """The value of each element; of 16-bit operands it is computed in float32, as by kernels."""
    dtype = values[0].dtype
    operands = dict(zip(names, map(widened, values), strict=True))
    result = called_with_tensors(formula, operands, options, widened(values[0]).dtype)
    return result.to(dtype) if dtype in HALVES else result
