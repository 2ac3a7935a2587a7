"""NumPy's numbers in files of ``torch.save``: plain data, such as a best accuracy.

Pickle writes one as a call, ``scalar(dtype, bytes)``. Here stand-ins of NumPy's functions are
called, which make Python's numbers of these bytes and know no other dtypes: NumPy's own would take
bytes for addresses in some.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from thalweg.engine.torch_internals import with_safe_globals

# Kinds and sizes that dtypes of numbers have in NumPy's short names.
_NUMBERS = {
    *("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"),
    *("f2", "f4", "f8", "c8", "c16"),
}
_ORDERS = ("<", ">", "=", "|")


class _Dtype:
    """Stands for ``numpy.dtype``."""

    def __init__(self, name: str, align: bool = False, copy: bool = True) -> None:
        if name not in _NUMBERS:
            raise ValueError(f"a NumPy value of dtype {name!r:.80} is no number; save a plain one")
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in _ORDERS:
            raise ValueError("a NumPy number has a broken dtype")
        self.order = state[1]


def _scalar(dtype: Any, data: Any) -> Any:
    """Stands for ``numpy.core.multiarray.scalar``: gives Python's number."""
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise ValueError("a NumPy number has no dtype or no bytes")
    found = np.dtype(dtype.order + dtype.name)
    if len(data) != found.itemsize:
        raise ValueError(f"a NumPy number of dtype {dtype.name} has {len(data)} bytes")
    return np.frombuffer(data, found)[0].item()


_STAND_INS = {
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.dtype": _Dtype,
}


def _with_numbers(allowed: Mapping[str, Any]) -> dict[str, Any]:
    # A program may have allowed NumPy's own.
    others = {k: v for k, v in allowed.items() if getattr(v, "__module__", "")[:5] != "numpy"}
    return others | _STAND_INS


def with_numpy_numbers(read: Callable[[], Any]) -> Any:
    """Call what reads by ``torch.load`` with ``weights_only=True``: NumPy's numbers as Python's.

    What other threads read meanwhile is as ever.
    """
    return with_safe_globals(_with_numbers, read)
