"""Running a kernel on several threads: torch's own OpenMP pool, or Python's where there is none.

torch keeps an OpenMP pool. Handing it our kernel (``GOMP_parallel`` of the very library that torch
has loaded) costs about two microseconds, starts no second pool to fight over the cores, and obeys
``torch.set_num_threads``. Where torch was built without GNU OpenMP, threads of Python's serve.
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import torch

from thalweg.engine.backends.cpu.kernel import Kernel
from thalweg.engine.interrupts import uninterrupted
from thalweg.forks import in_child

# Elements for which waking another thread pays.
WORTH_A_THREAD = 32768

# Small work on one thread keeps the GIL: it is done before another thread would have woken.
_CALL = ctypes.PYFUNCTYPE(None, ctypes.c_int64)
_FREE_CALL = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class _Pool:
    """Whether the pool's threads were in use, and whether a fork has left them behind."""

    used = False
    lost = False


def of_use(wanted: int) -> int:
    """How many threads to run on, of which so many would be of use.

    One in a process that was forked after the pool was in use: its threads exist in the parent
    alone, and GNU OpenMP would wait for them for ever.
    """
    if wanted <= 1 or _Pool.lost:
        return 1
    count = min(torch.get_num_threads(), wanted)
    _Pool.used = _Pool.used or count > 1
    return count


@in_child
def _begin_in_child() -> None:
    _Pool.lost = _Pool.used


def run(kernel: Kernel, arguments: int, threads: int, let_go: bool = False) -> None:
    """Call the kernel with the address of its arguments on so many threads, and wait.

    Args:
        kernel: the kernel.
        arguments: their address.
        threads: how many are of use.
        let_go: of one thread, too, let other Python threads run meanwhile, as several always do.
            The caller holds whatever the kernel reads and writes.
    """
    threads = of_use(threads)
    if threads <= 1:
        (_free_entry if let_go else _entry)(kernel.address)(arguments)
        return
    pool = openmp_pool()
    if pool is not None:
        pool(kernel.address, arguments, threads, 0)
    else:
        _run_on_pythons(partial(_free_entry(kernel.address), arguments), threads)


class _Shared:
    """A call that other threads may join until it has ended; each draws what it works on."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._change = threading.Condition()
        self._running = 0
        self._ended = False

    def join(self) -> None:
        with self._change:
            if self._ended:
                return  # its arguments may be no more
            self._running += 1
        self._call()
        with self._change:
            self._running -= 1
            self._change.notify_all()

    def end(self) -> None:
        """Let no thread join from now on, and wait for those that have."""
        with self._change:
            self._ended = True
            self._change.wait_for(lambda: not self._running)


def _run_on_pythons(call: Callable[[], None], threads: int) -> None:
    shared = _Shared(call)
    with uninterrupted():  # what others still write would be freed
        try:
            # None come once the interpreter ends, or where the system has no more.
            with contextlib.suppress(RuntimeError):
                for _ in range(threads - 1):
                    _threads().submit(shared.join)
            call()
        finally:
            shared.end()


def run_holding_gil(function: int, arguments: int, threads: int) -> None:
    """Call a function that asks torch about tensors; on one thread where there is no OpenMP."""
    pool = openmp_pool(keep_gil=True) if threads > 1 else None
    if pool is None:
        _entry(function)(arguments)
    else:
        pool(function, arguments, threads, 0)


@cache
def _entry(address: int) -> Callable[[int], None]:
    return _CALL(address)


@cache
def _free_entry(address: int) -> Callable[[int], None]:
    return _FREE_CALL(address)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="thalweg")


@cache
def openmp_pool_address() -> int:
    """The address of the pool's function, 0 if there is none."""
    pool = openmp_pool()
    return 0 if pool is None else ctypes.cast(pool, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


@cache
def thread_state_functions() -> tuple[int, int]:
    """The addresses of what lets the GIL go, and takes it again with what that has returned."""
    python = ctypes.pythonapi
    found = (python.PyEval_SaveThread, python.PyEval_RestoreThread)
    save, restore = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in found)
    return save, restore


@cache
def openmp_pool(keep_gil: bool = False) -> Callable[[int, int, int, int], None] | None:
    """``GOMP_parallel`` of the GNU OpenMP library that torch runs on, or None."""
    library = openmp_library()
    if library is None:
        return None
    loaded = (ctypes.PyDLL if keep_gil else ctypes.CDLL)(str(library))
    function = loaded.GOMP_parallel
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


@cache
def openmp_library() -> Path | None:
    """The GNU OpenMP library in this process, torch's own first.

    Set ``THALWEG_THREADS=python`` to do without it.
    """
    if os.environ.get("THALWEG_THREADS") == "python" or sys.platform != "linux":
        return None
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps if "libgomp" in line}
    torch_folder = Path(torch.__file__).parent.parent
    found = sorted(map(Path, paths), key=lambda p: (torch_folder not in p.parents, p))
    return found[0] if found else None
