"""Operands of row formulas: their dtypes, and how their rows lie in memory."""

import math
from collections.abc import Sequence

import torch

from thalweg.engine.passes.memory import has_memory
from thalweg.losses.evaluation.operands import are_plain, of_one_dtype
from thalweg.rule.rows import Kind

Tensor = torch.Tensor
Sizes = tuple[int, int, int]  # [outer, elements of a row, inner]: there are outer x inner rows


def without(shape: Sequence[int], dim: int) -> tuple[int, ...]:
    """A size without one of its dimensions."""
    return (*shape[:dim], *shape[dim + 1 :])


def numbers_of_one_dtype(kinds: tuple[Kind, ...], values: list[Tensor]) -> list[Tensor]:
    """The operands written out, with those that are not indices in one floating-point dtype."""
    values = [v.resolve_neg() for v in values]
    dtype = values[0].dtype
    if dtype.is_floating_point and all(
        v.dtype is dtype or k is Kind.INDEX for k, v in zip(kinds, values, strict=True)
    ):
        return values
    numbers = [v for k, v in zip(kinds, values, strict=True) if k is not Kind.INDEX]
    converted = iter(of_one_dtype(numbers))
    return [v if k is Kind.INDEX else next(converted) for k, v in zip(kinds, values, strict=True)]


def have_row_kernel(kinds: tuple[Kind, ...], values: list[Tensor]) -> bool:
    """Whether one kernel can read all of these operands."""
    numbers: list[Tensor] = []
    indices: list[Tensor] = []
    for kind, v in zip(kinds, values, strict=True):
        (indices if kind is Kind.INDEX else numbers).append(v)
    return are_plain(numbers) and all(v.dtype is torch.int64 and has_memory(v) for v in indices)


def arranged_rows(
    kinds: tuple[Kind, ...], values: list[Tensor], dim: int
) -> tuple[Sizes, list[Tensor]]:
    """How a kernel sees the elements, and the operands without gaps in that order.

    Where a row's elements are neighbours in memory, or its rows are, nothing is copied.

    Args:
        kinds: of the operands.
        values: the operands; those of kind ELEMENT have one shape.
        dim: the dimension of a row's elements.
    """
    shape, contiguous = values[0].shape, all(map(Tensor.is_contiguous, values))
    if contiguous and dim == 1 and len(shape) == 2:
        return (*shape, 1), values
    outer, count, inner = math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
    if contiguous:
        return (outer, count, inner), values
    elements = [v for kind, v in zip(kinds, values, strict=True) if kind is Kind.ELEMENT]
    sizes, elements_stay = (outer, count, inner), False
    if all(v.movedim(dim, -1).is_contiguous() for v in elements):
        sizes, elements_stay = (outer * inner, count, 1), True
    elif all(v.movedim(dim, 0).is_contiguous() for v in elements):
        sizes, elements_stay = (1, count, outer * inner), True
    return sizes, [
        v if kind is Kind.ELEMENT and elements_stay else v.contiguous()
        for kind, v in zip(kinds, values, strict=True)
    ]
