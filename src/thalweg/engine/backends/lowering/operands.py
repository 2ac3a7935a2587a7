"""How units read operands as numbers and write them back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from thalweg.engine.formats import Format


def real_parts(tensor: torch.Tensor) -> torch.Tensor:
    """A complex tensor as its real and imaginary parts, a view unless it is lazily conjugated."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


@dataclass(frozen=True)
class Encoded:
    """An operand of one parameter that is stored in no plain format.

    Attributes:
        form: the format.
        buffers: the tensors that it is stored in.
        seed: what storing it draws random numbers from.
    """

    form: Format
    buffers: Sequence[torch.Tensor]
    seed: int = 0


def load(stored: torch.Tensor | Encoded, compute: torch.dtype) -> torch.Tensor:
    """An operand's numbers in the dtype of arithmetic, in memory of their own."""
    if isinstance(stored, Encoded):
        return stored.form.decode(stored.buffers, compute).clone()
    return real_parts(stored).to(compute, copy=True)


def store(stored: torch.Tensor | Encoded, value: torch.Tensor) -> None:
    """Round numbers to what an operand is stored in."""
    if isinstance(stored, Encoded):
        stored.form.encode(value, stored.buffers, stored.seed)
        return
    stored.copy_(torch.view_as_complex(value) if stored.is_complex() else value)


def spread(number: float | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A number for each of a tensor's numbers, without memory of their own."""
    real = real_parts(like)
    if not isinstance(number, torch.Tensor):
        number = real.new_full((), number, dtype=torch.float64 if real.is_cpu else torch.float32)
    return number.expand(real.shape)


def times(number: float | torch.Tensor, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A number times how many a tensor has; of one for each unit their sum over the tensor."""
    if not isinstance(number, torch.Tensor):
        return like.new_full((), number * real_parts(like).numel(), dtype=dtype)
    if number.ndim:
        return torch.sum(spread(number, like), dtype=dtype)
    return number.to(dtype) * real_parts(like).numel()


def fill(stored: torch.Tensor | Encoded, number: float) -> None:
    """Let every number of an operand be this one."""
    if isinstance(stored, Encoded):
        store(stored, torch.full_like(stored.form.decode(stored.buffers, torch.float32), number))
        return
    store(stored, torch.full_like(real_parts(stored), number))
