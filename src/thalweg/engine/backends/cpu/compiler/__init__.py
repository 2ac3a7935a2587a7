"""From the source of a kernel to machine code: a small part of Python, translated for LLVM.

Kernels are plain loops over addresses. A compiler of all of Python spends half a second on each,
nearly all of it on questions that do not arise here; this one answers in hundredths. What it takes:

- functions of positional arguments without defaults, put in place where they are called;
- assignments to names, elements of pointers and tuples of these; ``if``, ``while``, ``for`` over a
  ``range`` or a written-out tuple, ``break``, ``continue``, ``return``;
- arithmetic, comparisons, ``and``, ``or``, ``not``, conditional expressions;
- calls of such functions, of kinds (a cast), of intrinsics, and of ``math``'s functions.

Each variable has one kind, that of its first value, and is read only where it has one for certain.
There are no silent conversions: floats of two kinds, or a float and an integer, do not mix.
Integers compute in 64 bits and wrap; a range must end more than its step below 2^63. ``//`` and
``%`` round down, as in Python, and give 0 for a division by 0. ``and`` and ``or`` give conditions.
Nothing can raise, and what is read or written is not checked.
"""

from thalweg.engine.backends.cpu.compiler.kinds import Intrinsic, Kind, intrinsic
from thalweg.engine.backends.cpu.compiler.llvm import compile_functions
from thalweg.engine.backends.cpu.compiler.operators import CompileError

__all__ = ["CompileError", "Intrinsic", "Kind", "compile_functions", "intrinsic"]
