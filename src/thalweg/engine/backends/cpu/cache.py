"""Generated source on disk: written once under a name made from its content, then compiled.

The source lets tracebacks, profilers and people read a kernel. Its machine code lies beside it, so
that the next process loads in milliseconds what took half a second to compile.
"""

import functools
import hashlib
import linecache
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import thalweg
from thalweg.engine.backends.cpu import machine_code

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_one_at_a_time = threading.RLock()


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

    def address(self, function: str) -> int:
        """The machine code of one of its ``cfunc``\\ s: from disk, or compiled now and kept."""
        if self.path is None:
            compiled: int = self.names()[function].address
            return compiled
        kept = self.path.with_name(f"{self.name}.{function}.{machine_code.target()}.bin")
        address = machine_code.load(kept)
        if address is None:
            made = self.names()[function]
            packed = machine_code.pack(made)
            if packed is not None:
                try:
                    kept.unlink(missing_ok=True)  # a damaged one
                    _write_once(kept, packed)
                except OSError as error:
                    _warn_unwritable(kept.parent, error)
            address = int(made.address)
        return address

    def names(self) -> dict[str, Any]:
        """Everything the source defines; executing it compiles it."""
        if not self._names:
            filename = str(self.path) if self.path else f"<thalweg {self.name}>"
            lines = self.source.splitlines(keepends=True)
            linecache.cache[filename] = (len(self.source), None, lines, filename)
            module = ModuleType(f"thalweg_kernels.{self.name}")
            sys.modules[module.__name__] = module
            exec(compile(self.source, filename, "exec"), module.__dict__)
            self._names = module.__dict__
        return self._names


def keep(name: str, source: str, also: str = "") -> Generated:
    """Write generated source to the cache folder, or go on without if that is not possible.

    ``also`` is mixed into the file's name: whatever else the compiled code depends on.
    """
    digest = hashlib.sha256(f"{thalweg.__version__}\n{also}\n{source}".encode()).hexdigest()[:16]
    path = folder() / f"{name}_{digest}.py"
    try:
        _write_once(path, source.encode())
    except OSError as error:
        _warn_unwritable(path.parent, error)
        return Generated(path.stem, source, None)
    return Generated(path.stem, source, path)


def _write_once(path: Path, content: bytes) -> None:
    """Create the file whole, or leave the one that is there.

    Two processes may do this at once. Each writes a file of its own and links it to the name; the
    second link fails, and its content was the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} is not writable")
    if path.exists():
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


_warned = False


def _warn_unwritable(where: Path, error: OSError) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"thalweg cannot keep its kernels in {where} ({error.strerror or error}); they are "
            "compiled anew in each process. Set THALWEG_CACHE to a folder that can be written to.",
            RuntimeWarning,
            stacklevel=2,
        )
