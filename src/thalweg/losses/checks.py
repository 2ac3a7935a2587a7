"""Checks of the arguments of losses, and whether the values of a tensor can be looked at."""

import math
import warnings
from typing import Any

import torch

from thalweg.engine.layout import PLAIN_TENSORS
from thalweg.engine.passes.memory import is_watched
from thalweg.engine.torch_internals import is_wrapped
from thalweg.ranges import Range, number


def check_tensors(owner: str, **tensors: Any) -> None:
    """Raise TypeError for an argument that is no tensor."""
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"{owner}: {name} must be a Tensor, got {type(value).__name__} {value!r}"
            )


def check_real(owner: str, **tensors: Any) -> None:
    """Raise TypeError for an argument that is no tensor, NotImplementedError for a complex one."""
    for value in tensors.values():
        if not isinstance(value, torch.Tensor) or value.is_complex():
            break
    else:
        return
    check_tensors(owner, **tensors)
    for name, value in tensors.items():
        if value.is_complex():
            raise NotImplementedError(
                f"{owner}: {name} must hold real numbers, got {value.dtype}; "
                "torch.view_as_real gives its two parts"
            )


def check_floating(owner: str, **tensors: Any) -> None:
    """Raise TypeError for an argument that is no tensor, NotImplementedError for other dtypes."""
    for value in tensors.values():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            break
    else:
        return
    check_real(owner, **tensors)
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise NotImplementedError(
                f"{owner}: {name} must be floating-point, got {value.dtype}; write {name}.float()"
            )


def common_size(owner: str, **tensors: torch.Tensor) -> torch.Size:
    """The size that the arguments broadcast to; RuntimeError if there is none."""
    shapes = [t.shape for t in tensors.values()]
    if shapes.count(shapes[0]) == len(shapes):
        return shapes[0]
    try:
        return torch.Size(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    except RuntimeError:
        sizes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise RuntimeError(
            f"{owner}: the sizes must broadcast to one, got {sizes}; reshape one of them"
        ) from None


def warn_of_sizes(owner: str, input: torch.Tensor, target: torch.Tensor) -> None:
    """Warn where the target broadcasts, such as [N, 1] to [N]: mostly a mistake."""
    if target.shape != input.shape:
        size = common_size(owner, input=input, target=target)
        warnings.warn(
            f"{owner}: Using a target size ({target.size()}) that is different to the input size "
            f"({input.size()}): they broadcast to {tuple(size)}; reshape one of them if that is "
            "not meant",
            stacklevel=3,
        )


def check_same_size(owner: str, input: torch.Tensor, target: torch.Tensor) -> None:
    """Raise ValueError for a target of another size than the input."""
    if target.shape != input.shape:
        raise ValueError(
            f"{owner}: target must have the input's size {tuple(input.shape)}, got "
            f"{tuple(target.shape)}; reshape or expand it"
        )


def threshold(owner: str, name: str, value: Any, allowed: Range) -> float:
    """The value as a number; RuntimeError, which torch raises here, where it is out of range."""
    try:
        return number(owner, name, value, allowed)
    except ValueError as error:
        raise RuntimeError(str(error)) from None


def readable(*tensors: torch.Tensor) -> bool:
    """Whether values can be read: not while operations are traced or transformed."""
    if is_watched():
        return False
    return not any(t.is_meta or type(t) not in PLAIN_TENSORS or is_wrapped(t) for t in tensors)


def has_nan(loss: torch.Tensor) -> bool:
    """Whether a loss contains NaN; False where values cannot be read.

    A formula returns NaN for an operand out of its range. So operands are checked only once their
    loss is NaN, and in the usual case no pass over them is needed.
    """
    if not readable(loss):
        return False
    total = loss if loss.ndim == 0 else loss.detach().sum()
    return math.isnan(total.item())
