"""The newest checkpoint of a folder that is whole."""

import os
import warnings
from pathlib import Path

from thalweg.checkpoint.container import opened
from thalweg.checkpoint.header import CheckpointError


def latest(folder: str | os.PathLike[str], pattern: str = "*.safetensors") -> Path:
    """The path of the newest checkpoint that is whole, by the time of saving that is in it.

    Each digest of that file is checked. Other safetensors files are left aside.

    Args:
        folder: where checkpoints lie.
        pattern: of their names, as ``Path.glob`` has it.

    Raises:
        FileNotFoundError: there is no whole one, or no such folder.
        NotADirectoryError: it is a file.

    Warns:
        UserWarning: for each damaged or unreadable file that it comes upon, by name.

    >>> import tempfile
    >>> from thalweg import checkpoint
    >>> folder = tempfile.mkdtemp()
    >>> for step in (9, 10):
    ...     _ = checkpoint.save(f"{folder}/{step}.safetensors", step=step)
    >>> checkpoint.latest(folder).name
    '10.safetensors'
    """
    root = Path(folder)
    if not root.is_dir():
        if root.exists():
            raise NotADirectoryError(f"latest: {root} is a file, not a folder; give its folder")
        raise FileNotFoundError(f"latest: there is no folder {root}")
    found = []
    for path in root.glob(pattern):
        try:
            with opened(path) as container:
                if container is not None:
                    found.append((container.saved, path))
        except (FileNotFoundError, IsADirectoryError):
            pass  # removed meanwhile; or a folder of that name
        except (CheckpointError, OSError) as error:
            _warn(error)
    for _, path in sorted(found, reverse=True):
        try:
            with opened(path) as container:
                if container is not None:
                    container.check()
                    return path
        except FileNotFoundError:
            pass
        except (CheckpointError, OSError) as error:
            _warn(error)
    raise FileNotFoundError(
        f"latest: no whole checkpoint among the files {pattern!r} in {root}; there are "
        f"{len(found)} with a sound header"
    )


def _warn(error: Exception) -> None:
    warnings.warn(f"{error}; it is skipped", UserWarning, stacklevel=3)
