"""Machine code on disk: compiled once by Numba, loaded without it.

Importing Numba and letting it load its own cache takes most of a second; a kernel is two kilobytes
of position-independent code that calls nothing. So its object code is kept beside its source, and a
later process hands it to LLVM's loader, which takes milliseconds.
"""

import ctypes
import functools
import hashlib
import json
import platform
import struct
from pathlib import Path
from typing import Any


@functools.cache
def target() -> str:
    """A short name of what the code was compiled for: this processor and these compilers."""
    import llvmlite
    from llvmlite import binding

    facts = [
        platform.machine(),
        platform.system(),
        llvmlite.__version__,
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def pack(function: Any) -> bytes | None:
    """A compiled Numba ``cfunc`` as bytes; None if it cannot be kept.

    The first line describes the rest: the symbol to call, the symbols it calls, a digest.
    """
    try:
        library, symbol = function._library, function._wrapper_name
        code: bytes = library._codegen._tm.emit_object(library._final_module)
    except AttributeError:  # another version of Numba: do without
        return None
    calls = _undefined(code)
    if calls is None:
        return None
    header = {"symbol": symbol, "calls": calls, "sha256": hashlib.sha256(code).hexdigest()}
    return json.dumps(header).encode() + b"\n" + code


def load(path: Path) -> int | None:
    """The address of the function that a file holds, or None if there is none or it is damaged."""
    from llvmlite import binding

    try:
        first, code = path.read_bytes().split(b"\n", 1)
        header = json.loads(first)
        symbol, calls, digest = header["symbol"], header["calls"], header["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if hashlib.sha256(code).hexdigest() != digest:
        return None
    process = ctypes.CDLL(None)
    for name in calls:
        try:
            called = ctypes.cast(getattr(process, name), ctypes.c_void_p).value
        except AttributeError:  # LLVM would end the process over a symbol it cannot resolve
            return None
        binding.add_symbol(name, called)
    engine = _engine()
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address: int = engine.get_function_address(symbol)
    return address or None


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
