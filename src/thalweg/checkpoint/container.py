"""The file: a safetensors file, whose header holds a digest of itself and one of each tensor.

Every reader of safetensors can read the tensors. Two texts stand in the header's ``__metadata__``:

- ``thalweg``: JSON, ``{"format": 1, "versions": {library: version}, "saved": time, "kinds": {part:
  kind}, "parts": {part: tree}, "tensors": {name: [dtype, shape, digest]}}``. Trees are those of
  :mod:`thalweg.checkpoint.tree`, kinds those of :data:`KINDS`; the time is ISO 8601, UTC;
- ``digest``: of that text.

What safetensors' own part of the header says of a tensor must be what the text says, so that no bit
of the file can change unnoticed. Digests are XXH3 of 128 bits, in hexadecimal: against accidents.
Whoever forges a file can forge them too.
"""

import json
import os
import platform
import stat
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import torch
import xxhash
from torch import Tensor

from thalweg import __version__
from thalweg.checkpoint import tree
from thalweg.files import replacing

FORMAT = 1
# What a part was before it became data.
DATA, MODULE, OPTIMIZER, GENERATOR, OBJECT = KINDS = (
    "data", "module", "optimizer", "generator", "object",
)  # fmt: skip
RANDOM_STATE = "_random_state"  # the part that save() adds itself
_TEXT, _DIGEST = "thalweg", "digest"
_BEGIN = '{"format":'
_CHUNK = 1 << 20  # bytes that are hashed and written at a time: they stay in the cache between
_LARGEST_HEADER = 100_000_000  # what readers of safetensors accept
_REMEDY = "use another file; thalweg.checkpoint.latest(folder) finds the newest that is whole"


class CheckpointError(ValueError):
    """A file that is no checkpoint, or one that is damaged. Nothing was changed."""


def broken(path: Path, reason: str, remedy: str = _REMEDY) -> CheckpointError:
    return CheckpointError(f"checkpoint: {path}: {reason}; {remedy}")


@dataclass(frozen=True)
class Entry:
    """What a header says of a tensor as it is stored."""

    dtype: str  # safetensors' name
    shape: tuple[int, ...]
    digest: str


def write(
    path: str | os.PathLike[str],
    parts: Mapping[str, Any],
    kinds: Mapping[str, str] | None = None,
) -> Path:
    """Write a file with these parts, whole or not at all.

    Tensors are written one after the other; those that are not on the CPU or not contiguous are
    copied for that, one at a time.

    Args:
        path: of the file; an existing one is replaced when the new one is safe on the disk.
        parts: name: nested data.
        kinds: name: what the part was, one of :data:`KINDS`; "data" where nothing is told.

    Raises:
        TypeError: something cannot be saved; the message says where it is.
        ValueError: nested too deep, or more than 100 MB of plain data.
        OSError: the file cannot be written. What was there before still is.
    """
    flat = tree.Flat()
    told = {
        "kinds": {name: (kinds or {}).get(name, DATA) for name in parts},
        "parts": {name: tree.encode(name, data, flat) for name, data in parts.items()},
    }
    # Safetensors allows no holes: with the large numbers first, each tensor is aligned.
    names = sorted(flat.tensors, key=lambda name: -flat.tensors[name].dtype.itemsize)
    entries = {name: _entry(flat.tensors[name]) for name in names}
    saved = datetime.now(UTC).isoformat()
    space = len(_header(told, entries, saved))
    if space > _LARGEST_HEADER:
        raise ValueError(
            f"checkpoint: {os.fspath(path)}: plain data and names take {space / 1e6:.0f} MB as "
            "text, 100 MB is what can be read; save long lists of numbers as tensors"
        )
    with replacing(path) as file:
        file.seek(space)
        for name in names:
            entries[name] = replace(entries[name], digest=_append(file, flat.tensors[name]))
        file.seek(0)
        file.write(_header(told, entries, saved))
    return Path(path)


def _append(file: BinaryIO, tensor: Tensor) -> str:
    """Write a tensor's numbers, and give their digest. A copy lives no longer than this call."""
    digest, data = xxhash.xxh3_128(), _bytes_of(tensor)
    for start in range(0, len(data), _CHUNK):
        chunk = data[start : start + _CHUNK]
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()


def _entry(tensor: Tensor) -> Entry:
    if tensor.is_complex():
        return Entry(tree.DTYPE_NAMES[tensor.dtype.to_real()], (*tensor.shape, 2), "0" * 32)
    return Entry(tree.DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), "0" * 32)


def _size(entry: Entry) -> int:
    # Python's integers: a forged shape must not overflow.
    size = tree.DTYPES[entry.dtype].itemsize
    for length in entry.shape:
        size *= length
    return size


def _header(told: Mapping[str, Any], entries: Mapping[str, Entry], saved: str) -> bytes:
    """What comes before the tensors; as long with any digests."""
    text = json.dumps(
        {
            "format": FORMAT,
            "versions": {
                "thalweg": __version__, "torch": torch.__version__, "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "saved": saved,
            **told,
            "tensors": {name: [e.dtype, e.shape, e.digest] for name, e in entries.items()},
        },
        separators=(",", ":"),
        allow_nan=False,
    )  # fmt: skip
    header: dict[str, Any] = {"__metadata__": {_TEXT: text, _DIGEST: _digest(text.encode())}}
    start = 0
    for name, entry in entries.items():
        end = start + _size(entry)
        header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, end]}
        start = end
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-(len(data) + 8) % 64)
    return struct.pack("<Q", len(data)) + data


def _bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's numbers in order, copied only where they do not lie so in the CPU's memory."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    # Not reshape: one element is contiguous with any stride, and keeps it.
    flat = plain.contiguous().as_strided((plain.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data


def _digest(data: bytes | memoryview) -> str:
    digest = xxhash.xxh3_128()
    for start in range(0, len(data), _CHUNK):
        digest.update(data[start : start + _CHUNK])
    return digest.hexdigest()


class Container:
    """An open file whose header was found whole. Tensors are views of it, made when asked for.

    Attributes:
        path: of the file.
        saved: when it was written; UTC.
        versions: library: version that wrote it.
        kinds: part: what it was, one of :data:`KINDS`.
        trees: part: its form, see :mod:`thalweg.checkpoint.tree`.
        entries: tensor's name: what the header says of it.
    """

    def __init__(self, path: Path, file: Any, text: str) -> None:
        self.path, self._file = path, file
        header = _parse(path, text)
        number = header.get("format")
        if type(number) is int and number > FORMAT:
            raise broken(
                path,
                f"it has format {number}, this thalweg reads {FORMAT}",
                "update thalweg",
            )
        self.saved = _time(path, header.get("saved"))
        self.versions: dict[str, str] = header.get("versions")  # type: ignore[assignment]
        self.trees: dict[str, Any] = header.get("parts")  # type: ignore[assignment]
        self.kinds: dict[str, str] = header.get("kinds")  # type: ignore[assignment]
        entries = header.get("tensors")
        if (
            number != FORMAT
            or not isinstance(self.versions, dict)
            or not all(isinstance(version, str) for version in self.versions.values())
            or not isinstance(self.trees, dict)
            or not isinstance(self.kinds, dict)
            or self.kinds.keys() != self.trees.keys()
            or not all(kind in KINDS for kind in self.kinds.values())
            or not isinstance(entries, dict)
        ):
            raise broken(path, "the header is not one of a checkpoint")
        self.entries = {name: _read_entry(path, name, entry) for name, entry in entries.items()}
        self._compare()

    def _compare(self) -> None:
        """Raise unless safetensors' part of the header says the same."""
        listed = set(self._file.keys())
        if odd := sorted(listed.symmetric_difference(self.entries)):
            raise broken(
                self.path, f"{_some(odd)} stand in one list of tensors and not in the other"
            )
        for name, entry in self.entries.items():
            found = self._file.get_slice(name)
            dtype, shape = found.get_dtype(), tuple(found.get_shape())
            if (dtype, shape) != (entry.dtype, entry.shape):
                raise broken(
                    self.path,
                    f"tensor {name!r:.200} should be {entry.dtype} {list(entry.shape)}, the file "
                    f"says {dtype} {list(shape)}",
                )

    def tensor(self, name: str) -> Tensor:
        """A tensor as it is stored, a view of the file; what is written to it stays in memory.

        Raises:
            KeyError: there is none of this name.
        """
        if name not in self.entries:
            raise KeyError(name)
        with _as_checkpoint_error(self.path):
            found: Tensor = self._file.get_tensor(name)
            return found

    def part(self, name: str) -> Any:
        """The data of a part; its tensors are views of the file.

        Raises:
            KeyError: there is none of this name.
            CheckpointError: its form is broken.
        """
        node = self.trees[name]
        try:
            return tree.decode(node, self.tensor)
        except CheckpointError:
            raise
        except (ValueError, OverflowError, RecursionError) as error:
            raise broken(self.path, f"part {name!r:.200}: {error}") from error

    def check(self) -> None:
        """Raise CheckpointError unless every tensor has its digest. The file is read once."""
        with ThreadPoolExecutor(2) as pool:  # hashing lets other threads run
            for name, found in zip(
                self.entries, pool.map(self._digest_of, self.entries), strict=True
            ):
                if found != self.entries[name].digest:
                    raise broken(
                        self.path,
                        f"tensor {name!r:.200} has digest {found}, {self.entries[name].digest} was "
                        "written: the file is damaged",
                    )

    def _digest_of(self, name: str) -> str:
        return _digest(_bytes_of(self.tensor(name)))


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Container | None]:
    """Open a file and check its header; None for a safetensors file that is not a checkpoint.

    Tensors are not checked yet: see :meth:`Container.check`.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        CheckpointError: it is no safetensors file, or its header is damaged.
    """
    target = Path(path)
    check_file(target)
    with _as_checkpoint_error(target):
        file: Any = safetensors.safe_open(target, framework="pt")
    with file:
        metadata = file.metadata() or {}
        # The text tells it too: with a damaged key, the file must not pass for another kind.
        if _TEXT not in metadata and not any(t.startswith(_BEGIN) for t in metadata.values()):
            yield None
            return
        text, digest = metadata.get(_TEXT), metadata.get(_DIGEST)
        if text is None or _digest(text.encode()) != digest:
            raise broken(target, "the header does not have its digest: it is damaged")
        yield Container(target, file, text)


def plain_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, views of it."""
    with _as_checkpoint_error(path), safetensors.safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict


def check_file(path: Path) -> None:
    """Raise OSError unless there is a file that can be read."""
    with open(path, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"checkpoint: {path} is no regular file")


@contextmanager
def _as_checkpoint_error(path: Path) -> Iterator[None]:
    """What safetensors and torch say of broken contents, in our words."""
    try:
        yield
    except OSError:
        raise
    except (safetensors.SafetensorError, RuntimeError, TypeError, ValueError) as error:
        reason = f"it is no whole safetensors file ({str(error).splitlines()[0]:.200})"
        raise broken(path, f"{reason}: truncated, damaged or of another kind") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise broken(path, f"the header cannot be read ({error!s:.200})") from error
    if not isinstance(header, dict):
        raise broken(path, f"the header must be a dict, got {type(header).__name__}")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _time(path: Path, text: Any) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        found = None
    if found is None or found.tzinfo is None:
        raise broken(path, f"the time of saving must be ISO 8601, got {text!r:.80}")
    return found


def _read_entry(path: Path, name: str, entry: Any) -> Entry:
    try:
        dtype, shape, digest = entry
        sound = (
            dtype in tree.DTYPES
            and isinstance(shape, list)
            and all(type(length) is int and length >= 0 for length in shape)
            and isinstance(digest, str)
        )
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise broken(
            path,
            f"tensor {name!r:.200} must have a dtype, a shape and a digest, got {entry!r:.200}",
        )
    return Entry(dtype, tuple(shape), digest)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"{name!r:.100}" for name in names[:5]) + more
