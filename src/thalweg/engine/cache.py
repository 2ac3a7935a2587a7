"""Generated source on disk: written once under a name made from its content, then compiled.

The file lets tracebacks, profilers and people read a kernel, and lets Numba keep the machine code
beside it, so that the next process loads in milliseconds what took half a second to compile.
"""

import hashlib
import linecache
import os
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import thalweg


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


def load(name: str, source: str, also: str = "") -> tuple[dict[str, Any], Path | None]:
    """Execute generated source and return its names, and the file it was written to.

    ``{cached}`` in the source becomes True where the file can be kept, False where not. ``also`` is
    mixed into the file's name: whatever else the compiled code depends on.
    """
    digest = hashlib.sha256(f"{thalweg.__version__}\n{also}\n{source}".encode()).hexdigest()[:16]
    path = folder() / f"{name}_{digest}.py"
    kept = source.replace("{cached}", "True")
    try:
        _write_once(path, kept)
        return _execute(kept, str(path)), path
    except OSError as error:
        _warn_unwritable(path.parent, error)
    unkept, filename = source.replace("{cached}", "False"), f"<thalweg {name}_{digest}>"
    linecache.cache[filename] = (len(unkept), None, unkept.splitlines(keepends=True), filename)
    return _execute(unkept, filename), None


def _execute(source: str, filename: str) -> dict[str, Any]:
    # A module that can be found by its name: Numba looks it up when it loads machine code.
    module = ModuleType(f"thalweg_kernels.{Path(filename).stem}")
    sys.modules[module.__name__] = module
    exec(compile(source, filename, "exec"), module.__dict__)
    return module.__dict__


def _write_once(path: Path, source: str) -> None:
    """Create the file whole, or leave the one that is there: Numba keys on its time of change.

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
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(source)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(temporary, path)
            return
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
