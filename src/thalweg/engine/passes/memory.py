"""Whether a kernel may read a tensor's memory, and whether it may run at all.

A kernel reads and writes at addresses. What has no numbers of its own there (the tensors of
``torch.func``, of batched gradients, fake and functional ones, zeros that are not stored) must not
reach it; nor may it run where something records operations, since it is none.
"""

import torch

from thalweg.engine.layout import PLAIN_TENSORS
from thalweg.engine.torch_internals import key_sets, missing_memory

# Tensors in CPU memory, outside of inference mode and made within.
_IN_MEMORY = key_sets(
    ("CPU", "ADInplaceOrView", "AutogradCPU", "AutocastCPU"), ("CPU", "AutocastCPU")
)
# What every thread has; the tracer, dispatch modes, ``torch.func`` and batched gradients add more.
_ALWAYS = key_sets(("BackendSelect", "ADInplaceOrView"))


def has_memory(tensor: torch.Tensor) -> bool:
    """Whether the numbers of a tensor lie in CPU memory, where its address and strides say."""
    if type(tensor) not in PLAIN_TENSORS:
        return False
    if _IN_MEMORY is None:
        return _is_plain_by_functions(tensor)
    return torch._C._dispatch_keys(tensor).raw_repr() in _IN_MEMORY


def _is_plain_by_functions(tensor: torch.Tensor) -> bool:
    if missing_memory(tensor) or not tensor.is_cpu or tensor.layout is not torch.strided:
        return False
    if tensor.is_neg() or tensor.is_conj() or tensor.is_quantized:
        return False
    return bool(tensor.data_ptr() or not tensor.numel())


def is_watched() -> bool:
    """Whether operations are traced or transformed: a kernel would not be seen."""
    if torch.compiler.is_compiling():
        return True
    if _ALWAYS is None:
        return (
            torch._C._are_functorch_transforms_active()
            or torch._C._get_tracing_state() is not None
            or torch._C._len_torch_dispatch_stack() > 0
        )
    return bool(torch._C._dispatch_tls_local_include_set().raw_repr() & ~_ALWAYS[0])
