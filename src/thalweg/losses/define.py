"""A loss of one's own from a formula: three lines, the same kernels."""

from collections.abc import Callable
from functools import update_wrapper
from inspect import Parameter, signature
from typing import Any

import torch

from thalweg.losses.checks import check_tensors, common_size
from thalweg.losses.class_targets import IGNORED
from thalweg.losses.evaluation.elements import evaluate
from thalweg.losses.evaluation.row_operands import without
from thalweg.losses.evaluation.rows import evaluate_rows
from thalweg.losses.reduction import chosen_reduction
from thalweg.rule.formula import Formula
from thalweg.rule.rows import ROW_WISE, Kind, RowFormula


def loss(**options: Any) -> "Callable[[Callable[..., Any]], Defined]":
    """Turn a formula into a loss function with the formula's name.

    A formula returns a number for each element, or for each row. A formula of rows sums over the
    row, and at least one of its operands is given a :class:`Kind`.

    Args:
        options: what the formula reads from ``h``, with default values; or the name of an operand
            with its :class:`Kind`, which says what the operand has a number for. Operands without a
            kind have a number for each element.

    Returns:
        A decorator. The loss takes the formula's operands as tensors that broadcast, in the
        formula's order, then ``reduction`` ("mean", "sum" or "none") and the options by name. Value
        and gradients of all operands are computed in one pass. A loss of rows also takes ``dim``,
        the dimension of a row's elements (the last one by default); where an operand is an index,
        ``ignore_index`` (-100 by default): rows with it count nothing, nor in the mean.

    Raises:
        TypeError: an option has the name of one of these arguments, a name begins with an
            underscore, or the formula has no parameter ``h``.

    >>> from thalweg.rule import log
    >>> @loss(scale=1.0)
    ... def cauchy(x, y, h):
    ...     return log(1 + ((x - y) / h.scale) ** 2)
    >>> x = torch.tensor([0.0, 3.0], requires_grad=True)
    >>> value = cauchy(x, torch.tensor([0.0, 2.0]))
    >>> value.backward()
    >>> round(value.item(), 4), x.grad.tolist()
    (0.3466, [0.0, 0.5])

    >>> from thalweg.rule import logsumexp, pick
    >>> @loss(y=Kind.INDEX)
    ... def cross_entropy(x, y, h):
    ...     return logsumexp(x) - pick(x, y)
    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor(1.3863)
    """
    kinds = {name: value for name, value in options.items() if isinstance(value, Kind)}
    numbers = {name: value for name, value in options.items() if name not in kinds}
    for name in ("reduction", "dim", "ignore_index"):
        if name in options:
            raise TypeError(f"loss: losses have the argument {name}; choose another name")

    def make(function: Callable[..., Any]) -> Defined:
        return DefinedOfRows(function, numbers, kinds) if kinds else Defined(function, numbers)

    return make


class Defined:
    """A loss made by :func:`loss`."""

    formula: Formula | RowFormula
    _arguments: tuple[str, ...] = ("reduction",)

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        parameters = signature(function).parameters
        if "h" not in parameters:
            raise TypeError(
                f"loss: {function.__name__} must take h, which holds its options, after its "
                "operands"
            )
        for name in (*parameters, *options):
            if name.startswith("_"):
                raise TypeError(f"loss: {name!r} is taken; choose a name that begins with a letter")
        self.formula = Formula(function)
        self.options = options
        self._operands = {name: p for name, p in parameters.items() if name != "h"}
        update_wrapper(self, function)

    def __call__(
        self, *operands: torch.Tensor, reduction: str = "mean", **given: Any
    ) -> torch.Tensor:
        """The loss of these tensors."""
        tensors, options = self._taken(operands, given)
        assert isinstance(self.formula, Formula)
        reduction = chosen_reduction(self.formula.name, reduction)
        return evaluate(self.formula, tensors, options, reduction)

    def _taken(
        self, operands: tuple[torch.Tensor, ...], given: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The operands by name, and the options."""
        name = self.formula.name
        tensors = self._bound(operands, given)
        unknown = sorted(set(given) - set(self.options) - set(self._operands))
        if unknown:
            raise TypeError(
                f"{name}: got an unexpected argument {unknown[0]!r}; it takes "
                f"{', '.join([*self._operands, *self._arguments, *self.options])}"
            )
        check_tensors(name, **tensors)
        return tensors, {key: given.get(key, default) for key, default in self.options.items()}

    def _bound(
        self, operands: tuple[torch.Tensor, ...], given: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        names = list(self._operands)
        if len(operands) > len(names):
            raise TypeError(
                f"{self.formula.name}: takes {len(names)} tensors ({', '.join(names)}), got "
                f"{len(operands)}"
            )
        bound = dict(zip(names, operands, strict=False))
        bound |= {name: given[name] for name in names if given.get(name) is not None}
        for name, parameter in self._operands.items():
            if name not in bound and parameter.default is Parameter.empty:
                raise TypeError(f"{self.formula.name}: missing the argument {name!r}")
        return bound


class DefinedOfRows(Defined):
    """A loss of rows made by :func:`loss`."""

    formula: RowFormula
    _arguments = ("reduction", "dim", "ignore_index")

    def __init__(
        self, function: Callable[..., Any], options: dict[str, Any], kinds: dict[str, Kind]
    ) -> None:
        super().__init__(function, options)
        unknown = sorted(set(kinds) - set(self._operands))
        if unknown:
            raise TypeError(
                f"loss: {function.__name__} has no operand {unknown[0]!r}; it takes "
                f"{', '.join(self._operands)}"
            )
        self.formula = RowFormula(function, **kinds)

    def __call__(
        self,
        *operands: torch.Tensor,
        reduction: str = "mean",
        dim: int = -1,
        ignore_index: int = IGNORED,
        **given: Any,
    ) -> torch.Tensor:
        """The loss of these tensors."""
        tensors, options = self._taken(operands, given)
        name, kinds = self.formula.name, self.formula.kinds_of(tuple(tensors))
        reduction = chosen_reduction(name, reduction)
        # Those of elements first: they have the size of it all.
        of = dict(sorted(zip(tensors, kinds, strict=True), key=lambda o: o[1] is not Kind.ELEMENT))
        tensors = {operand: tensors[operand] for operand in of}
        size = common_size(name, **{n: t for n, t in tensors.items() if of[n] is Kind.ELEMENT})
        dim = dim + len(size) if dim < 0 else dim
        if not 0 <= dim < len(size):
            raise IndexError(f"{name}: dim must be a dimension of the operands, {tuple(size)}")
        sizes = {Kind.ELEMENT: size, Kind.COLUMN: size[dim : dim + 1]}
        rows = torch.Size(without(size, dim))
        for operand, kind in of.items():
            tensor, wanted = tensors[operand], sizes.get(kind, rows)
            if kind is Kind.ELEMENT:
                tensors[operand] = tensor.expand(wanted)
            elif tensor.shape != wanted:
                each = "row" if kind in ROW_WISE else "element of a row"
                raise RuntimeError(
                    f"{name}: {operand} must have one number for each {each}, size "
                    f"{tuple(wanted)}, got {tuple(tensor.shape)}"
                )
            if kind is Kind.INDEX and tensor.dtype is not torch.int64:
                raise RuntimeError(f"{name}: {operand} must be int64, got {tensor.dtype}")
        return evaluate_rows(
            name, self.formula, tensors, options, reduction, dim, ignored=ignore_index
        )
