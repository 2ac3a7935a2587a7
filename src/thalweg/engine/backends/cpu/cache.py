"""Generated source on disk: written once under a name made from its content, then compiled.

The source lets tracebacks, profilers and people read a kernel; what is compiled is the text in
memory. Its machine code lies beside it, for the next process.
"""

import functools
import hashlib
import linecache
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, ParamSpec, TypeVar

import thalweg
from thalweg.engine.backends.cpu import machine_code
from thalweg.engine.backends.cpu.private import PrivateFolder

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_one_at_a_time = threading.RLock()

# In names of files and symbols, which a rule's name becomes part of.
_UNUSUAL = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST = 100  # characters, of 255 that a file's name may have


def _renew_lock() -> None:
    """In a forked child: what holds its parent's lock there does not exist here."""
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


if hasattr(os, "register_at_fork"):
    # A fork waits for the compiler: LLVM has locks of its own, which a child would inherit as they
    # are.
    os.register_at_fork(
        before=lambda: _one_at_a_time.acquire(),
        after_in_parent=lambda: _one_at_a_time.release(),
        after_in_child=_renew_lock,
    )


def once(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """As ``functools.cache``, and threads that ask at the same time get the same result.

    For what is compiled: nothing keeps the machine code of a second one, and LLVM's loader serves
    one thread at a time.
    """
    cached = functools.cache(function)

    @functools.wraps(function)
    def asked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with _one_at_a_time:
            return cached(*args, **kwargs)  # type: ignore[arg-type]

    return asked


def folder() -> Path:
    """``$THALWEG_CACHE``, or ``thalweg`` in the user's cache folder."""
    if chosen := os.environ.get("THALWEG_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "thalweg"


@dataclass
class Generated:
    """A piece of generated source and what became of it.

    Attributes:
        name: content-named, without a suffix.
        source: the text.
        path: the file it lies in, or None where it could not be written.
    """

    name: str
    source: str
    path: Path | None
    _names: dict[str, Any] = field(default_factory=dict, repr=False)
    _addresses: dict[str, int] = field(default_factory=dict, repr=False)

    def address(self, function: str) -> int:
        """The machine code of one of its functions: from disk, or compiled now and kept."""
        with _one_at_a_time:
            if not self._addresses:
                self._addresses = self._found() or self._compiled()
        return self._addresses[f"{self.name}.{function}"]

    @property
    def _file(self) -> str:
        return f"{self.name}.{machine_code.target()}.bin"

    def _found(self) -> dict[str, int] | None:
        """The addresses of its functions, from disk."""
        if self.path is None:
            return None
        try:
            with PrivateFolder(self.path.parent) as folder:
                return _loaded(folder, self._file)
        except OSError as error:
            _warn_unkept(self.path.parent, error)
            return None

    def _compiled(self) -> dict[str, int]:
        """The same, compiled now; kept if that is possible."""
        from thalweg.engine.backends.cpu.compiler import compile_functions

        functions = {
            f"{self.name}.{name}": function
            for name, function in self.names().items()
            if isinstance(function, FunctionType)
            and function.__module__ == _module_name(self.name)
            and not name.startswith("_")
        }
        code = compile_functions(functions)
        content = machine_code.pack(code, list(functions), self._file)
        if self.path is not None and content is not None:
            try:
                with PrivateFolder(self.path.parent) as folder:
                    folder.write(self._file, content)
            except OSError as error:
                _warn_unkept(self.path.parent, error)
        return machine_code.load(code, list(functions))

    def names(self) -> dict[str, Any]:
        """Everything the source defines, as Python has it."""
        if not self._names:
            filename = str(self.path) if self.path else f"<thalweg {self.name}>"
            lines = self.source.splitlines(keepends=True)
            linecache.cache[filename] = (len(self.source), None, lines, filename)
            module = ModuleType(_module_name(self.name))
            sys.modules[module.__name__] = module
            exec(compile(self.source, filename, "exec"), module.__dict__)
            self._names = module.__dict__
        return self._names


def _module_name(name: str) -> str:
    return f"thalweg_kernels.{name}"


def keep(name: str, source: str, also: str = "") -> Generated:
    """Write generated source to the cache folder, or go on without if that is not possible.

    Args:
        name: what the file's name begins with, as far as any file and symbol can be called so.
        source: the text.
        also: mixed into the file's name: whatever else the compiled code depends on.
    """
    digest = hashlib.sha256(f"{thalweg.__version__}\n{also}\n{source}".encode()).hexdigest()[:16]
    path = folder() / f"{_UNUSUAL.sub('_', name)[:_LONGEST]}_{digest}.py"
    try:
        with PrivateFolder(path.parent) as place:
            if not place.holds(path.name):
                place.write(path.name, source.encode())
    except OSError as error:
        _warn_unkept(path.parent, error)
        return Generated(path.stem, source, None)
    return Generated(path.stem, source, path)


def _loaded(folder: PrivateFolder, name: str) -> dict[str, int] | None:
    """The addresses of what a file holds; None if it is not there, or not as it was written."""
    try:
        return machine_code.unpack(folder.read(name), name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        _warn(f"thalweg does not use the machine code in {folder.path / name} ({reason}) and "
              "compiles it anew. Remove the file if it is none of yours.")  # fmt: skip
        return None


_warned = False


def _warn_unkept(where: Path, error: OSError) -> None:
    _warn(f"thalweg cannot keep its kernels in {where} ({error.strerror or error}); they are "
          "compiled anew in each process. Set THALWEG_CACHE to a folder that you can write to, and "
          "nobody else.")  # fmt: skip


def _warn(message: str) -> None:
    """Once in a process: one folder gives the same reason for every kernel."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(message, RuntimeWarning, stacklevel=3)
