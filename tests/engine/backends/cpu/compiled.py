"""Functions compiled as kernels are, to be called from tests."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from thalweg.engine.backends.cpu import machine_code
from thalweg.engine.backends.cpu.compiler import compile_functions

_number = itertools.count()


def compiled(function: Any) -> Callable[[int], None]:
    """A function of one integer, defined in a module, as machine code."""
    assert isinstance(function, FunctionType)
    symbol = f"{function.__name__}.{next(_number)}"
    code = compile_functions({symbol: function})
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(machine_code.load(code, [symbol])[symbol])


def over_arrays(function: Any) -> Callable[..., None]:
    """The same for a function of the address of an array: of a length, then of addresses.

    The result takes arrays of that length.
    """
    call = compiled(function)

    def run(*arrays: np.ndarray[Any, Any]) -> None:
        arguments = np.array([len(arrays[0]), *(a.ctypes.data for a in arrays)], dtype=np.int64)
        call(arguments.ctypes.data)

    return run
