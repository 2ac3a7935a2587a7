"""Small file systems that only this process sees; it must be root's."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_NEW_MOUNTS = 0x20000  # CLONE_NEWNS; in Python's own library from 3.12 on
_PRIVATE, _REMOUNT, _READ_ONLY = 1 << 18 | 1 << 14, 32, 1


class Refused(Exception):
    """The system does not let this process mount anything."""


def mounted(folder: Path, options: str) -> None:
    """Mount a file system in memory, which goes with this process.

    Raises:
        Refused: only root may, and not everywhere.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS):
        raise Refused(os.strerror(ctypes.get_errno()))
    _mount("none", Path("/"), _PRIVATE)  # else it would be seen outside too
    _mount("tmpfs", folder, 0, options)


def made_read_only(folder: Path) -> None:
    """What :func:`mounted` mounted cannot be written any more."""
    _mount("tmpfs", folder, _REMOUNT | _READ_ONLY)


def _mount(source: str, folder: Path, flags: int, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
    kind = b"tmpfs" if source == "tmpfs" else None
    if libc.mount(source.encode(), os.fsencode(folder), kind, flags, options.encode()):
        raise Refused(os.strerror(ctypes.get_errno()))
