"""Machine code on disk: compiled once, loaded by later processes in milliseconds.

A kernel is a few kilobytes of object code that calls nothing but the mathematical library. It is
kept beside its source, and handed to LLVM's loader.
"""

import ctypes
import functools
import hashlib
import json
import platform
import struct
from collections.abc import Sequence
from typing import Any


@functools.cache
def target() -> str:
    """A short name of what the code was compiled for: this processor, by this compiler."""
    import llvmlite

    facts = [platform.machine(), platform.system(), llvmlite.__version__, *processor()]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


@functools.cache
def processor() -> tuple[str, str]:
    """LLVM's name of this processor, and its features."""
    from llvmlite import binding

    return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


def pack(code: bytes, symbols: Sequence[str], name: str) -> bytes | None:
    """Object code as the content of a file of this name; None if it cannot be kept.

    The first line is a digest of the file's name and all that follows: a line that names the
    symbols that it has and those that it calls, and the code.
    """
    calls = _undefined(code)
    if calls is None:
        return None
    rest = json.dumps({"symbols": list(symbols), "calls": calls}).encode() + b"\n" + code
    return _digest(name, rest) + b"\n" + rest


def unpack(content: bytes, name: str) -> dict[str, int]:
    """Load what a file holds.

    The digest is against accidents; whose the file is has been asked before.

    Args:
        content: of the file.
        name: of the file.

    Returns:
        By symbol, the addresses of its functions.

    Raises:
        ValueError: it is not what :func:`pack` gave for this name, or calls what is not there.
    """
    digest, _, rest = content.partition(b"\n")
    if digest != _digest(name, rest):
        raise ValueError("it is damaged, or was written under another name")
    first, code = rest.split(b"\n", 1)
    header = json.loads(first)
    return load(code, header["symbols"], header["calls"])


def load(code: bytes, symbols: Sequence[str], calls: Sequence[str] | None = None) -> dict[str, int]:
    """Load object code: by symbol, the addresses of its functions.

    Args:
        code: the code.
        symbols: of its functions.
        calls: the symbols that it calls; None: they are looked up in the code.

    Raises:
        ValueError: it lacks a function, or calls what is not there.
    """
    from llvmlite import binding

    process = ctypes.CDLL(None)
    for called in (_undefined(code) or ()) if calls is None else calls:
        try:
            place = ctypes.cast(getattr(process, called), ctypes.c_void_p).value
        except AttributeError:  # LLVM would end the process over a symbol it cannot resolve
            raise ValueError(f"it calls {called}, which is not there") from None
        binding.add_symbol(called, place)
    engine = _engine()
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    found: dict[str, int] = {name: engine.get_function_address(name) for name in symbols}
    if not all(found.values()):
        raise ValueError("it lacks a function")
    return found


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
