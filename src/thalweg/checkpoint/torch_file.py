"""Reading what ``torch.save`` wrote: without running code, with nothing taken for granted.

torch's own reader runs no code with ``weights_only=True``, but looks neither at the sums that its
writer left, nor whether a tensor's numbers are where it says.
"""

import errno
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.checkpoint.header import broken
from thalweg.checkpoint.numpy_numbers import with_numpy_numbers
from thalweg.engine.layout import PLAIN_TENSORS
from thalweg.engine.readable import unreadable

_NAMED = re.compile(r"GLOBAL ([\w.]+)")  # in what torch says of an object that it does not read
_ARRAYS = "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"


def load(path: Path, name: str, mapped: bool) -> Any:
    """The data of a file that is held under a name; tensors are views of it.

    Args:
        path: of the file, for messages.
        name: to open it with.
        mapped: whether it is an archive; else it is from before torch 1.6.

    Raises:
        CheckpointError: it is damaged, holds objects, or tensors without sound numbers.
        OSError: it cannot be read.
    """
    try:
        wrong = _wrong_archive(name, path.stat().st_size) if mapped else None
        if wrong is None:
            found = with_numpy_numbers(
                lambda: torch.load(name, map_location="cpu", weights_only=True, mmap=mapped)
            )
            wrong = next(_unsound(found), None)
    except pickle.UnpicklingError as error:
        raise broken(
            path,
            f"what torch.save wrote there is damaged or holds objects ({_objects(error)}), and to "
            "read these would run code",
            "save it again as tensors and plain data",
        ) from error
    except Exception as error:  # whatever a damaged pickle leads to
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # EINVAL is what comes of places before the file's begin
        raise broken(path, f"what torch.save wrote there is damaged ({_line(error)})") from error
    if wrong is not None:
        raise broken(path, f"what torch.save wrote there is damaged ({wrong})")
    return found


def _wrong_archive(name: str, size: int) -> str | None:
    """What in an archive is not as torch writes it; None if nothing is."""
    with zipfile.ZipFile(name) as archive:
        entries = archive.infolist()
        if any(each.compress_type != zipfile.ZIP_STORED for each in entries):
            return "it is compressed, which torch.save never does"
        if sum(each.file_size for each in entries) > size:
            return "its entries are larger than the file"
        wrong = archive.testzip() if any(each.CRC for each in entries) else None
        return None if wrong is None else f"{wrong} has another sum"


def _unsound(data: Any) -> Iterator[str]:
    """What must not be used of the data.

    One list that stands in another many times, and so on, is more data than any memory holds: each
    is looked at once, and what all of it amounts to is counted.
    """
    counts: dict[int, int] = {}
    begun: set[int] = set()
    stack: list[tuple[str, int, Any, bool]] = [("", 0, data, False)]
    while stack:
        place, depth, value, through = stack.pop()
        if through:
            begun.discard(id(value))
            counts[id(value)] = 1 + sum(counts.get(id(item), 1) for _, item in _items(value))
            if counts[id(value)] > _MOST:
                yield f"{place} holds the same lists over and over"
        elif id(value) in begun or depth > _DEEPEST:
            yield f"{place} is nested more than {_DEEPEST} levels deep, or holds itself"
            return
        elif isinstance(value, Tensor):
            if (problem := _problem(value)) is not None:
                yield f"the tensor {place} {problem}"
        elif id(value) not in counts and isinstance(value, _CONTAINERS):
            begun.add(id(value))
            stack.append((place, depth, value, True))
            stack += [
                (f"{place}[{key!r:.80}]"[:200], depth + 1, item, False)
                for key, item in _items(value)
            ]


def _problem(tensor: Tensor) -> str | None:
    if type(tensor) not in PLAIN_TENSORS:  # whose methods would run
        return f"is a {type(tensor).__name__}; save a plain tensor, such as its full_tensor()"
    return None if tensor.is_meta else unreadable(tensor)


_MOST, _DEEPEST = 10**7, 100  # entries and levels: more than any program's
_CONTAINERS = (Mapping, list, tuple, set)


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    yield from value.items() if isinstance(value, Mapping) else enumerate(value)


def _objects(error: Exception) -> str:
    """The class or function that torch does not read, if it tells one; else what it says."""
    named = _NAMED.search(str(error))
    if named is None:
        return _line(error)
    if named[1] in _ARRAYS:
        return f"a NumPy array, {named[1]}: make a tensor of it, torch.from_numpy"
    return named[1]


def _line(error: Exception) -> str:
    """The first line of what an error says."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return f"{type(error).__name__}: {(plain.splitlines() or [''])[0]:.120}"
