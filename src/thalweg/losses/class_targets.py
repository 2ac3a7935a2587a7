"""Targets that are classes, the weights of classes, and their checks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from thalweg.engine.passes.memory import has_memory
from thalweg.losses.checks import check_real, check_tensors, readable
from thalweg.losses.evaluation.operands import in_float32_under_autocast
from thalweg.losses.evaluation.row_operands import without
from thalweg.losses.evaluation.rows import evaluate_rows
from thalweg.ranges import integer
from thalweg.rule.rows import RowFormula

Tensor = torch.Tensor

IGNORED = -100  # torch's default


class ClassTargets(NamedTuple):
    """The checked operands of a loss whose target is a class.

    Attributes:
        input: [C] or [N, C, *].
        target: int64, the input's size without C.
        weights: ``{"weight": weight}``, or empty without a weight.
        dim: the dimension of the classes.
        ignored: targets with this class do not count.
    """

    input: Tensor
    target: Tensor
    weights: Mapping[str, Tensor]
    dim: int
    ignored: int

    @staticmethod
    def checked(
        owner: str, input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
    ) -> "ClassTargets":
        """The operands, with the errors of :func:`class_targets` and :func:`class_weights`."""
        target, dim = class_targets(owner, input, target)
        if weight is None:
            return ClassTargets(input, target, {}, dim, checked_class(owner, ignore_index))
        check_tensors(owner, weight=weight)
        input, weight = in_float32_under_autocast([input, weight])
        weights = class_weights(owner, input.dtype, input.shape[dim], weight)
        return ClassTargets(input, target, weights, dim, checked_class(owner, ignore_index))

    def evaluated(
        self, owner: str, formula: RowFormula, options: Mapping[str, Any], reduction: str
    ) -> Tensor:
        """The loss; "mean" divides by the sum of the targets' weights."""
        operands = {"x": self.input, "y": self.target, **self.weights}
        divisor = None
        if reduction == "mean" and self.weights:
            classes = self.input.shape[self.dim]
            divisor = total_weight(self.target, self.weights, classes, self.ignored)
        loss = evaluate_rows(
            owner, formula, operands, options, reduction, self.dim, divisor, self.ignored
        )
        # The sum of 16-bit weights is wider than they are.
        return loss.to(self.input.dtype) if self.weights else loss


def total_weight(
    target: Tensor, weights: Mapping[str, Tensor], classes: int, ignored: int
) -> Tensor | float:
    """The sum of the targets' weights, or without weights their number; ignored ones left out.

    It is in float32 at least, since 16 bits cannot hold the sum of many.
    """
    if not weights and readable(target) and has_memory(target):
        return int(np.count_nonzero(target.numpy() != ignored))  # the quickest way by far
    taken = target != ignored
    if not weights or not classes:
        return torch.count_nonzero(taken)
    # The pass over the rows raises for a class out of range.
    weight = weights["weight"][target.clamp(0, classes - 1)]
    total = torch.where(taken, weight, 0.0).sum(dtype=torch.float64)
    return total.to(torch.promote_types(weight.dtype, torch.float32))


def checked_class(owner: str, ignore_index: Any) -> int:
    """The class to ignore as an int; TypeError or ValueError if it is not an int64."""
    found = integer(owner, "ignore_index", ignore_index)
    if not -(2**63) <= found < 2**63:
        raise ValueError(f"{owner}: ignore_index must fit into 64 bits, got {found}")
    return found


def class_targets(owner: str, input: Tensor, target: Tensor) -> tuple[Tensor, int]:
    """The target as int64 of the input's size without its classes, and their dimension.

    Raises:
        ValueError: an input without dimensions, another number of targets than of inputs.
        RuntimeError: another target size, or a dtype that is not int64 or uint8.
    """
    if not input.ndim:
        raise ValueError(f"{owner}: input must have a dimension of classes, got a 0-d tensor")
    dim = min(1, input.ndim - 1)
    size = without(input.shape, dim)
    if input.ndim == 1 and target.shape == (1,):
        target = target.reshape(())
    if target.shape != size:
        expected = f"the input's size without its classes, {size}"
        message = f"{owner}: target must have {expected}, got {tuple(target.shape)}"
        # Another number of targets is a ValueError, another size of each a RuntimeError.
        batch = target.ndim == 1 if input.ndim == 1 else target.shape[:1] != input.shape[:1]
        raise ValueError(message) if batch else RuntimeError(message)
    if target.dtype not in (torch.int64, torch.uint8):
        raise RuntimeError(
            f"{owner}: target must hold classes as int64 or uint8, got {target.dtype}; "
            "write target.long()"
        )
    return target if target.dtype is torch.int64 else target.long(), dim


def class_weights(
    owner: str, dtype: torch.dtype, classes: int, weight: Tensor | None
) -> dict[str, Tensor]:
    """``{"weight": weight}``, or empty without a weight.

    Raises:
        RuntimeError: a weight of another size than [classes], or of another dtype.
    """
    found = weight_by_name(owner, classes, weight)
    if weight is not None and weight.dtype is not dtype:
        raise RuntimeError(
            f"{owner}: weight must have the input's dtype {dtype}, got {weight.dtype}; "
            "write weight.to(input.dtype)"
        )
    return found


def weight_by_name(owner: str, classes: int, weight: Tensor | None) -> dict[str, Tensor]:
    """As :func:`class_weights`, but the weight may have any real dtype."""
    if weight is None:
        return {}
    check_real(owner, weight=weight)
    if weight.shape != (classes,):
        raise RuntimeError(
            f"{owner}: weight must have one number for each of the {classes} classes, got size "
            f"{tuple(weight.shape)}"
        )
    return {"weight": weight}
