"""How units read operands as numbers and write them back."""

import torch


def real_parts(tensor: torch.Tensor) -> torch.Tensor:
    """A complex tensor as its real and imaginary parts, a view unless it is lazily conjugated."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def load(stored: torch.Tensor, compute: torch.dtype) -> torch.Tensor:
    """An operand's numbers in the dtype of arithmetic, in memory of their own."""
    return real_parts(stored).to(compute, copy=True)


def store(stored: torch.Tensor, value: torch.Tensor) -> None:
    """Round numbers to what an operand is stored in."""
    stored.copy_(torch.view_as_complex(value) if stored.is_complex() else value)


def fill(stored: torch.Tensor, number: float) -> None:
    """Let every number of an operand be this one."""
    store(stored, torch.full_like(real_parts(stored), number))
