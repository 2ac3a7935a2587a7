"""Asking thousands of tensors where they are, through C functions that torch exports.

From Python, ``p.grad``, ``data_ptr()``, ``stride()`` and a version bump cost 0.1 µs or more each:
for a thousand small parameters several times what their update costs. libtorch exports a stable C
interface (``aoti_torch_get_*``) and the symbols of three more functions; a compiled loop over them
answers in a few nanoseconds each. Where a symbol is missing, or ``THALWEG_NATIVE=0`` is set, the
same questions are asked from Python.
"""

import ctypes
import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from thalweg.engine.backends.cpu import cache, threads
from thalweg.engine.backends.cpu.kernel import intrinsics_hash
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
    compare: int
    impl_offset: int | None  # of the TensorImpl's address in a tensor's Python object


@cache.once
def library() -> Library | None:
    """What is needed, or None where torch does not export it."""
    if os.environ.get("THALWEG_NATIVE") == "0":
        return None
    functions = [_address(*name) for name in (*_FUNCTIONS, _BUMP_VERSION)]
    if not all(functions):
        return None
    source = Path(__file__).with_name("_addresses.py").read_text(encoding="utf-8")
    generated = cache.keep("reader", source, also=intrinsics_hash())
    return Library(
        tuple(functions[:-1]),
        functions[-1],
        generated.address("read"),
        generated.address("bump"),
        generated.address("compare"),
        _impl_offset(),
    )


def _impl_offset() -> int | None:
    """Where the Python objects of tensors hold the address of their TensorImpl: found by looking.

    None if there is no such place, or more than one.
    """
    base = torch._C.TensorBase
    found: list[set[int]] = []
    for tensor in (torch.empty(0), torch.empty(1), torch.nn.Parameter(torch.empty(2))):
        words = (ctypes.c_int64 * (base.__basicsize__ // 8)).from_address(id(tensor))
        found.append({8 * k for k, word in enumerate(words) if word == tensor._cdata})
    places = set.intersection(*found)
    return places.pop() if len(places) == 1 else None


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
        values: the tensors to read in place of the parameters' gradients, if any.
    """

    def __init__(
        self,
        lib: Library,
        params: Sequence[torch.Tensor],
        states: Sequence[torch.Tensor],
        addresses: Integers,
        gradient: torch.dtype,
        values: Sequence[torch.Tensor] = (),
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
        pointers = [array.ctypes.data for array in self._arrays]
        cells = tensor_impls(values)
        self._arrays += [answers, cells]
        given = cells.ctypes.data if len(cells) else 0
        rest = [_DTYPES[gradient], *lib.functions, answers.ctypes.data, given]
        self._work.set([states_of_each, *pointers, *rest])

    def read(self) -> bool:
        """Fill in the gradients' addresses; False if any tensor is not as it was planned.

        The caller has made sure that the parameters are still the same tensors.
        """
        return self._work.run(self._read)


class Identities:
    """Which tensors there were: the Python objects, and the TensorImpl behind each.

    An attribute of a thousand tensors takes 70 µs to ask for, and a step asks each time; so the
    objects are compared as such, and compiled code reads the addresses that they hold. Of a tuple
    only the tuple is compared: what it holds cannot change.
    """

    def __init__(self, sequences: Iterable[Sequence[torch.Tensor]]) -> None:
        self._planned = [tuple(sequence) for sequence in sequences]
        tensors = list(chain.from_iterable(self._planned))
        self._impls = tensor_impls(tensors)
        lib = library()
        self._compare = lib.compare if lib and lib.impl_offset is not None else 0
        if lib and lib.impl_offset is not None:
            self._objects = np.fromiter(map(id, tensors), np.int64, len(tensors))
            self._work = _Work(len(tensors))
            arrays = [array.ctypes.data for array in (self._objects, self._impls)]
            self._work.set([*arrays, lib.impl_offset])

    def hold(self, sequences: Iterable[Sequence[torch.Tensor]]) -> bool:
        """Whether these are the same tensors with the same TensorImpls."""
        found = list(sequences)
        if not self._compare:
            return np.array_equal(tensor_impls(chain.from_iterable(found)), self._impls)
        return (
            len(found) == len(self._planned)
            and all(map(_same, found, self._planned))
            and self._work.run(self._compare)
        )


def _same(now: Sequence[torch.Tensor], before: tuple[torch.Tensor, ...]) -> bool:
    """Whether the objects are the same, one by one."""
    return now is before or (len(now) == len(before) and all(map(operator.is_, now, before)))


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
