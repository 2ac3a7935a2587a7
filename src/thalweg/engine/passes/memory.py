"""Whether a kernel may read a tensor's memory, and whether it may run at all.

A kernel reads and writes at addresses. What has no numbers of its own there (the tensors of
``torch.func``, of batched gradients, fake and functional ones, zeros that are not stored) must not
reach it; nor may it run where something records operations, since it is none.
"""

import torch

from thalweg.engine.layout import PLAIN_TENSORS
from thalweg.engine.torch_internals.modes import operations_are_watched
from thalweg.engine.torch_internals.tensors import in_memory_by_keys, missing_memory


def has_memory(tensor: torch.Tensor) -> bool:
    """Whether the numbers of a tensor lie in CPU memory, where its address and strides say."""
    if type(tensor) not in PLAIN_TENSORS:
        return False
    return _in_memory(tensor)


def _is_plain_by_functions(tensor: torch.Tensor) -> bool:
    if missing_memory(tensor) or not tensor.is_cpu or tensor.layout is not torch.strided:
        return False
    if tensor.is_neg() or tensor.is_conj() or tensor.is_quantized:
        return False
    return bool(tensor.data_ptr() or not tensor.numel())


_in_memory = in_memory_by_keys or _is_plain_by_functions


def is_watched() -> bool:
    """Whether operations are traced or transformed: a kernel would not be seen."""
    return torch.compiler.is_compiling() or operations_are_watched()
