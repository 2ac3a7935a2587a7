"""Asking thousands of tensors where they are, through C functions that torch exports.

From Python, ``p.grad``, ``data_ptr()``, ``stride()`` and a version bump cost 0.1 µs or more each:
for a thousand small parameters several times what their update costs. libtorch exports a stable C
interface (``aoti_torch_get_*``) and the symbols of three more functions; a compiled loop over them
answers in a few nanoseconds each. Where a symbol is missing, or ``THALWEG_NATIVE=0`` is set, the
same questions are asked from Python.
"""

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from thalweg.engine import cache, cpu
from thalweg.engine.layout import Integers

# In the order of the reader's arguments 10 to 19. The first is c10's `TensorImpl::grad() const`.
_FUNCTIONS = (
    ("c10", "_ZNK3c1010TensorImpl4gradEv"),
    ("torch_cpu", "aoti_torch_is_defined"),
    ("torch_cpu", "_ZN2at4_ops6is_neg4callERKNS_6TensorE"),
    ("torch_cpu", "aoti_torch_get_data_ptr"),
    ("torch_cpu", "aoti_torch_get_dtype"),
    ("torch_cpu", "aoti_torch_get_layout"),
    ("torch_cpu", "aoti_torch_get_device_type"),
    ("torch_cpu", "aoti_torch_get_dim"),
    ("torch_cpu", "aoti_torch_get_sizes"),
    ("torch_cpu", "aoti_torch_get_strides"),
)
_BUMP_VERSION = ("torch_cpu", "_ZN5torch8autograd4impl12bump_versionERKN2at6TensorE")
_DTYPES = {
    torch.float32: 6,
    torch.float64: 7,
    torch.float16: 5,
    torch.bfloat16: 15,
}  # at::ScalarType

_tensor_impl = attrgetter("_cdata")


@dataclass(frozen=True)
class Library:
    """The compiled loops and the addresses of torch's functions that they call."""

    functions: tuple[int, ...]
    bump_version: int
    read: Callable[[int], int]
    bump: Callable[[int, int, int], None]


@functools.cache
def library() -> Library | None:
    """What is needed, or None where torch does not export it."""
    if os.environ.get("THALWEG_NATIVE") == "0":
        return None
    functions = [_address(*name) for name in (*_FUNCTIONS, _BUMP_VERSION)]
    if not all(functions):
        return None
    source = Path(__file__).with_name("_reader.py").read_text(encoding="utf-8")
    generated = cache.keep("reader", source, also=cpu.intrinsics_hash())
    # These hold the GIL: no other thread may free a gradient while its address is read.
    read = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(generated.address("read"))
    bump = ctypes.PYFUNCTYPE(None, *(3 * [ctypes.c_int64]))(generated.address("bump"))
    return Library(tuple(functions[:-1]), functions[-1], read, bump)


def _address(name: str, symbol: str) -> int:
    folder = Path(torch.__file__).parent / "lib"
    for path in folder.glob(f"lib{name}.*"):
        try:
            function = getattr(ctypes.CDLL(str(path)), symbol)
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


class Reader:
    """Reads the addresses of one unit's tensors.

    Args:
        lib: the compiled loops.
        params: the parameters; kept alive by the caller, as are the states.
        states: their states, column by column.
        addresses: ``[p, g, states...] x tensors``; rows other than g are what is expected.
        gradient: the gradients' dtype.
    """

    def __init__(
        self,
        lib: Library,
        params: Sequence[torch.Tensor],
        states: Sequence[torch.Tensor],
        addresses: Integers,
        gradient: torch.dtype,
    ) -> None:
        self._library = lib
        self._params = params
        self._cells = _cells(params)
        self._state_cells = _cells(states)
        dims = [p.dim() for p in params]
        self._first = np.concatenate([[0], np.cumsum(dims)]).astype(np.int64)
        self._sizes = np.asarray([n for p in params for n in p.shape], dtype=np.int64)
        self._strides = np.asarray([n for p in params for n in p.stride()], dtype=np.int64)
        self._scratch = np.zeros(2, dtype=np.int64)
        arrays = [self._cells, self._state_cells, addresses, addresses[1:], self._first]
        arrays += [self._sizes, self._strides]
        self._arguments = np.asarray(
            [
                len(params),
                len(states) // len(params),
                *(array.ctypes.data for array in arrays),
                _DTYPES[gradient],
                *lib.functions,
                self._scratch.ctypes.data,
            ],
            dtype=np.int64,
        )
        self._address = self._arguments.ctypes.data

    def read(self) -> bool:
        """Fill in the gradients' addresses; False if any tensor is not as it was planned."""
        # A parameter's TensorImpl can be exchanged (torch.utils.swap_tensors).
        now = np.fromiter(map(_tensor_impl, self._params), np.int64, len(self._params))
        return bool((now == self._cells).all()) and self._library.read(self._address) == 0


class Versions:
    """Tells autograd that tensors were written; torch's own function, called for all at once."""

    def __init__(self, lib: Library | None, tensors: Sequence[torch.Tensor]) -> None:
        self._library = lib
        self._tensors = tensors
        self._cells = _cells(tensors)
        self._address = self._cells.ctypes.data

    def bump(self) -> None:
        """Count one write to each tensor."""
        if self._library is None:
            torch.autograd.graph.increment_version(self._tensors)
        else:
            self._library.bump(self._library.bump_version, self._address, len(self._tensors))


def _cells(tensors: Sequence[torch.Tensor]) -> Integers:
    return np.fromiter(map(_tensor_impl, tensors), np.int64, len(tensors))
