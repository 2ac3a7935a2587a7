"""Where the numbers of a tensor lie."""

import numpy as np
import numpy.typing as npt
import torch

# Tensor types whose data_ptr() is where their elements are.
PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)

Strides = tuple[tuple[int, int], ...]
Integers = npt.NDArray[np.int64]


def memory_order(tensor: torch.Tensor) -> Strides:
    """(stride, size) of each dimension that has more than one element: equal means same layout."""
    return tuple(
        (stride, size)
        for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
        if size != 1
    )


def in_memory_order(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A view whose row-major order is that of the numbers of ``like`` in memory."""
    strides = like.stride()
    return tensor.permute(sorted(range(like.dim()), key=lambda d: -strides[d]))


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill one stretch of memory, each place once (in any order)."""
    if tensor.numel() == 0 or tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(memory_order(tensor)):
        if stride != expected:
            return False
        expected *= size
    return True
