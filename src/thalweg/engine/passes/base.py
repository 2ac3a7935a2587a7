"""What passes share: a kernel's arguments, kept from call to call.

An optimizer step updates thousands of tensors by a plan that it keeps. A loss is called on a few
tensors, other ones each time, so the duration of a call is what counts: all that does not change
from call to call is in an argument block already.
"""

import ctypes
import struct
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch

from thalweg.engine.backends.cpu import threads
from thalweg.engine.backends.cpu.kernel import Kernel

KEPT_KEYS = 64  # a pass keeps the blocks of so many

Key = TypeVar("Key")
Found = TypeVar("Found")


class ArgumentBlock(ABC, Generic[Found]):
    """A kernel and memory for its arguments, each an int64 or a float64; one call at a time.

    Args:
        kernel: the kernel.
        size: the number of arguments.
        most_threads: more threads would have no work.

    Attributes:
        arguments: the memory. The first is the ticket that threads draw.
        address: where it begins.
    """

    def __init__(self, kernel: Kernel, size: int, most_threads: int) -> None:
        self.kernel = kernel
        self.most_threads = most_threads
        self.arguments = (ctypes.c_int64 * size)()
        self.address = ctypes.addressof(self.arguments)

    @abstractmethod
    def found(self) -> Found:
        """What the kernel has found, read out of the block."""


class Pass(ABC, Generic[Key, Found]):
    """A program that is called on tensors again and again.

    Args:
        changing: the arguments written at each call, in the notation of :mod:`struct`.
        place: where these begin among the arguments.
    """

    def __init__(self, changing: str, place: int) -> None:
        self._write = struct.Struct(f"={changing}").pack_into
        self._offset = 8 * place
        self._free: dict[Key, list[ArgumentBlock[Found]]] = {}

    @abstractmethod
    def _new_block(self, key: Key) -> ArgumentBlock[Found]:
        """A block for a key, which decides all arguments that do not change."""

    def run(self, key: Key, *changing: float) -> Found:
        """Write the arguments that change, call the kernel, and return what it has found."""
        # A block belongs to one call at a time: other threads, and destructors that run during a
        # call, get another one.
        try:
            free = self._free[key]
        except KeyError:
            if len(self._free) >= KEPT_KEYS:
                self._free.clear()
            free = self._free[key] = []
        try:
            block = free.pop()
        except IndexError:
            block = self._new_block(key)
        self._write(block.arguments, self._offset, *changing)
        block.arguments[0] = 0
        most = block.most_threads
        if most > 1:
            most = min(most, torch.get_num_threads())
        threads.run(block.kernel, block.address, most)
        found = block.found()
        free.append(block)
        return found
