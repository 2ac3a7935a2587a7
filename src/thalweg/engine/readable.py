"""Whether the numbers of a tensor can be read: what comes from a file or a caller is asked first.

Neither torch's operations nor kernels look whether a sparse tensor's indices lie within its shape,
or whether its storage still holds its elements.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from thalweg.engine.layout import PLAIN_TENSORS
from thalweg.engine.torch_internals import is_fake, is_of_transform

_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def unreadable(tensor: Tensor) -> str | None:
    """What keeps a tensor's numbers from being read, for a message; None if nothing does.

    Its work is bounded by the memory of the tensor, whatever shape that claims to have.

    >>> unreadable(torch.ones(2)), unreadable(torch.ones(2, device="meta"))
    (None, 'is on the meta device, without numbers')
    """
    if type(tensor) not in PLAIN_TENSORS and _is_hollow(tensor):
        return f"is a {type(tensor).__name__}, without numbers"
    if tensor.is_meta:
        return "is on the meta device, without numbers"
    if tensor.is_nested:
        return "is nested"
    if type(tensor) not in PLAIN_TENSORS:
        return None
    if is_of_transform(tensor):
        return "stands for other tensors, within a transform of torch.func"
    if tensor.layout is torch.strided:
        return _strided(tensor)
    if tensor.layout is torch.sparse_coo or tensor.layout in _COMPRESSED:
        return _sparse(tensor)
    return f"is of layout {tensor.layout}"


def _is_hollow(tensor: Tensor) -> bool:
    """Whether a tensor of another class is known to have no numbers."""
    return is_lazy(tensor) or is_fake(tensor)


def _strided(tensor: Tensor) -> str | None:
    if tensor._is_zerotensor() or not tensor.numel():
        return None
    if tensor.is_quantized and overlaps(tensor):
        return "is quantized and expanded"
    held = tensor.untyped_storage().nbytes()
    elements = tensor.numel() if tensor.is_contiguous() else span(tensor)
    needed = (tensor.storage_offset() + elements) * tensor.itemsize
    return f"needs {needed} bytes of a storage of {held}" if needed > held else None


def _sparse(tensor: Tensor) -> str | None:
    compressed = tensor.layout in _COMPRESSED
    parts = (*_indices(tensor), tensor.values() if compressed else tensor._values())
    for part in parts:
        if part.is_meta:
            return "is sparse, without numbers"
        if (problem := _strided(part)) is not None:
            return f"is sparse, and a part of it {problem}"
        if overlaps(part):
            return "is sparse, and a part of it is expanded"
    make: Any = torch.sparse_compressed_tensor if compressed else torch.sparse_coo_tensor
    also = {"layout": tensor.layout} if compressed else {"is_coalesced": tensor.is_coalesced()}
    size, device = tuple(tensor.shape), tensor.device
    try:
        make(*parts, size, dtype=tensor.dtype, device=device, check_invariants=True, **also)
    except (RuntimeError, ValueError) as error:
        return f"is sparse, and no sound tensor: {str(error).splitlines()[0]:.200}"
    return None


def _indices(tensor: Tensor) -> tuple[Tensor, ...]:
    if tensor.layout is torch.sparse_coo:
        return (tensor._indices(),)
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices()
    return tensor.ccol_indices(), tensor.row_indices()


def is_plain(tensor: Tensor) -> bool:
    """Whether copying its numbers runs nobody's code and cannot fail, if they are readable."""
    return (
        type(tensor) in PLAIN_TENSORS
        and tensor.layout is torch.strided
        and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)
    )


def span(tensor: Tensor) -> int:
    """Elements from the first to the last of a strided tensor in its memory."""
    if not tensor.numel():
        return 0
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in pairs)


def overlaps(tensor: Tensor) -> bool:
    """Whether a strided tensor has more elements than memory, as one of ``expand`` has."""
    return tensor.numel() > span(tensor)


def memory_of(tensor: Tensor) -> Tensor:
    """The elements of a strided tensor, each once, where it has more than its memory.

    >>> memory_of(torch.ones(2, 1).expand(2, 1000)).shape
    torch.Size([2])
    """
    if not overlaps(tensor):
        return tensor
    return tensor.as_strided((span(tensor),), (1,), tensor.storage_offset())
