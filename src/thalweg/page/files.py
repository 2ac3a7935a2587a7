"""Writing a file so that it is there whole or not at all."""

import contextlib
import os
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file through a temporary one beside it, and give its path.

    Whoever opens the file finds the old content or the new one, never a part. Folders that are
    missing are made.

    Args:
        path: of the file; an existing one is replaced.
        content: text, written as UTF-8, or bytes.

    Raises:
        OSError: it cannot be written there; the message names the folder. An old file is untouched.
    """
    target = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a name that outlives a power cut must not stand for nothing
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot write {target.name} in {target.parent.absolute()}: {reason}"
        raise type(error)(error.errno, f"{message}; choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def beside(path: Path) -> Path:
    """The name of a temporary file for another, in its folder; of this process alone."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
