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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from thalweg.engine import cache, cpu, threads
from thalweg.engine.layout import Integers

# In the order of the reader's arguments 14 to 21. The first is c10's `TensorImpl::grad() const`.
_FUNCTIONS = (
    ("c10", "_ZNK3c1010TensorImpl4gradEv"),
    ("torch_cpu", "_ZN2at4_ops6is_neg4callERKNS_6TensorE"),
    ("torch_cpu", "aoti_torch_get_data_ptr"),
    ("torch_cpu", "aoti_torch_get_dtype"),
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

SPAN = 64  # tensors that a thread takes at a time
WORTH_A_THREAD = 4096  # tensors for which waking another thread pays

_tensor_impl = attrgetter("_cdata")


def tensor_impls(tensors: Iterable[torch.Tensor]) -> Integers:
    """The addresses of the tensors' TensorImpls: equal means the same tensors.

    Not ``id``: ``torch.utils.swap_tensors`` keeps a parameter and exchanges its TensorImpl.
    """
    return np.fromiter(map(_tensor_impl, tensors), np.int64)


@dataclass(frozen=True)
class Library:
    """The compiled loops and the addresses of torch's functions that they call."""

    functions: tuple[int, ...]
    bump_version: int
    read: int
    bump: int


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
    return Library(
        tuple(functions[:-1]),
        functions[-1],
        generated.address("read"),
        generated.address("bump"),
    )


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
        self._read = lib.read
        dims = [p.dim() for p in params]
        states_of_each = len(states) // len(params)
        self._arrays = [
            tensor_impls(params),
            tensor_impls(states),
            addresses,
            addresses[1:],
            np.concatenate([[0], np.cumsum(dims)]).astype(np.int64),
            np.asarray([n for p in params for n in p.shape], dtype=np.int64),
            np.asarray([n for p in params for n in p.stride()], dtype=np.int64),
        ]
        self._work = _Work(len(params))
        answers = np.zeros(8 * (self._work.spans + 1), dtype=np.int64)
        self._arrays.append(answers)
        pointers = [array.ctypes.data for array in self._arrays]
        self._work.set(
            [states_of_each, *pointers[:-1], _DTYPES[gradient], *lib.functions, pointers[-1]]
        )

    def read(self) -> bool:
        """Fill in the gradients' addresses; False if any tensor is not as it was planned.

        The caller has made sure that the parameters are still the same tensors.
        """
        return self._work.run(self._read)


class Versions:
    """Tells autograd that tensors were written; torch's own function, called for all at once."""

    def __init__(self, lib: Library | None, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = tensors
        self._bump = lib.bump if lib else 0
        self._cells = tensor_impls(tensors)
        self._work = _Work(len(tensors))
        self._work.set([self._cells.ctypes.data, lib.bump_version if lib else 0])

    def bump(self) -> None:
        """Count one write to each tensor."""
        if self._bump:
            self._work.run(self._bump)
        else:
            torch.autograd.graph.increment_version(self._tensors)


class _Work:
    """The arguments of a compiled loop over tensors, and calling it.

    The GIL is kept: no other thread may free a gradient while its address is read.
    """

    def __init__(self, tensors: int) -> None:
        self.tensors = tensors
        self.spans = -(-tensors // SPAN)

    def set(self, rest: Sequence[int]) -> None:
        """Lay the arguments out: ticket, failed, spans, span, tensors, and the loop's own."""
        self._arguments = np.asarray([0, 0, self.spans, SPAN, self.tensors, *rest], dtype=np.int64)
        self._address = self._arguments.ctypes.data

    def run(self, function: int) -> bool:
        """Call the loop; whether it found everything as planned."""
        self._arguments[:2] = 0
        wanted = min(torch.get_num_threads(), self.tensors // WORTH_A_THREAD)
        threads.run_holding_gil(function, self._address, wanted)
        return bool(self._arguments[1] == 0)
