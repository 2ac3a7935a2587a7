"""Kernels written by hand, for what is no formula: dynamic programs, and loops over loops.

Such a source is a file beside this one that defines ``work(arguments)``, as a generated kernel
does: it takes the address of an array of int64, draws tickets from its first element until none is
left, and may run on any number of threads at once. It is loaded through the kernel cache and never
imported, so nothing in it can raise.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from thalweg.engine import observed
from thalweg.engine.backends.cpu import cache, threads
from thalweg.engine.backends.cpu.kernel import Kernel, compiler_hash


@cache.once
def kernel(file: str) -> Kernel:
    """The kernel in a file of this folder, compiled at first or loaded from disk.

    Args:
        file: its name, such as ``_ctc.py``.
    """
    source = Path(__file__).with_name(file).read_text(encoding="utf-8")
    name = file.removesuffix(".py").lstrip("_")
    generated = cache.keep(name, source, also=compiler_hash())
    return Kernel(generated.address("work"), generated)


def run(file: str, arguments: Sequence[int], tickets: int) -> None:
    """Call the kernel in a file and wait for it.

    Args:
        file: its name.
        arguments: what follows the ticket in the array: numbers, and addresses of what the caller
            keeps alive.
        tickets: how many there are to draw, at most one for each thread that is of use.
    """
    if observed.observer is not None:
        observed.observer(observed.HandwrittenCall(file))
    array = np.asarray([0, *arguments], dtype=np.int64)
    threads.run(kernel(file), array.ctypes.data, min(torch.get_num_threads(), tickets))
