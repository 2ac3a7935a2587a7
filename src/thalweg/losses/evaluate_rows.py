"""Evaluating a row formula on tensors: as ``evaluate.py`` does for elementwise ones.

With a reduction, the passes of the forward over a row give its derivatives too; without one, there
are passes for each. What has no kernel runs as tensor operations.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from thalweg.engine import observed
from thalweg.engine.passes.rows import NO_INDEX, RowPass
from thalweg.losses.evaluate import (
    HALVES,
    Needed,
    Options,
    Tensors,
    are_plain,
    by_tensor_operations,
    evaluated,
    of_one_dtype,
    reduced,
)
from thalweg.losses.reduction import in_float32_under_autocast, readable
from thalweg.rule.formula import EACH, FACTOR, SUM
from thalweg.rule.rows import ROW_WISE, Kind, RowFormula

Tensor = torch.Tensor


class _Made(NamedTuple):
    """A pass, and where its operands are among those given, their gradients, and one more."""

    run: RowPass
    places: tuple[int, ...]


@lru_cache(maxsize=1024)
def _made(
    formula: RowFormula,
    kind: str,
    names: tuple[str, ...],
    needed: Needed,
    dtype: torch.dtype,
    in_place: bool,
) -> list[_Made]:
    """The passes made so far: one for each setting of the formula's switches."""
    return []


class RowCall(NamedTuple):
    """Everything of a call but its tensors; what autograd's functions need of a pass.

    Attributes:
        owner: the loss's name, for messages.
        formula: the formula.
        names: of the operands given.
        dim: the dimension of a row's elements.
        ignored: rows with this index take no part.
        dtype: of every tensor that holds no indices.
        kind: what the pass does.
        needed: which of the operands need a gradient; empty if none does.
        options: what the formula reads from ``h``, with FACTOR where the pass sums up.
        sizes: how the elements lie: ``[outer, elements of a row, inner]``.
        averaged: the sum is divided by the number of rows that take part.
        in_place: the gradient by ``x`` is laid where x was.
    """

    owner: str
    formula: RowFormula
    names: tuple[str, ...]
    dim: int
    ignored: int
    dtype: torch.dtype
    kind: str
    needed: Needed
    options: Options
    sizes: tuple[int, int, int] = (0, 0, 0)
    averaged: bool = False
    in_place: bool = False

    @property
    def scale(self) -> float:
        return float(self.options[FACTOR])

    def __call__(self, values: Tensors, *other: Tensor) -> tuple[list[float], list[Tensor | None]]:
        """The sum, and a gradient for each operand that needs one."""
        made, constants = self._pass()
        gradients: list[Tensor | None] = [None] * len(values)
        for k, need in enumerate(self.needed):
            if need:
                gradients[k] = values[k] if self.in_place else torch.empty_like(values[k])
        tensors: Any = (*values, *gradients, *other)
        addresses = [tensors[k].data_ptr() for k in made.places]
        total, bad = made.run(addresses, constants, self.sizes, self.ignored, self.averaged)
        if bad >= 0:
            raise out_of_range(self, values, bad)
        return [total], gradients

    def _pass(self) -> tuple[_Made, Sequence[float]]:
        known = _made(self.formula, self.kind, self.names, self.needed, self.dtype, self.in_place)
        for made in known:
            constants = made.run.program.scalars(self.options)
            if constants is not None:
                return made, constants
        wanted = [name for name, need in zip(self.names, self.needed, strict=False) if need]
        program = self.formula.program(self.kind, self.options, self.names, wanted)
        places = {n: k for k, n in enumerate((*self.names, *(f"_d_{n}" for n in self.names)))}
        at = tuple(places.get(name, len(places)) for name in program.operands)
        known.append(_Made(RowPass(program, self.dtype, self.in_place), at))
        return self._pass()

    def other(self, kind: str, needed: Needed, **more: Any) -> "RowCall":
        """A pass of another kind over the same operands, with some options set otherwise."""
        return self._replace(kind=kind, needed=needed, options={**self.options, **more})

    def arranged(self, values: list[Tensor]) -> "tuple[RowCall, list[Tensor]]":
        """The operands as the passes take them, and the call for them."""
        sizes, values = _arranged(self.formula.kinds_of(self.names), values, self.dim)
        return self._replace(sizes=sizes), values

    def result(self, values: Tensors) -> Tensor:
        """Room for the values."""
        return values[0].new_empty(without(values[0].shape, self.dim))

    def above(self, upstream: Tensor, values: Tensors) -> Tensor:
        """What comes from above, laid out as the values are."""
        return upstream.resolve_neg().contiguous()

    def eagerly(self, values: Tensors) -> Tensor:
        """The values by tensor operations."""
        return _eagerly(self, values)

    def reduced(self, each: Tensor, values: Tensors) -> Tensor:
        """The sum that the call stands for, by tensor operations."""
        return reduced(each * self.scale, _divisor(self, values, None))


def evaluate_rows(
    owner: str,
    formula: RowFormula,
    operands: Mapping[str, Tensor],
    options: Options,
    reduction: str,
    dim: int,
    divisor: float | Tensor | None = None,
    ignored: int = NO_INDEX,
    composed: bool = False,
) -> Tensor:
    """The values of a formula for each row, or their sum over a divisor.

    Args:
        owner: the loss's name, for messages.
        formula: the formula.
        operands: by name. Those with a number for each element have one size ``[*, C, *]``; those
            with one for each row the size without that dimension; those of a column ``[C]``.
        options: what the formula reads from ``h``.
        reduction: "none", "sum" or "mean".
        dim: where the dimension C is, counted from the front.
        divisor: of the sum; by default, for "mean", the number of rows that take part.
        ignored: rows with this index take no part: their value and derivatives are 0.
        composed: see :func:`in_float32_under_autocast`.

    Raises:
        IndexError: an index that is no place in a row, and not the one ignored.
    """
    if observed.observer is not None:
        observed.observer(observed.FormulaCall(formula, operands, options, reduction, dim))
    names = (*operands,)
    kinds = formula.kinds_of(names)
    values = in_float32_under_autocast([*operands.values()], composed)
    have_kernel = _have_kernel(kinds, values)
    if not have_kernel:
        values = _numbers_alike(kinds, values)
        have_kernel = _have_kernel(kinds, values)
    first = values[0]
    at = owner, formula, names, dim, ignored, first.dtype
    kind = EACH if reduction == "none" else SUM
    averaged = reduction == "mean" and divisor is None
    needed: Needed = ()
    if have_kernel and torch.is_grad_enabled():
        needed = tuple([v.requires_grad for v in values])
        if Kind.COLUMN in kinds:  # whose gradient would be a sum over the rows
            have_kernel = (Kind.COLUMN, True) not in zip(kinds, needed, strict=True)
    if not have_kernel:
        call = RowCall(*at, kind, (), options, averaged=averaged)
        each = call.eagerly(values)
        return each if kind == EACH else reduced(each, _divisor(call, values, divisor))
    sizes, values = _arranged(kinds, values, dim)
    if kind == EACH:
        return evaluated(RowCall(*at, EACH, (), options, sizes), values, needed)
    if averaged and Kind.INDEX not in kinds:  # which all rows have a part in
        averaged, divisor = False, sizes[0] * sizes[2]
    scale = 1.0
    if divisor is not None:
        scale = 1.0 / float(divisor) if divisor else math.nan
    call = RowCall(*at, SUM, needed, {**options, FACTOR: scale}, sizes, averaged)
    return evaluated(call, values, needed)


def _divisor(call: RowCall, values: Tensors, divisor: float | Tensor | None) -> float | Tensor:
    """What the sum is divided by, for tensor operations."""
    if divisor is not None or not call.averaged:
        return 1 if divisor is None else divisor
    kinds = call.formula.kinds_of(call.names)
    if Kind.INDEX in kinds:
        return (values[kinds.index(Kind.INDEX)] != call.ignored).sum()
    return math.prod(without(values[0].shape, call.dim))


def without(shape: Sequence[int], dim: int) -> tuple[int, ...]:
    """A size without one of its dimensions."""
    return (*shape[:dim], *shape[dim + 1 :])


def _numbers_alike(kinds: tuple[Kind, ...], values: list[Tensor]) -> list[Tensor]:
    """The operands, those that hold no indices in one dtype."""
    dtype = values[0].dtype
    if dtype.is_floating_point and all(
        v.dtype is dtype or k is Kind.INDEX for k, v in zip(kinds, values, strict=True)
    ):
        return values
    numbers = [v for k, v in zip(kinds, values, strict=True) if k is not Kind.INDEX]
    alike = iter(of_one_dtype(numbers))
    return [v if k is Kind.INDEX else next(alike) for k, v in zip(kinds, values, strict=True)]


def _have_kernel(kinds: tuple[Kind, ...], values: list[Tensor]) -> bool:
    numbers = []
    for kind, v in zip(kinds, values, strict=True):
        if kind is not Kind.INDEX:
            numbers.append(v)
        elif not v.is_cpu:
            return False
    return are_plain(numbers)


def _arranged(
    kinds: tuple[Kind, ...], values: list[Tensor], dim: int
) -> tuple[tuple[int, int, int], list[Tensor]]:
    """How the elements lie, and the operands dense and in that order."""
    shape, contiguous = values[0].shape, all(map(Tensor.is_contiguous, values))
    if contiguous and dim == 1 and len(shape) == 2:
        return (*shape, 1), values
    outer, count, inner = math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
    if contiguous:
        return (outer, count, inner), values
    elements = [v for kind, v in zip(kinds, values, strict=True) if kind is Kind.ELEMENT]
    sizes, as_they_are = (outer, count, inner), False
    if all(v.movedim(dim, -1).is_contiguous() for v in elements):
        sizes, as_they_are = (outer * inner, count, 1), True
    elif all(v.movedim(dim, 0).is_contiguous() for v in elements):
        sizes, as_they_are = (1, count, outer * inner), True
    return sizes, [
        v if kind is Kind.ELEMENT and as_they_are else v.contiguous()
        for kind, v in zip(kinds, values, strict=True)
    ]


def out_of_range(call: RowCall, values: Tensors, row: int) -> IndexError:
    """The error for a row whose index is no place in it."""
    at = call.formula.kinds_of(call.names).index(Kind.INDEX)
    index, count = int(values[at].reshape(-1)[row]), values[0].shape[call.dim]
    ignored = "" if call.ignored == NO_INDEX else f", or ignore_index, {call.ignored}"
    return IndexError(
        f"{call.owner}: Target {index} is out of bounds: classes must be in [0, {count - 1}]"
        f"{ignored}"
    )


def _eagerly(call: RowCall, values: Tensors) -> Tensor:
    """The value of each row, computed by tensor operations: in float32 where kernels do."""
    kinds = call.formula.kinds_of(call.names)
    taken = None
    operands = {}
    for name, kind, v in zip(call.names, kinds, values, strict=True):
        if kind is Kind.INDEX:
            taken = v != call.ignored
            _check_indices(call, values, v, taken)
            v = torch.where(taken, v, 0)
        elif v.dtype in HALVES:
            v = v.float()
        if kind is Kind.ELEMENT:
            v = v.movedim(call.dim, -1)
        operands[name] = v.unsqueeze(-1) if kind in ROW_WISE else v
    if taken is not None:  # what is not finite in a row that takes no part would make NaN
        for name, kind in zip(call.names, kinds, strict=True):
            if kind is Kind.ELEMENT:
                operands[name] = torch.where(taken.unsqueeze(-1), operands[name], 0.0)
    dtype = torch.float32 if call.dtype in HALVES else call.dtype
    result = by_tensor_operations(call.formula, operands, call.options, dtype).squeeze(-1)
    if taken is not None:
        result = torch.where(taken, result, 0.0)
    return result.to(call.dtype) if call.dtype in HALVES else result


def _check_indices(call: RowCall, values: Tensors, indices: Tensor, taken: Tensor) -> None:
    """On the CPU, where looking costs no waiting for a device."""
    if indices.is_cpu and readable(indices):
        inside = (indices >= 0) & (indices < values[0].shape[call.dim])
        bad = (taken & ~inside).reshape(-1).nonzero()
        if len(bad):
            raise out_of_range(call, values, int(bad[0]))
