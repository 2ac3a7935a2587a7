"""A loss of one's own from a formula: three lines, the same kernels."""

from collections.abc import Callable
from functools import update_wrapper
from inspect import Parameter, signature
from typing import Any

import torch

from thalweg.losses.evaluate import evaluate
from thalweg.losses.reduction import check_tensors, chosen_reduction
from thalweg.rule.formula import Formula


def loss(**options: Any) -> "Callable[[Callable[..., Any]], Defined]":
    """Turn a formula into a loss function with the formula's name.

    Args:
        options: what the formula reads from ``h``, with their defaults.

    Returns:
        A decorator. The loss takes the formula's operands as tensors that broadcast, in the
        formula's order, then ``reduction`` ("mean", "sum" or "none") and the options by name. Value
        and gradients of all operands are computed in one pass.

    Raises:
        TypeError: an option is called ``reduction``, a name begins with an underscore, or the
            formula has no parameter ``h``.

    >>> from thalweg.rule import log
    >>> @loss(scale=1.0)
    ... def cauchy(x, y, h):
    ...     return log(1 + ((x - y) / h.scale) ** 2)
    >>> x = torch.tensor([0.0, 3.0], requires_grad=True)
    >>> value = cauchy(x, torch.tensor([0.0, 2.0]))
    >>> value.backward()
    >>> round(value.item(), 4), x.grad.tolist()
    (0.3466, [0.0, 0.5])
    """
    if "reduction" in options:
        raise TypeError("loss: every loss has the argument reduction; choose another name")

    def make(function: Callable[..., Any]) -> Defined:
        return Defined(function, options)

    return make


class Defined:
    """A loss made by :func:`loss`."""

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
        name = self.formula.name
        tensors = self._bound(operands, given)
        unknown = sorted(set(given) - set(self.options) - set(self._operands))
        if unknown:
            raise TypeError(
                f"{name}: got an unexpected argument {unknown[0]!r}; it takes "
                f"{', '.join([*self._operands, 'reduction', *self.options])}"
            )
        check_tensors(name, **tensors)
        options = {key: given.get(key, default) for key, default in self.options.items()}
        return evaluate(self.formula, tensors, options, chosen_reduction(name, reduction))

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
