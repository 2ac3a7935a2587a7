"""Asking thousands of tensors where they are, through C functions that torch exports.

From Python, ``p.grad``, ``data_ptr()``, ``stride()`` and a version bump cost 0.1 µs or more each:
for a thousand small parameters several times what their update costs. A compiled loop over torch's
own functions (see ``torch_internals/``) answers in a few nanoseconds each. Where one of them is
missing, the same questions are asked from Python.
"""

import ctypes
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from thalweg.engine import torch_internals
from thalweg.engine.backends.cpu import cache, threads
from thalweg.engine.backends.cpu.kernel import compiler_hash
from thalweg.engine.layout import Integers
from thalweg.engine.scalars import watched_one_by_one
from thalweg.engine.torch_internals import SCALAR_TYPES, ImplLayout, ListLayout, PlainKeys

SPAN = 256  # tensors that a thread takes at a time
FEW = 16  # tensors that Python compares as fast
WORTH_A_THREAD = 2048  # tensors for which waking another thread pays


@dataclass(frozen=True)
class Library:
    """The compiled loops, and what they must know of torch."""

    functions: dict[str, int]
    undefined: int
    impl_offset: int
    lists: ListLayout
    impls: ImplLayout | None
    keys: PlainKeys
    read: int
    at_once: int
    bump: int
    compare: int


@cache.once
def library() -> Library | None:
    """What is needed, or None where a part of it is missing."""
    functions = torch_internals.exported_functions()
    undefined = torch_internals.undefined_impl()
    impl_offset, lists = torch_internals.impl_offset(), torch_internals.list_layout()
    keys = torch_internals.plain_keys()
    if functions is None or undefined is None or keys is None:
        return None
    if impl_offset is None or lists is None:
        return None
    source = Path(__file__).with_name("_addresses.py").read_text(encoding="utf-8")
    generated = cache.keep("addresses", source, also=compiler_hash())
    return Library(
        functions,
        undefined,
        impl_offset,
        lists,
        torch_internals.impl_layout(),
        keys,
        *(generated.address(name) for name in ("read", "at_once", "bump", "compare")),
    )


class Reader:
    """Reads the addresses of one unit's tensors.

    Args:
        lib: the compiled loops.
        params: the parameters.
        states: their states, a column for each name.
        dtypes: of the parameters, the gradients, and of each column of states.
        addresses: ``[p, g, states...] x tensors``: where the answers go.

    Attributes:
        absent: 1 for each parameter without a gradient at the last reading, else 0.
        work: the arguments of the loop.
    """

    def __init__(
        self,
        lib: Library,
        params: Sequence[torch.Tensor],
        states: Sequence[Sequence[torch.Tensor]],
        dtypes: Sequence[torch.dtype],
        addresses: Integers,
    ) -> None:
        self._states = len(states)
        self.absent = np.zeros(len(params), dtype=np.int64)
        flat = [tensor for column in states for tensor in column]
        dims = [p.dim() for p in params]
        kinds = [[SCALAR_TYPES[dtype], dtype.itemsize] for dtype in dtypes]
        arrays = {
            "objects": _ids(params),
            "states": _ids(flat),
            "kinds": np.asarray(kinds, dtype=np.int64),
            "first": np.concatenate([[0], np.cumsum(dims)]).astype(np.int64),
            "sizes": np.asarray([n for p in params for n in p.shape], dtype=np.int64),
            "strides": np.asarray([n for p in params for n in p.stride()], dtype=np.int64),
            "numbers": np.asarray([p.numel() for p in params], dtype=np.int64),
        }
        self.work = _Work(lib.read, len(params))
        arrays["answers"] = np.zeros(8 * (self.work.spans + 1), dtype=np.int64)
        at = {name: array.ctypes.data for name, array in arrays.items()}
        self._kept = [params, flat, addresses, *arrays.values()]
        hints = lib.impls or ImplLayout(0, 0, 0, 0)
        self.work.set(
            [
                *(at["objects"], lib.impl_offset, 0, lib.lists.items // 8),
                *(self._states, at["states"], addresses.ctypes.data),
                *(at["kinds"], at["first"], at["sizes"], at["strides"], at["numbers"]),
                *(self.absent.ctypes.data, lib.undefined, id(None)),
                *(0, 0, 0, lib.keys.offset // 8, lib.keys.keys, at["answers"]),
                *(x // 8 for x in (hints.storage, hints.autograd, hints.version, hints.grad)),
                *(lib.functions[name] for name in _ASKED),
            ]
        )

    def prepare(
        self, exposed: bool, gradients: Sequence[torch.Tensor | None] | None = None
    ) -> None:
        """Say what the next reading asks.

        Args:
            exposed: the states, too. They are where they were unless somebody else has had them in
                hand.
            gradients: a list of what to read in place of the parameters' gradients.
        """
        assert gradients is None or type(gradients) is list
        self._gradients = gradients  # the loop has its address
        self.work.arguments[_STATES] = self._states if exposed else 0
        self.work.arguments[_GIVEN] = 0 if gradients is None else id(gradients)

    def let_go(self) -> None:
        """Keep the given gradients no longer."""
        self._gradients = None
        self.work.arguments[_GIVEN] = 0

    def avoid(self, starts: Integers, stops: Integers) -> None:
        """Tell of gradients that come to overlap with these ranges, sorted and apart."""
        self._written = starts, stops
        self.work.arguments[_WRITTEN : _WRITTEN + 3] = [
            *(starts.ctypes.data, stops.ctypes.data),
            len(starts),
        ]

    def read(self) -> bool:
        """Fill in the addresses; False if any tensor is not what was planned."""
        return self.work.run()

    @property
    def any_absent(self) -> bool:
        """Whether a parameter had no gradient at the last reading."""
        return bool(self.work.arguments[_ANY_ABSENT])

    @property
    def moved(self) -> bool:
        """Whether at the last reading what is written lay elsewhere than at the one before.

        Or a gradient was somewhere else and overlapped with the ranges to avoid.
        """
        return bool(self.work.arguments[_MOVED])


def watched(views: Sequence[torch.Tensor]) -> Callable[[], Integers]:
    """See :data:`thalweg.engine.scalars.Watch`."""
    one_by_one = watched_one_by_one(views)
    lib = library()
    if lib is None or not views:
        return one_by_one
    table = np.zeros((2, len(views)), dtype=np.int64)
    reader = Reader(lib, views, [], [torch.float64] * 2, table)
    reader.prepare(exposed=False, gradients=[None] * len(views))
    return lambda: table[0] if reader.read() else one_by_one()


# Places in the arguments of `read`.
_ANY_ABSENT, _MOVED, _GIVEN, _STATES, _WRITTEN = 2, 3, 9, 11, 22
_ASKED = (
    *("grad", "data_ptr", "dtype", "dim", "sizes", "strides"),
    *("storage_offset", "storage_size"),
)


class AtOnce:
    """Reads units and runs a kernel of each in one call: nothing of others comes in between.

    Args:
        lib: the compiled loops.
        readers: of each unit.
    """

    def __init__(self, lib: Library, readers: Sequence[Reader]) -> None:
        self._works = [reader.work for reader in readers]
        pool = threads.openmp_pool_address()
        words = [0, len(readers), 0, pool, *threads.thread_state_functions(), lib.read, 0]
        for work in self._works:
            words += [work.address, 0, 0, 0, 0]
        self._pool = pool
        self._arguments = (ctypes.c_int64 * len(words))(*words)
        self._address = ctypes.addressof(self._arguments)
        self._function = lib.at_once

    def run(self, kernels: Sequence[tuple[int, int, int]], let_go: bool) -> bool:
        """Read; if all is as planned and nothing moved, run the kernels and return True.

        Args:
            kernels: of each unit the kernel, its arguments and how many threads are of use.
            let_go: let other Python threads run meanwhile.
        """
        arguments, place = self._arguments, _HEAD
        for work, (kernel, address, wanted) in zip(self._works, kernels, strict=True):
            arguments[place + 1] = work.threads() if self._pool else 1
            arguments[place + 2] = kernel
            arguments[place + 3] = address
            arguments[place + 4] = wanted
            place += 5
        arguments[0], arguments[2] = 0, let_go
        threads.run_holding_gil(self._function, self._address, 1)
        return bool(arguments[0])


_HEAD = 8  # words before those of the units


def _ids(objects: Sequence[object]) -> Integers:
    return np.fromiter(map(id, objects), np.int64, len(objects))


class Identities:
    """Which parameters there were, list by list."""

    def __init__(self, lists: Sequence[Sequence[torch.Tensor]]) -> None:
        self._lists = list(lists)
        self._planned = [tuple(one) for one in lists]  # keeps the objects alive
        self._work: _Work | None = None
        lib = library()
        # What a tuple holds cannot change.
        lists = [one for one in self._lists if type(one) is not tuple]
        few = sum(map(len, self._planned)) <= FEW
        if lib is not None and not few and all(type(one) is list for one in lists):
            objects = np.asarray([id(x) for one in lists for x in one], dtype=np.int64)
            starts = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
            ids = np.asarray([id(one) for one in lists], dtype=np.int64)
            self._kept = objects, starts, ids
            self._work = _Work(lib.compare, len(lists), span=1)
            layout = (lib.lists.length // 8, lib.lists.items // 8)
            self._work.set([*(array.ctypes.data for array in (ids, starts, objects)), *layout])

    def hold(self, lists: Sequence[Sequence[torch.Tensor]]) -> bool:
        """Whether these are the same parameters in the same order."""
        if len(lists) != len(self._lists):
            return False
        if self._work is not None and all(map(operator.is_, lists, self._lists)):
            return self._work.run()
        return all(map(_same, lists, self._planned))


def _same(now: Sequence[torch.Tensor], before: tuple[torch.Tensor, ...]) -> bool:
    """Whether the objects are the same, one by one."""
    return len(now) == len(before) and all(map(operator.is_, now, before))


class Versions:
    """Tells autograd that tensors were written; torch's own function, called for all at once.

    Args:
        lib: the compiled loops, if any.
        columns: the tensors, as many in each column.
    """

    def __init__(self, lib: Library | None, columns: Sequence[Sequence[torch.Tensor]]) -> None:
        self._columns = columns
        self._work: _Work | None = None
        if lib is not None and columns:
            # Where the objects hold their TensorImpls, as they may stand for others by then.
            self._cells = _ids([t for column in columns for t in column]) + lib.impl_offset
            self._work = _Work(lib.bump, len(columns[0]))
            bump = lib.functions["bump_version"]
            keys = lib.keys
            self._work.set(
                [self._cells.ctypes.data, len(columns), 0, bump, keys.offset // 8, keys.keys]
            )

    def bump(self, absent: Integers | None = None) -> None:
        """Count one write to each tensor, but for those of the absent (1) places."""
        if self._work is not None:
            self._work.arguments[_ABSENT] = 0 if absent is None else absent.ctypes.data
            self._work.run()
            return
        for column in self._columns:
            kept = [t for k, t in enumerate(column) if absent is None or not absent[k]]
            torch.autograd.graph.increment_version(kept)


_ABSENT = 9  # place in the arguments of `bump`


class _Work:
    """The arguments of a compiled loop over tensors, and calling it.

    The GIL is kept: no other thread may free a gradient while its address is read.
    """

    def __init__(self, function: int, tensors: int, span: int = SPAN) -> None:
        self._function = function
        self._tensors, self._span = tensors, span
        self._most_threads = tensors // WORTH_A_THREAD
        self.spans = -(-tensors // span)

    def set(self, rest: Sequence[int]) -> None:
        """Lay the arguments out: ticket, failed, absent, moved, spans, span, tensors, the rest."""
        fixed = [0, 0, 0, 0, self.spans, self._span, self._tensors]
        # An array of ctypes, whose single elements are set and read faster than NumPy's.
        self.arguments = (ctypes.c_int64 * (len(fixed) + len(rest)))(*fixed, *rest)
        self.address = ctypes.addressof(self.arguments)

    def threads(self) -> int:
        """How many threads are of use."""
        return threads.of_use(self._most_threads)

    def run(self) -> bool:
        """Call the loop; whether it found everything as planned."""
        arguments = self.arguments
        arguments[0] = arguments[1] = arguments[2] = arguments[3] = 0
        threads.run_holding_gil(self._function, self.address, self.threads())
        return not arguments[1]
