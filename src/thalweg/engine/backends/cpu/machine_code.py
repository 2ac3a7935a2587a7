"""Machine code on disk: compiled once by Numba, loaded without it.

Importing Numba and letting it load its own cache takes most of a second; a kernel is two kilobytes
of position-independent code that calls nothing. So its object code is kept beside its source, and a
later process hands it to LLVM's loader, which takes milliseconds.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import struct
from pathlib import Path
from typing import Any

# Settings of Numba's that change nothing in the code of one thread's kernel.
_NO_CODE = ("NUMBA_CACHE_", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_WARNINGS")
_SETTINGS = Path(".numba_config.yaml")  # which Numba reads where a program starts


@functools.cache
def target() -> str:
    """A short name of what the code was compiled for: this processor, compilers and settings."""
    import llvmlite
    from llvmlite import binding

    facts = [
        platform.machine(),
        platform.system(),
        llvmlite.__version__,
        importlib.metadata.version("numba"),
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
        *_settings(),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _settings() -> list[str]:
    chosen = (name for name in os.environ if name.startswith("NUMBA_"))
    found = [f"{name}={os.environ[name]}" for name in chosen if not name.startswith(_NO_CODE)]
    if _SETTINGS.is_file():
        found.append(_SETTINGS.read_text(errors="replace"))
    return sorted(found)


def pack(function: Any, name: str) -> bytes | None:
    """A compiled Numba ``cfunc`` as the content of a file; None if it cannot be kept.

    The first line is a digest of the file's name and all that follows: a line that names the symbol
    to call and the symbols it calls, and the code.
    """
    try:
        library, symbol = function._library, function._wrapper_name
        code: bytes = library._codegen._tm.emit_object(library._final_module)
    except AttributeError:  # another version of Numba: do without
        return None
    calls = _undefined(code)
    if calls is None:
        return None
    rest = json.dumps({"symbol": symbol, "calls": calls}).encode() + b"\n" + code
    return _digest(name, rest) + b"\n" + rest


def load(content: bytes, name: str) -> int:
    """The address of the function that a file holds.

    The digest is against accidents; whose the file is has been asked before.

    Args:
        content: of the file.
        name: of the file.

    Raises:
        ValueError: it is not what :func:`pack` gave for this name, or calls what is not there.
    """
    from llvmlite import binding

    digest, _, rest = content.partition(b"\n")
    if digest != _digest(name, rest):
        raise ValueError("it is damaged, or was written under another name")
    first, code = rest.split(b"\n", 1)
    header = json.loads(first)
    process = ctypes.CDLL(None)
    for called in header["calls"]:
        try:
            place = ctypes.cast(getattr(process, called), ctypes.c_void_p).value
        except AttributeError:  # LLVM would end the process over a symbol it cannot resolve
            raise ValueError(f"it calls {called}, which is not there") from None
        binding.add_symbol(called, place)
    engine = _engine()
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address: int = engine.get_function_address(header["symbol"])
    if not address:
        raise ValueError("it lacks its function")
    return address


def _digest(name: str, rest: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + rest).hexdigest().encode()


def _undefined(code: bytes) -> list[str] | None:
    """The names that object code expects from elsewhere; None if it is not 64-bit ELF."""
    from llvmlite import binding

    if code[:5] != b"\x7fELF\x02":
        return None
    sections = {
        s.name(): s.data() for s in binding.object_file.ObjectFileRef.from_data(code).sections()
    }
    table, names = sections.get(b".symtab"), sections.get(b".strtab")
    if table is None or names is None:
        return None
    # Elf64_Sym: name, info, other, section (0: undefined), value, size.
    entries = [(e[0], e[3]) for e in struct.iter_unpack("<IBBHQQ", table)]
    places = [name for name, section in entries if section == 0 and name]
    return [names[place : names.index(b"\0", place)].decode() for place in places]


@functools.cache
def _engine() -> Any:
    """LLVM's loader; it owns the code, so it lives as long as the process."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(jit=True)
    return binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
