"""Writing a file so that it is there whole or not at all."""

import contextlib
import errno
import os
import re
import secrets
import socket
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Temporary files that this process is writing now.
_ACTIVE: set[str] = set()
_AHEAD = 1 << 24  # bytes that are gathered before the disk begins with them
_LONGEST = 150  # bytes of a name; with host, process and token it must stay below 255


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file through a temporary one beside it, and give its path.

    As :func:`replacing` does, in one call.

    Args:
        path: of the file; an existing one is replaced.
        content: text, written as UTF-8, or bytes.

    Raises:
        OSError: it cannot be written there; the message names the folder. An old file is untouched.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return Path(path)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write into, which takes the path's place when the block has ended without an error.

    Whoever opens the path finds the old content or the new one, never a part, also after a power
    cut: what was written lies on the disk before it gets the name. If the block raises, the old
    file is as it was. A link is followed, an old file's permissions are kept, from the first byte
    on, and folders that are missing are made.

    A process that is killed leaves its temporary file, ``.NAME.HOST.PROCESS.TOKEN.tmp``. The next
    writer of the same path on the same host removes it when that process is gone.

    Args:
        path: of the file; an existing one is replaced.

    Raises:
        OSError: it cannot be written there, or the path is something else than a file; with its
            ``errno``. The message names the folder.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "numbers")
    >>> with replacing(path) as file:
    ...     _ = file.write(b"1 2 3")
    ...     path.exists()
    False
    >>> path.read_bytes()
    b'1 2 3'
    """
    target = Path(os.path.realpath(path))
    temporary = beside(target)
    _ACTIVE.add(temporary.name)
    try:
        _check_target(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        with _opened_as(target, temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a name that outlives a power cut must not stand for nothing
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot write {target.name} in {target.parent}: {reason}"
        # OSError itself picks the class that belongs to the number.
        raise OSError(error.errno, f"{message}; choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _ACTIVE.discard(temporary.name)


@contextlib.contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[str]:
    """A name for the very file that is at the path now, until the block ends.

    A reader that opens a file twice by its path may find two files, if another is put in its place
    meanwhile: with this name it finds one.

    Args:
        path: of the file.

    Raises:
        OSError: there is no such file, it cannot be read, or it is something else than a file; with
            its ``errno``. The message names the path.

    >>> import tempfile
    >>> path = write_whole(Path(tempfile.mkdtemp(), "numbers"), "1 2 3")
    >>> with held(path) as name:
    ...     _ = write_whole(path, "4 5 6")
    ...     Path(name).read_text()
    '1 2 3'
    """
    # A pipe without a writer must not make us wait.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_regular(os.fstat(file).st_mode, os.fspath(path))
        name = f"/proc/self/fd/{file}"
        yield name if os.path.exists(name) else os.fspath(path)
    finally:
        os.close(file)


class Stream:
    """Writes a large file from one place on, and has the disk work meanwhile.

    Otherwise the system gathers what is written, and all of it is still to do when the file is
    synced at the end.

    Args:
        file: to write into.
        start: where to begin, in bytes.
    """

    def __init__(self, file: BinaryIO, start: int) -> None:
        file.seek(start)
        self._file, self._begun, self._end = file, start, start

    def write(self, data: memoryview) -> None:
        """Write at the end of what was written so far."""
        self._file.write(data)
        self._end += len(data)
        if self._end - self._begun >= _AHEAD and hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # it is advice: that these pages may go to the disk
                os.posix_fadvise(
                    self._file.fileno(), self._begun, self._end - self._begun,
                    os.POSIX_FADV_DONTNEED,
                )  # fmt: skip
            self._begun = self._end


def beside(path: Path) -> Path:
    """A name for a temporary file in another's folder, which no other call gives."""
    return path.with_name(f"{_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _prefix(path: Path) -> str:
    name, host = path.name, re.sub(r"[^\w-]", "-", socket.gethostname())[:40]
    if len(os.fsencode(name)) > _LONGEST:
        name = f"{name[:20]}~{zlib.crc32(os.fsencode(name)):08x}"
    return f".{name}.{host}."


def _check_target(target: Path) -> None:
    """Raise for what must not be replaced by a file: a folder, a device."""
    with contextlib.suppress(FileNotFoundError):
        _check_regular(target.stat().st_mode, os.fspath(target))


def _check_regular(mode: int, path: str) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "what has this name is no regular file", path)


def _remove_leftovers(target: Path) -> None:
    """Remove temporary files for the same path whose writers are gone."""
    prefix = _prefix(target)
    ours = re.compile(re.escape(prefix) + r"(\d{1,9})\.[0-9a-f]{8}\.tmp")
    with contextlib.suppress(OSError):  # the folder may not be listed: then they stay
        for name in os.listdir(target.parent):
            if (found := ours.fullmatch(name)) and _is_left(name, int(found[1])):
                (target.parent / name).unlink(missing_ok=True)


def _is_left(name: str, process: int) -> bool:
    if process == os.getpid():  # numbers come again: it may be another one's
        return name not in _ACTIVE
    if os.name != "posix":  # where this call would end the process that it asks for
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is there, another user's
    return False


def _opened_as(target: Path, temporary: Path) -> BinaryIO:
    """A new file that has the permissions of the old one before its first byte."""
    try:
        mode = stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        return open(temporary, "xb")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o600)
    with contextlib.suppress(OSError):  # some file systems have none
        os.chmod(descriptor if os.chmod in os.supports_fd else temporary, mode)
    return os.fdopen(descriptor, "wb")


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk; some systems and file systems have no such call."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder that may be written but not listed
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
