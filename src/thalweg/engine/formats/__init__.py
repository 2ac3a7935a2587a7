"""How an operand is stored: a load that converts up, a store that converts down.

A format knows nothing of rules, and a rule nothing of formats; every operand has its own.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Format:
    """One way of storing numbers.

    Attributes:
        name: ``fp32``, ``bf16``, ...
        itemsize: bytes per number.
        storage: the kernel's type for what lies in memory.
        load: expression for the value in ``compute`` type, of ``x``, what lies in memory.
        store: expression for what to lay in memory, of ``x``, a value of ``compute`` type.
    """

    name: str
    itemsize: int
    storage: str
    load: str
    store: str


FORMATS = {
    torch.float64: Format("fp64", 8, "float64", "{x}", "{x}"),
    torch.float32: Format("fp32", 4, "float32", "{compute}({x})", "float32({x})"),
    torch.bfloat16: Format(
        "bf16", 2, "uint16", "{compute}(float32_of_bf16({x}))", "bf16_of_float32(float32({x}))"
    ),
    torch.float16: Format(
        "fp16", 2, "uint16", "{compute}(float32_of_fp16({x}))", "fp16_of_float32(float32({x}))"
    ),
}

# A complex tensor is its real and imaginary parts side by side, twice as many numbers.
REAL_PARTS = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def format_of(dtype: torch.dtype) -> Format | None:
    """The format of a dtype, or None where kernels do not know it."""
    return FORMATS.get(REAL_PARTS.get(dtype, dtype))


def compute_type(formats: tuple[Format, ...]) -> str:
    """float64 if any operand is stored so, else float32."""
    return "float64" if any(f.name == "fp64" for f in formats) else "float32"
