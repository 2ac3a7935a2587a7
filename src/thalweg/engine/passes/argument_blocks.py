"""Argument blocks of kernels, kept from call to call.

An optimizer step updates thousands of tensors by a plan that it keeps. A loss is called on a few
tensors, other ones each time, so the duration of a call is what counts: all that does not change
from call to call is in the block already.
"""

import ctypes
import struct
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from thalweg.engine.backends.cpu import threads
from thalweg.engine.backends.cpu.printer import Kernel

KEPT_KEYS = 64  # of so many a pool keeps the blocks
_TICKET = 0  # the place of the number that threads draw


class ArgumentBlock:
    """Memory for the arguments of one call at a time, each an int64 or a float64.

    Args:
        size: the number of arguments.

    Attributes:
        arguments: the memory.
        address: where it begins.
        most_threads: more threads would have no work; set by the subclass.
    """

    most_threads: int

    def __init__(self, size: int) -> None:
        self.arguments = (ctypes.c_int64 * size)()
        self.address = ctypes.addressof(self.arguments)


Key = TypeVar("Key")
Block = TypeVar("Block", bound=ArgumentBlock)


class ArgumentBlocks(Generic[Key, Block]):
    """The blocks of one pass that no call is using.

    A block belongs to one call at a time: other threads, and destructors that run during a call,
    get another one.

    Args:
        make: makes a block for a key: what decides the arguments that do not change.
        changing: the arguments written at each call, in the notation of :mod:`struct`.
        place: where these begin among the arguments.
    """

    def __init__(self, make: Callable[[Key], Block], changing: str, place: int) -> None:
        self._make = make
        self._write = struct.Struct(f"={changing}").pack_into
        self._offset = 8 * place
        self._free: dict[Key, list[Block]] = {}

    def run(self, kernel: Kernel, key: Key, *changing: float) -> Block:
        """Call the kernel and wait for it.

        Returns:
            The block, with what the kernel has written; hand it to :meth:`give_back`.
        """
        try:
            block = self._free[key].pop()
        except LookupError:
            block = self._make(key)
        self._write(block.arguments, self._offset, *changing)
        block.arguments[_TICKET] = 0
        most = block.most_threads
        if most > 1:
            most = min(most, torch.get_num_threads())
        threads.run(kernel, block.address, most)
        return block

    def give_back(self, key: Key, block: Block) -> None:
        """Keep a block for the next call with this key."""
        free = self._free.get(key)
        if free is not None:
            free.append(block)
            return
        if len(self._free) >= KEPT_KEYS:
            self._free.clear()
        self._free[key] = [block]
