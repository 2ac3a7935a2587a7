"""A folder whose files nobody else can write: what lies there was put there by this user, or root.

Machine code is run, so it matters whose it is. Folder and file are opened once each, and what is
asked is asked of what was opened: nobody can put another one in its place meanwhile.
"""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_POSIX = os.name == "posix"  # elsewhere, user folders are private and files have no such owners
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_READ |= getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer must not make us wait
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class PrivateFolder:
    """An open folder that only this user and root can write into; a context manager.

    Args:
        path: of the folder; what is missing of it is made, for this user alone.

    Raises:
        OSError: it cannot be made or opened.
        PermissionError: it is another user's, or others may write into it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _make(path)
        self._open: int | None = None
        if _POSIX:
            self._open = os.open(path, _FOLDER)
            try:
                _check_ours(os.fstat(self._open))
            except OSError:
                os.close(self._open)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._open is not None:
            os.close(self._open)

    def holds(self, name: str) -> bool:
        """Whether something has this name."""
        try:
            os.stat(self._at(name), follow_symlinks=False, **self._within())
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is none.
            OSError: it is no regular file, or cannot be read.
            PermissionError: it is another user's, or others may write to it.
        """
        with open(os.open(self._at(name), _READ, **self._within()), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            _check_ours(facts)
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Write a file that is there whole or not at all, in place of one that is there.

        Raises:
            OSError: it cannot be written.
        """
        temporary = f"{name}.{secrets.token_hex(4)}.tmp"
        file = os.open(self._at(temporary), _NEW, 0o600, **self._within())
        try:
            with open(file, "wb") as stream:
                stream.write(content)
            both = {"src_dir_fd": self._open, "dst_dir_fd": self._open} if _POSIX else {}
            os.replace(self._at(temporary), self._at(name), **both)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(self._at(temporary), **self._within())
            raise

    def _at(self, name: str) -> str:
        return name if _POSIX else os.fspath(self.path / name)

    def _within(self) -> dict[str, Any]:
        return {"dir_fd": self._open} if _POSIX else {}


def _make(path: Path) -> None:
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        each.mkdir(0o700, exist_ok=True)


def _check_ours(facts: os.stat_result) -> None:
    if not _POSIX:
        return
    if facts.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EACCES, f"it belongs to another user, number {facts.st_uid}")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(facts.st_mode)
        raise PermissionError(errno.EACCES, f"others may write to it: its mode is {mode:o}")
