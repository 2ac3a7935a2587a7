"""The file: a safetensors file, whose header holds a digest of itself and one of each tensor.

Every reader of safetensors can read the tensors. Two texts stand in the header's ``__metadata__``:
``thalweg``, which :mod:`thalweg.checkpoint.header` describes, and ``digest``, of that text.

What safetensors' own part of the header says of a tensor must be what the text says, so that no bit
of the file can change unnoticed. Digests are XXH3 of 128 bits, in hexadecimal: against accidents.
Whoever forges a file can forge them too.
"""

import json
import os
import platform
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
import xxhash
from torch import Tensor

from thalweg import __version__
from thalweg.checkpoint import tree
from thalweg.checkpoint.decode import decode
from thalweg.checkpoint.header import BEGIN, DATA, CheckpointError, Entry, Header, broken, parse
from thalweg.files import Stream, held, replacing

_TEXT, _DIGEST = "thalweg", "digest"
_CHUNK = 1 << 18  # bytes that are hashed and written at a time: they stay in the cache between
_LARGEST_HEADER = 100_000_000  # what readers of safetensors accept


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
    trees = {name: tree.encode(name, data, flat) for name, data in parts.items()}
    # Safetensors allows no holes: with the large numbers first, each tensor is aligned.
    names = sorted(flat.tensors, key=lambda name: -flat.tensors[name].dtype.itemsize)
    header = Header(
        saved=datetime.now(UTC),
        versions={
            "thalweg": __version__, "torch": torch.__version__, "numpy": np.__version__,
            "python": platform.python_version(),
        },
        kinds={name: (kinds or {}).get(name, DATA) for name in parts},
        trees=trees,
        entries={name: _entry(flat.tensors[name]) for name in names},
    )  # fmt: skip
    space = len(_to_bytes(header))
    if space > _LARGEST_HEADER:
        raise ValueError(
            f"checkpoint: {os.fspath(path)}: plain data and names take {space / 1e6:.0f} MB as "
            "text, 100 MB is what can be read; save long lists of numbers as tensors"
        )
    with replacing(path) as file:
        stream = Stream(file, space)
        digests = {name: _append(stream, flat.tensors[name]) for name in names}
        file.seek(0)
        file.write(_to_bytes(header.with_digests(digests)))
    return Path(path)


def _append(stream: Stream, tensor: Tensor) -> str:
    """Write a tensor's numbers, and give their digest. A copy lives no longer than this call."""
    digest, data = xxhash.xxh3_128(), _bytes_of(tensor)
    for start in range(0, len(data), _CHUNK):
        chunk = data[start : start + _CHUNK]
        digest.update(chunk)
        stream.write(chunk)
    return digest.hexdigest()


def _entry(tensor: Tensor) -> Entry:
    if tensor.is_complex():
        return Entry(tree.DTYPE_NAMES[tensor.dtype.to_real()], (*tensor.shape, 2), "0" * 32)
    return Entry(tree.DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), "0" * 32)


def _to_bytes(header: Header) -> bytes:
    """What comes before the tensors."""
    text = header.text()
    told: dict[str, Any] = {"__metadata__": {_TEXT: text, _DIGEST: _digest(text.encode())}}
    start = 0
    for name, entry in header.entries.items():
        end = start + entry.size
        told[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, end]}
        start = end
    data = json.dumps(told, separators=(",", ":")).encode()
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
        saved, versions, kinds, trees, entries: see :class:`Header`.
    """

    def __init__(self, path: Path, file: Any, header: Header) -> None:
        self.path, self._file = path, file
        self.saved, self.versions, self.kinds = header.saved, header.versions, header.kinds
        self.trees, self.entries = header.trees, header.entries
        self._tensors: dict[str, Tensor] = {}
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
        if name not in self._tensors:
            if name not in self.entries:
                raise KeyError(name)
            with _as_checkpoint_error(self.path):
                self._tensors[name] = self._file.get_tensor(name)
        return self._tensors[name]

    def part(self, name: str) -> Any:
        """The data of a part; its tensors are views of the file.

        Raises:
            KeyError: there is none of this name.
            CheckpointError: its form is broken.
        """
        node = self.trees[name]
        try:
            return decode(node, self.tensor)
        except CheckpointError:
            raise
        except (ValueError, OverflowError, RecursionError) as error:
            raise broken(self.path, f"part {name!r:.200}: {error}") from error

    def check(self) -> None:
        """Raise CheckpointError unless every tensor has its digest. The file is read once."""
        names = iter(list(self.entries))  # each thread takes the next one
        with ThreadPoolExecutor(2) as pool:  # hashing lets other threads run
            first, second = pool.map(self._digests_of, (names, names))
        found = first | second
        for name, entry in self.entries.items():
            if found[name] != entry.digest:
                raise broken(
                    self.path,
                    f"tensor {name!r:.200} has digest {found[name]}, {entry.digest} was written: "
                    "the file is damaged",
                )

    def _digests_of(self, names: Iterator[str]) -> dict[str, str]:
        return {name: _digest(_bytes_of(self.tensor(name))) for name in names}


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Container | None]:
    """Open a file and check its header; None for a safetensors file that is not a checkpoint.

    Tensors are not checked yet: see :meth:`Container.check`.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        CheckpointError: it is no safetensors file, or its header is damaged.
    """
    # safe_open opens it twice, and a writer may replace it meanwhile.
    with held(path) as name, opened_held(Path(path), name) as container:
        yield container


@contextmanager
def opened_held(path: Path, name: str) -> Iterator[Container | None]:
    """The same for a file that is held already, under the name that it has so."""
    with _as_checkpoint_error(path):
        file: Any = safetensors.safe_open(name, framework="pt")
    with file:
        metadata = file.metadata() or {}
        # The text tells it too: with a damaged key, the file must not pass for another kind.
        if _TEXT not in metadata and not any(t.startswith(BEGIN) for t in metadata.values()):
            yield None
            return
        text, digest = metadata.get(_TEXT), metadata.get(_DIGEST)
        if text is None or _digest(text.encode()) != digest:
            raise broken(path, "the header does not have its digest: it is damaged")
        yield Container(path, file, parse(path, text))


def plain_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file that is held under a name; views of it."""
    with _as_checkpoint_error(path), safetensors.safe_open(name, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no dict


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


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"{name!r:.100}" for name in names[:5]) + more
