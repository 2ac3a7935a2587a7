"""The folder of a race: its result as JSON, written so that nothing is lost."""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from thalweg.files import beside, write_whole
from thalweg.race.result import Result

NAME = "race.json"


def prepare(
    folder: str | Path, resume: bool, notice: Callable[[str], None] = lambda text: None
) -> Result | None:
    """Make the folder ready before the race begins; the result to go on from, if there is one.

    Args:
        folder: is made if it does not exist.
        resume: read the result that is there. Without it, that result is moved to
            ``race.previous.json``, or to ``race.previous.2.json`` and so on if there is one.
        notice: called with what the user should know: that a result was moved, or that there is
            none to go on from.

    Raises:
        OSError: it is no folder, or cannot be written to.
        ValueError: the result there is broken; see :func:`read_result`.
    """
    folder = Path(folder)
    path = folder / NAME
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"race: {folder} is a file, not a folder; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = beside(path)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise type(error)(
            f"race: cannot write to the folder {folder}: {error.strerror}; choose another folder"
        ) from error
    if not path.exists():
        if resume:
            notice(f"there is no race to go on with in {folder}; a new one begins")
        return None
    if resume:
        return read_result(folder)
    unfinished = False
    with suppress(ValueError):
        unfinished = not read_result(folder).complete
    kept = _free(folder)
    path.rename(kept)
    remedy = "; it is not complete: rename it and use --resume to go on with it"
    notice(f"the former result is now {kept}{remedy if unfinished else ''}")
    return None


def write_result(folder: str | Path, result: Result) -> Path:
    """Write the result to ``race.json``, whole or not at all; the path.

    Raises:
        OSError: it cannot be written; a result that was there before still is.
    """
    return write_whole(Path(folder) / NAME, result.to_json())


def read_result(folder: str | Path) -> Result:
    """The result in ``race.json``.

    Raises:
        ValueError: it is no result; the message says what is wrong with it. The file stays as it
            is.
        OSError: it cannot be read.
    """
    path = Path(folder) / NAME
    try:
        return Result.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"race: {path} cannot be read: {error}; move it away, or begin a new race without "
            "--resume, which keeps it under another name"
        ) from error


def _free(folder: Path) -> Path:
    """The first of race.previous.json, race.previous.2.json, ... that does not exist."""
    paths = (folder / f"race.previous{'' if n == 1 else f'.{n}'}.json" for n in count(1))
    return next(path for path in paths if not path.exists())
