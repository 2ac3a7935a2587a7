"""Formats that exist for tests: two buffers and a block, two buffers, random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.engine.formats import Buffer, Format, Names

ROUND = 1.5 * 2.0**23  # added and subtracted, it rounds a small float32 to an integer, ties to even


class Integers(Format):
    """Whole numbers, as an integer dtype of torch."""

    def load_lines(self, names: Names, value: str) -> list[str]:
        return [f"{value} = {names.compute}({names.entry(self.buffers[0])})"]

    def store_lines(self, names: Names, value: str) -> list[str]:
        stored = self.buffers[0]
        return [f"{names.entry(stored)} = {stored.storage}({value})"]

    def decode(self, buffers: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        return buffers[0].to(dtype)

    def encode(self, value: Tensor, buffers: Sequence[Tensor], seed: int = 0) -> None:
        buffers[0].copy_(value)


class Blockwise(Format):
    """8 bits an element and a float32 scale a block: finite values in float32 only."""

    def load_block_lines(self, names: Names) -> list[str]:
        return [f"{names.own}scale = {names.block_entry(self.buffers[1])}"]

    def load_lines(self, names: Names, value: str) -> list[str]:
        return [f"{value} = float32({names.entry(self.buffers[0])}) * {names.own}scale"]

    def begin_block_lines(self, names: Names) -> list[str]:
        return [f"{names.own}largest = zero"]

    def see_lines(self, names: Names, value: str) -> list[str]:
        return [f"{names.own}largest = larger_of({names.own}largest, abs({value}))"]

    def end_block_lines(self, names: Names) -> list[str]:
        largest = f"{names.own}largest"
        return [
            f"{names.block_entry(self.buffers[1])} = {largest} / float32(127)",
            f"{names.own}inverse = float32(127) / {largest} if {largest} > zero else zero",
        ]

    def store_lines(self, names: Names, value: str) -> list[str]:
        rounded = f"{value} * {names.own}inverse + float32({ROUND}) - float32({ROUND})"
        return [f"{names.entry(self.buffers[0])} = int8({rounded})"]

    def decode(self, buffers: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        codes, scales = buffers
        value = torch.empty_like(codes, dtype=dtype)
        each = scales.repeat_interleave(self.block)[: codes.numel()]
        in_memory(value).copy_(in_memory(codes).to(dtype) * each)
        return value

    def encode(self, value: Tensor, buffers: Sequence[Tensor], seed: int = 0) -> None:
        codes, scales = buffers
        flat = in_memory(value)
        whole = flat.new_zeros(len(scales) * self.block)
        whole[: len(flat)] = flat
        largest = whole.view(-1, self.block).abs().amax(1)
        inverse = torch.where(largest > 0, 127 / largest, 0.0)
        scales.copy_(largest / 127)
        each = inverse.repeat_interleave(self.block)[: len(flat)]
        in_memory(codes).copy_((flat * each).round())


class Split(Format):
    """The nearest bfloat16, and the nearest to what is missing."""

    def load_lines(self, names: Names, value: str) -> list[str]:
        high, low = (f"float32_of_bf16({names.entry(b)})" for b in self.buffers)
        return [f"{value} = {names.compute}({high} + {low})"]

    def store_lines(self, names: Names, value: str) -> list[str]:
        high = f"{names.own}high"
        rest = f"float32({value}) - float32_of_bf16({high})"
        return [
            f"{high} = bf16_of_float32(float32({value}))",
            f"{names.entry(self.buffers[0])} = {high}",
            f"{names.entry(self.buffers[1])} = bf16_of_float32({rest})",
        ]

    def decode(self, buffers: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        high, low = buffers
        return (high.float() + low.float()).to(dtype)

    def encode(self, value: Tensor, buffers: Sequence[Tensor], seed: int = 0) -> None:
        high, low = buffers
        high.copy_(value)
        low.copy_(value.float() - high.float())


class Stochastic(Format):
    """bfloat16, rounded up as often as the value is near the upper neighbour: finite values only.

    The hash is lowbias32 of C. Wellons's "Prospecting for hash functions" (2018).
    """

    def load_lines(self, names: Names, value: str) -> list[str]:
        return [f"{value} = {names.compute}(float32_of_bf16({names.entry(self.buffers[0])}))"]

    def store_lines(self, names: Names, value: str) -> list[str]:
        x = [f"{names.own}hash{k}" for k in range(3)]
        bits = f"bits_of_float32(float32({value}))"
        return [
            f"{x[0]} = uint32({names.seed} + {names.element} * 0x9E3779B9)",
            f"{x[1]} = uint32(({x[0]} ^ ({x[0]} >> 16)) * 0x7FEB352D)",
            f"{x[2]} = uint32(({x[1]} ^ ({x[1]} >> 15)) * 0x846CA68B)",
            f"{names.entry(self.buffers[0])} = uint16(({bits} + ({x[2]} >> 16)) >> 16)",
        ]

    def decode(self, buffers: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        return buffers[0].to(dtype)

    def encode(self, value: Tensor, buffers: Sequence[Tensor], seed: int = 0) -> None:
        flat = in_memory(value.float()).view(torch.int32)
        x = seed + torch.arange(len(flat)) * 0x9E3779B9 & 0xFFFFFFFF
        x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
        x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
        # Shifted arithmetically, the sign stays where it is.
        rounded = (flat + (x >> 16).to(torch.int32)) >> 16
        in_memory(buffers[0]).view(torch.int16).copy_(rounded)


def integers(dtype: torch.dtype) -> Integers:
    stored = Buffer(dtype)
    return Integers(stored.storage, (stored,), uses=(stored.storage,))


def blockwise(block: int) -> Blockwise:
    buffers = Buffer(torch.int8), Buffer(torch.float32, "scale", block)
    return Blockwise(f"q8x{block}", buffers, block=block, uses=("int8", "larger_of"))


SPLIT = Split("bf16x2", (Buffer(torch.bfloat16), Buffer(torch.bfloat16, "low")))
STOCHASTIC = Stochastic(
    "bf16s",
    (Buffer(torch.bfloat16),),
    seeded=True,
    uses=("bits_of_float32", "uint16", "uint32"),
)
SAMPLES = (blockwise(256), blockwise(64), SPLIT, STOCHASTIC)


def in_memory(tensor: Tensor) -> Tensor:
    """The elements of a dense tensor in the order of memory."""
    return tensor.as_strided((tensor.numel(),), (1,))
