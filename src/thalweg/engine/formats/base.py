"""What every format answers: how the values of an operand are stored, and how to get at them.

A format knows nothing of rules, and a rule nothing of formats; every operand has its own. A format
owns one or more *buffers* for each operand. Kernels load and store through the lines that it
prints, one element at a time or a *block* of elements together; other back ends go through tensors.
Both store the same bits.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

# The kernels' types for what lies in memory; they read 16-bit floats as their bits.
_STORAGE = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "uint16",
    torch.float16: "uint16",
    torch.int16: "int16",
    torch.int8: "int8",
    torch.uint8: "uint8",
}


@dataclass(frozen=True)
class Buffer:
    """One of the tensors that hold an operand.

    Attributes:
        dtype: of the tensor.
        suffix: "" for the main buffer, which has the parameter's shape and strides.
        elements: so many elements share one entry. Where it is above 1 the tensor is flat, and
            its entries follow the elements in the order of memory.
    """

    dtype: torch.dtype
    suffix: str = ""
    elements: int = 1

    @property
    def storage(self) -> str:
        """The kernel's type for an entry."""
        return _STORAGE[self.dtype]

    @property
    def itemsize(self) -> int:
        """Bytes of an entry."""
        return self.dtype.itemsize

    @property
    def bytes_per_element(self) -> float:
        """Bytes of an entry, shared among its elements."""
        return self.itemsize if self.elements == 1 else self.itemsize / self.elements

    def name(self, operand: str) -> str:
        """What the buffer of an operand is called in the parameter's state: ``exp_avg_scale``."""
        return f"{operand}_{self.suffix}" if self.suffix else operand

    def empty_like(self, like: torch.Tensor) -> torch.Tensor:
        """A new buffer for an operand of this tensor's shape and layout; its values are any."""
        if self.elements == 1:
            return torch.empty_like(like, dtype=self.dtype, memory_format=torch.preserve_format)
        entries = -(-like.numel() // self.elements)
        return torch.empty(entries, dtype=self.dtype, device=like.device)


@dataclass(frozen=True)
class Names:
    """What the lines of a format may refer to, and the prefix of the variables they make.

    Attributes:
        own: the prefix; it differs between the operands of a kernel.
        compute: the type that the kernel computes in.
        pointers: by suffix, the pointer to a buffer's entry of the chunk's first element.
        index: the element, counted from the chunk's first.
        first: the block's first element, counted likewise.
        element: the element, counted from the tensor's first, however the tensor is cut up.
        seed: an integer below 2^32 that differs between steps, tensors and operands.
    """

    own: str
    compute: str
    pointers: Mapping[str, str]
    index: str
    first: str
    element: str
    seed: str

    def entry(self, buffer: Buffer) -> str:
        """The entry of a buffer that belongs to the element."""
        return self._entry(buffer, self.index)

    def block_entry(self, buffer: Buffer) -> str:
        """The entry of a buffer that belongs to the block's first element."""
        return self._entry(buffer, self.first)

    def _entry(self, buffer: Buffer, index: str) -> str:
        place = index if buffer.elements == 1 else f"{index} // {buffer.elements}"
        return f"{self.pointers[buffer.suffix]}[{place}]"


@dataclass(frozen=True)
class Format(ABC):
    """One way of storing an operand.

    Attributes:
        name: ``fp32``, ``bf16``, ...
        buffers: the main one first.
        block: elements that are stored together. Their values are all known before the first of
            them is stored. A multiple of every buffer's ``elements``; for kernels it divides 4096.
        seeded: whether storing draws random numbers.
        uses: what the lines call beyond the header of a kernel: kinds of integers, by their names,
            and functions of ``intrinsics.py``.

    Raises:
        ValueError: blocks would share an entry of a buffer.
    """

    name: str
    buffers: tuple[Buffer, ...]
    block: int = field(default=1, kw_only=True)
    seeded: bool = field(default=False, kw_only=True)
    uses: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        for buffer in self.buffers:
            if self.block < 1 or self.block % buffer.elements:
                raise ValueError(
                    f"format {self.name}: got block={self.block}, and {buffer.elements} elements "
                    "share an entry of a buffer; the block must be a multiple of them, or two "
                    "blocks would store into one entry"
                )

    @property
    def bytes_per_element(self) -> float:
        """Bytes of memory for each element of the operand, over all buffers."""
        return sum(b.bytes_per_element for b in self.buffers)

    # ------------------------------------------------------------------ lines of a kernel
    # Those that have a block or values to see are asked for only where the block is above 1.

    @abstractmethod
    def load_lines(self, names: Names, value: str) -> list[str]:
        """Lines that set the variable ``value`` to the element, in the compute type."""

    @abstractmethod
    def store_lines(self, names: Names, value: str) -> list[str]:
        """Lines that store the expression ``value`` as the element."""

    def load_block_lines(self, names: Names) -> list[str]:
        """Lines that come before the elements of a block are loaded."""
        return []

    def begin_block_lines(self, names: Names) -> list[str]:
        """Lines that come before the values of a block are computed, where it will be stored."""
        return []

    def see_lines(self, names: Names, value: str) -> list[str]:
        """Lines that see the value of an element, each of a block before any is stored."""
        return []

    def end_block_lines(self, names: Names) -> list[str]:
        """Lines that come when all values of a block were seen, before the first is stored."""
        return []

    # ------------------------------------------------------------------ tensors

    @abstractmethod
    def decode(self, buffers: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """The operand's values, computed in ``dtype``; a complex operand's as real numbers."""

    @abstractmethod
    def encode(self, value: torch.Tensor, buffers: Sequence[torch.Tensor], seed: int = 0) -> None:
        """Store values into the buffers, as a kernel with this seed stores them.

        Args:
            value: in the dtype of the computation, of the shape that :meth:`decode` gives.
            buffers: the operand's, in the order of :attr:`buffers`.
            seed: for a seeded format, the tensor's integer for this step, below 2^32, XORed with
                the operand's :func:`salt`.
        """

    def create(self, like: torch.Tensor, value: float) -> tuple[torch.Tensor, ...]:
        """New buffers of an operand that is ``value`` everywhere, laid out like a parameter."""
        like = like.detach()
        buffers = tuple(buffer.empty_like(like) for buffer in self.buffers)
        compute = getattr(torch, compute_type([self]))
        self.encode(torch.full_like(like, value, dtype=compute), buffers)
        return buffers


def compute_type(formats: Iterable[Format]) -> str:
    """float64 if any operand is stored so, else float32."""
    wide = any(buffer.dtype is torch.float64 for f in formats for buffer in f.buffers)
    return "float64" if wide else "float32"


def buffers_of(
    operands: Sequence[str], formats: Mapping[str, Format]
) -> tuple[tuple[str, Buffer], ...]:
    """Every operand's buffers, in the order in which kernels find their addresses.

    The main buffers come first, in the order of the operands: so an operand's place is that of its
    main buffer.

    Raises:
        ValueError: two buffers would have one name.
    """
    main = [(operand, formats[operand].buffers[0]) for operand in operands]
    rest = [(operand, b) for operand in operands for b in formats[operand].buffers[1:]]
    owners: dict[str, str] = {}
    for operand, buffer in (*main, *rest):
        name = buffer.name(operand)
        if name in owners:
            raise ValueError(
                f"operand {operand!r} in format {formats[operand].name} has a buffer {name!r}, "
                f"and so has operand {owners[name]!r}: rename one of the states"
            )
        owners[name] = operand
    return (*main, *rest)


def salt(operand: str) -> int:
    """What a tensor's seed is XORed with for an operand, so that no two draw the same numbers."""
    return zlib.crc32(operand.encode())
