"""Evaluating formulas that have a value for each row."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from thalweg.engine import observed
from thalweg.engine.passes.rows import RowPass
from thalweg.losses.checks import readable
from thalweg.losses.evaluation.autograd import evaluated
from thalweg.losses.evaluation.evaluator import Gradients, Needed, Options, Tensors
from thalweg.losses.evaluation.operands import HALVES, in_float32_under_autocast
from thalweg.losses.evaluation.row_operands import (
    Sizes,
    arranged_rows,
    have_row_kernel,
    numbers_of_one_dtype,
    without,
)
from thalweg.losses.evaluation.tensor_operations import called_with_tensors, summed, widened
from thalweg.rule.formula import EACH, FACTOR, SUM
from thalweg.rule.rows import ROW_WISE, Kind, RowFormula

Tensor = torch.Tensor


def evaluate_rows(
    owner: str,
    formula: RowFormula,
    operands: Mapping[str, Tensor],
    options: Options,
    reduction: str,
    dim: int,
    divisor: float | Tensor | None = None,
    ignored: int | None = None,
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
        ignored: rows with this index take no part: their value and derivatives are 0. None: every
            row takes part.
        composed: see :func:`in_float32_under_autocast`.

    Raises:
        IndexError: an index that is no place in a row, and not the one ignored.
    """
    if observed.observer is not None:
        observed.observer(observed.FormulaCall(formula, operands, options, reduction, dim))
    names = (*operands,)
    kinds = formula.kinds_of(names)
    values = in_float32_under_autocast([*operands.values()], composed)
    have_kernel = have_row_kernel(kinds, values)
    if not have_kernel:
        values = numbers_of_one_dtype(kinds, values)
        have_kernel = have_row_kernel(kinds, values)
    first = values[0]
    settings = owner, formula, names, dim, ignored, first.dtype
    averaged = reduction == "mean" and divisor is None
    needed: Needed = ()
    if have_kernel and torch.is_grad_enabled():
        needed = tuple([v.requires_grad for v in values])
        if Kind.COLUMN in kinds:  # its gradient would be a sum over the rows
            have_kernel = (Kind.COLUMN, True) not in zip(kinds, needed, strict=True)
    if not have_kernel:
        evaluator = RowEvaluator(*settings, EACH, (), options, averaged=averaged)
        each = evaluator.by_tensor_operations(values)
        if reduction == "none":
            return each
        return summed(each, evaluator.divisor(values) if divisor is None else divisor)
    sizes, values = arranged_rows(kinds, values, dim)
    if reduction == "none":
        return evaluated(RowEvaluator(*settings, EACH, (), options, sizes), values, needed)
    if averaged and Kind.INDEX not in kinds:  # all rows take part
        averaged, divisor = False, sizes[0] * sizes[2]
    scale = 1.0
    if divisor is not None:
        scale = 1.0 / float(divisor) if divisor else math.nan
    options = {**options, FACTOR: scale}
    evaluator = RowEvaluator(*settings, SUM, needed, options, sizes, averaged)
    return evaluated(evaluator, values, needed)


class RowEvaluator(NamedTuple):
    """A row formula with its settings; an :class:`Evaluator`.

    Attributes:
        owner: the loss's name, for messages.
        formula: the formula.
        names: the names of the operands.
        dim: the dimension of a row's elements.
        ignored: rows with this index take no part; None: every row does.
        dtype: of every tensor that holds no indices.
        kind: what the kernel does with the values.
        needed: which operands need a gradient; empty if none does.
        options: what the formula reads from ``h``, and for ``SUM`` the option FACTOR.
        sizes: how the elements lie in memory.
        averaged: the sum is divided by the number of rows that take part.
        in_place: the gradient by ``x`` overwrites x.
    """

    owner: str
    formula: RowFormula
    names: tuple[str, ...]
    dim: int
    ignored: int | None
    dtype: torch.dtype
    kind: str
    needed: Needed
    options: Options
    sizes: Sizes = (0, 0, 0)
    averaged: bool = False
    in_place: bool = False

    @property
    def scale(self) -> float:
        return float(self.options[FACTOR])

    @property
    def converts(self) -> bool:
        return Kind.INDEX not in self.formula.kinds_of(self.names)

    def __call__(
        self, values: Tensors, *values_or_upstream: Tensor
    ) -> tuple[list[float], Gradients]:
        compiled, constants = self._compiled()
        gradients: Gradients = [None] * len(values)
        for k, need in enumerate(self.needed):
            if need:
                gradients[k] = values[k] if self.in_place else torch.empty_like(values[k])
        tensors: Any = (*values, *gradients, *values_or_upstream)
        addresses = [tensors[k].data_ptr() for k in compiled.places]
        total, wrong_row = compiled.run(
            addresses, constants, self.sizes, self.ignored, self.averaged
        )
        if wrong_row >= 0:
            raise self._out_of_range(values, wrong_row)
        return [total], gradients

    def _compiled(self) -> "tuple[_Compiled, Sequence[float]]":
        """The pass for these switches, and its constants for these options."""
        known = _compiled_passes(
            self.formula, self.kind, self.names, self.needed, self.dtype, self.in_place
        )
        for compiled in known:
            constants = compiled.run.program.scalars(self.options)
            if constants is not None:
                return compiled, constants
        wanted = [name for name, need in zip(self.names, self.needed, strict=False) if need]
        program = self.formula.program(self.kind, self.options, self.names, wanted)
        order = (*self.names, *(f"_d_{name}" for name in self.names))
        places = {name: k for k, name in enumerate(order)}
        at = tuple(places.get(name, len(places)) for name in program.operands)
        known.append(_Compiled(RowPass(program, self.dtype, self.in_place), at))
        return self._compiled()

    def with_kind(self, kind: str, needed: Needed, **options: Any) -> "RowEvaluator":
        return self._replace(kind=kind, needed=needed, options={**self.options, **options})

    def arranged(self, values: list[Tensor]) -> "tuple[RowEvaluator, list[Tensor]]":
        sizes, values = arranged_rows(self.formula.kinds_of(self.names), values, self.dim)
        return self._replace(sizes=sizes), values

    def new_values(self, values: Tensors) -> Tensor:
        return values[0].new_empty(without(values[0].shape, self.dim))

    def arranged_upstream(self, upstream: Tensor, values: Tensors) -> Tensor:
        return upstream.resolve_neg().contiguous()

    def divisor(self, values: Tensors) -> int | Tensor:
        """What the sum is divided by: the number of rows that take part, or 1 if not averaged."""
        if not self.averaged:
            return 1
        kinds = self.formula.kinds_of(self.names)
        if Kind.INDEX in kinds and self.ignored is not None:
            return (values[kinds.index(Kind.INDEX)] != self.ignored).sum()
        return math.prod(without(values[0].shape, self.dim))

    def by_tensor_operations(self, values: Tensors) -> Tensor:
        each = self._each_by_tensor_operations(values)
        return each if self.kind == EACH else summed(each * self.scale, self.divisor(values))

    def _each_by_tensor_operations(self, values: Tensors) -> Tensor:
        """The value of each row; of 16-bit operands it is computed in float32, as by kernels."""
        kinds = self.formula.kinds_of(self.names)
        takes_part = None
        operands = {}
        for name, kind, v in zip(self.names, kinds, values, strict=True):
            if kind is Kind.INDEX:
                takes_part = torch.ones_like(v, dtype=torch.bool)
                if self.ignored is not None:
                    takes_part = v != self.ignored
                self._check_indices(values, v, takes_part)
                v = torch.where(takes_part, v, 0)
            else:
                v = widened(v)
            if kind is Kind.ELEMENT:
                v = v.movedim(self.dim, -1)
            operands[name] = v.unsqueeze(-1) if kind in ROW_WISE else v
        if takes_part is not None:  # an infinity in a row that takes no part would become NaN
            for name, kind in zip(self.names, kinds, strict=True):
                if kind is Kind.ELEMENT:
                    operands[name] = torch.where(takes_part.unsqueeze(-1), operands[name], 0.0)
        dtype = torch.float32 if self.dtype in HALVES else self.dtype
        result = called_with_tensors(self.formula, operands, self.options, dtype).squeeze(-1)
        if takes_part is not None:
            result = torch.where(takes_part, result, 0.0)
        return result.to(self.dtype) if self.dtype in HALVES else result

    def _check_indices(self, values: Tensors, indices: Tensor, takes_part: Tensor) -> None:
        """Raise IndexError for one out of range; on the CPU only, where reading waits for nothing.

        On another device the values would have to be copied to the host first.
        """
        if indices.is_cpu and readable(indices):
            inside = (indices >= 0) & (indices < values[0].shape[self.dim])
            wrong_rows = (takes_part & ~inside).reshape(-1).nonzero()
            if len(wrong_rows):
                raise self._out_of_range(values, int(wrong_rows[0]))

    def _out_of_range(self, values: Tensors, row: int) -> IndexError:
        """The error for a row whose index is no place in it."""
        at = self.formula.kinds_of(self.names).index(Kind.INDEX)
        index, count = int(values[at].reshape(-1)[row]), values[0].shape[self.dim]
        ignored = "" if self.ignored is None else f", or ignore_index, {self.ignored}"
        return IndexError(
            f"{self.owner}: Target {index} is out of bounds: classes must be in [0, {count - 1}]"
            f"{ignored}"
        )


class _Compiled(NamedTuple):
    """A pass, and where its operands are among the operands, gradients and one more tensor."""

    run: RowPass
    places: tuple[int, ...]


@lru_cache(maxsize=1024)
def _compiled_passes(
    formula: RowFormula,
    kind: str,
    names: tuple[str, ...],
    needed: Needed,
    dtype: torch.dtype,
    in_place: bool,
) -> list[_Compiled]:
    """The passes compiled so far: one for each setting of the formula's switches."""
    return []
