"""Dtype, shape and memory order of operands, and whether kernels can read them."""

from collections.abc import Sequence

import torch

from thalweg.engine.formats import FORMATS
from thalweg.engine.layout import is_dense, memory_order
from thalweg.engine.passes.memory import has_memory, is_watched
from thalweg.engine.torch_internals.modes import autocast_is_on, computes_tangents
from thalweg.losses.evaluation.evaluator import Tensors

HALVES = (torch.float16, torch.bfloat16)


def have_kernel(values: Tensors) -> bool:
    """Whether one kernel can read all of these tensors: one shape, one dtype, plain memory."""
    shape = values[0].shape
    for v in values:
        if v.shape != shape:
            return False
    return are_plain(values)


def are_plain(values: Tensors) -> bool:
    """Whether kernels can read these tensors: one dtype, plain memory, whatever their shapes."""
    dtype = values[0].dtype
    if dtype not in FORMATS or not kernels_may_run():
        return False
    for v in values:
        if v.dtype is not dtype:
            return False
        if not has_memory(v):
            return False
    return True


def kernels_may_run() -> bool:
    """Whether a kernel can take the place of operations here."""
    # It computes no tangents.
    return not is_watched() and not computes_tangents()


def broadcast(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """The operands, expanded to the shape that they broadcast to."""
    first = values[0]
    if all(v.shape == first.shape for v in values):
        return values
    shape = torch.broadcast_shapes(*(v.shape for v in values))  # type: ignore[no-untyped-call]
    return [expanded(v, shape) for v in values]


def expanded(tensor: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The tensor in a size; itself where it has that.

    A negated view is written out: of one, torch's forward mode takes no views.
    """
    return tensor if tensor.shape == size else tensor.resolve_neg().expand(size)


def of_one_dtype(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """The operands in the dtype that the floating-point ones among them promote to.

    Where none is floating-point, it is torch's default dtype.
    """
    first = values[0]
    if all(v.dtype is first.dtype for v in values) and first.is_floating_point():
        return values
    dtype = torch.get_default_dtype()
    floating = [v.dtype for v in values if v.is_floating_point() or v.is_complex()]
    if floating:
        dtype = floating[0]
        for other in floating[1:]:
            dtype = torch.promote_types(dtype, other)
    return [v.to(dtype) for v in values]


def is_under_autocast(device: str) -> bool:
    """Whether ``torch.autocast`` is on for a type of device; there is none for some, as "meta"."""
    return (
        autocast_is_on()
        and torch.amp.is_autocast_available(device)
        and torch.is_autocast_enabled(device)
    )


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
    if not is_under_autocast(device) or (composed and device == "cpu"):
        return tensors
    return [t.float() if t.dtype in HALVES else t for t in tensors]


def in_one_memory_order(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """The operands with their elements in the same order in memory, without gaps."""
    order = memory_order(values[0])
    if is_dense(values[0]) and all(memory_order(v) == order for v in values):
        return values
    return [v.contiguous() for v in values]
