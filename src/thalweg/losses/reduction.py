"""What the losses share: their reductions, the checks of their tensors, the base of the modules."""

import math
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from thalweg.engine.layout import PLAIN_TENSORS
from thalweg.engine.passes.elementwise import autocast_is_on, is_wrapped
from thalweg.ranges import Range, number

REDUCTIONS = ("none", "mean", "sum")


def chosen_reduction(
    owner: str,
    reduction: str,
    size_average: bool | None = None,
    reduce: bool | None = None,
    known: tuple[str, ...] = REDUCTIONS,
) -> str:
    """The reduction meant by today's argument and the two that it has replaced.

    Warns of the older ones, which win where they are given, and of the older name of "mean".

    Raises:
        ValueError: the reduction is none of those known.

    >>> chosen_reduction("mse_loss", "sum")
    'sum'
    """
    if size_average is not None or reduce is not None:
        return legacy_reduction(owner, size_average, reduce, stacklevel=4)
    if reduction in known:
        return reduction
    if reduction == "elementwise_mean":
        warnings.warn(
            f"{owner}: reduction='elementwise_mean' is deprecated; write reduction='mean'",
            stacklevel=3,
        )
        return "mean"
    raise ValueError(
        f"{owner}: reduction must be one of {', '.join(map(repr, known))}, got {reduction!r}"
    )


def legacy_reduction(
    owner: str, size_average: bool | None, reduce: bool | None, stacklevel: int
) -> str:
    """The reduction that the two older arguments stand for; None means True."""
    if reduce is not None and not reduce:
        meant = "none"
    else:
        meant = "sum" if size_average is not None and not size_average else "mean"
    warnings.warn(
        f"{owner}: size_average and reduce are deprecated; write reduction={meant!r}",
        stacklevel=stacklevel,
    )
    return meant


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
    """Warn of a target that broadcasts: mostly a mistake, [N, 1] against [N] say."""
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
    """The value as a number; RuntimeError, as torch has it, where it is out of its range."""
    try:
        return number(owner, name, value, allowed)
    except ValueError as error:
        raise RuntimeError(str(error)) from None


def readable(*tensors: torch.Tensor) -> bool:
    """Whether the values can be looked at: not where a compiler or ``torch.func`` goes through."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return not any(t.is_meta or is_wrapped(t) or type(t) not in PLAIN_TENSORS for t in tensors)


def has_nan(loss: torch.Tensor) -> bool:
    """Whether a loss holds NaN; False where values cannot be asked for.

    Formulas make NaN of operands out of their range, which are then looked for: no pass over the
    operands is needed to see that there are none.
    """
    if not readable(loss):
        return False
    total = loss if loss.ndim == 0 else loss.detach().sum()
    return math.isnan(total.item())


def in_float32_under_autocast(
    tensors: list[torch.Tensor], composed: bool = False
) -> list[torch.Tensor]:
    """The operands of a loss as ``torch.autocast`` has them, where it is on: 16 bits as float32.

    The gradients come back in the operands' own dtypes.

    Args:
        tensors: the operands, on one device.
        composed: torch makes this loss of other operations. Those are not on the list of what
            autocast has in float32 on the CPU, where it leaves the loss as it is.

    >>> x = torch.zeros(2, dtype=torch.bfloat16)
    >>> with torch.autocast("cpu"):
    ...     in_float32_under_autocast([x])[0].dtype
    torch.float32
    """
    if not autocast_is_on():
        return tensors
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device) or (composed and device == "cpu"):
        return tensors
    return [t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors]


def weighted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The formula times the operand ``weight``, where that is given."""

    @wraps(function)
    def formula(x: Any, y: Any, h: Any, weight: Any = None, **others: Any) -> Any:
        value = function(x, y, h, **others)
        return value if weight is None else value * weight

    return formula


class Loss(torch.nn.Module):
    """A loss as a module: it holds the reduction.

    Args:
        size_average: deprecated, in favour of reduction.
        reduce: likewise.
        reduction: "none", "mean" or "sum"; checked when the module is called.
    """

    reduction: str

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if size_average is not None or reduce is not None:
            reduction = legacy_reduction(type(self).__name__, size_average, reduce, stacklevel=3)
        self.reduction = reduction


class WeightedLoss(Loss):
    """A loss with a weight, which is a buffer.

    Args:
        weight: the factor of each element; it broadcasts.
        size_average: see :class:`Loss`.
        reduce: likewise.
        reduction: likewise.
    """

    weight: torch.Tensor | None

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
