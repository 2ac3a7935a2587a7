"""The formats that are dtypes of torch: one buffer, each element an entry of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from thalweg.engine.formats.base import Buffer, Format, Names


@dataclass(frozen=True)
class Plain(Format):
    """A dtype of torch.

    Attributes:
        load: expression for the value in ``compute`` type, of ``x``, what lies in memory.
        store: expression for what to lay in memory, of ``x``, a value of ``compute`` type.
    """

    load: str
    store: str

    @property
    def dtype(self) -> torch.dtype:
        return self.buffers[0].dtype

    @property
    def storage(self) -> str:
        """The kernel's type for what lies in memory."""
        return self.buffers[0].storage

    @property
    def itemsize(self) -> int:
        """Bytes per number."""
        return self.dtype.itemsize

    def load_lines(self, names: Names, value: str) -> list[str]:
        stored = names.entry(self.buffers[0])
        return [f"{value} = {self.load.format(x=stored, compute=names.compute)}"]

    def store_lines(self, names: Names, value: str) -> list[str]:
        return [f"{names.entry(self.buffers[0])} = {self.store.format(x=value)}"]

    def decode(self, buffers: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        (stored,) = buffers
        if stored.is_complex():
            stored = torch.view_as_real(stored.resolve_conj())
        return stored.to(dtype)

    def encode(self, value: torch.Tensor, buffers: Sequence[torch.Tensor], seed: int = 0) -> None:
        (stored,) = buffers
        (torch.view_as_real(stored) if stored.is_complex() else stored).copy_(value)

    def create(self, like: torch.Tensor, value: float) -> tuple[torch.Tensor, ...]:
        dtype = self.dtype
        if like.is_complex():
            if dtype not in _COMPLEX:
                raise TypeError(
                    f"format {self.name}: got a parameter of {like.dtype}, whose states need fp32 "
                    "or fp64"
                )
            dtype = _COMPLEX[dtype]
        stored = torch.zeros_like(like.detach(), dtype=dtype, memory_format=torch.preserve_format)
        if value:
            (torch.view_as_real(stored) if stored.is_complex() else stored).fill_(value)
        return (stored,)


FORMATS = {
    torch.float64: Plain("fp64", (Buffer(torch.float64),), "{x}", "{x}"),
    torch.float32: Plain("fp32", (Buffer(torch.float32),), "{compute}({x})", "float32({x})"),
    torch.bfloat16: Plain(
        "bf16",
        (Buffer(torch.bfloat16),),
        "{compute}(float32_of_bf16({x}))",
        "bf16_of_float32(float32({x}))",
    ),
    torch.float16: Plain(
        "fp16",
        (Buffer(torch.float16),),
        "{compute}(float32_of_fp16({x}))",
        "fp16_of_float32(float32({x}))",
    ),
}

# A complex tensor is its real and imaginary parts side by side, twice as many numbers.
REAL_PARTS = {torch.complex64: torch.float32, torch.complex128: torch.float64}
_COMPLEX = {real: whole for whole, real in REAL_PARTS.items()}


def format_of(dtype: torch.dtype) -> Plain | None:
    """The format of a dtype, or None where kernels do not know it."""
    return FORMATS.get(REAL_PARTS.get(dtype, dtype))
