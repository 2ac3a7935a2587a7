"""What stands at the beginning of a file: its text, and the check that a text is sound.

JSON, ``{"format": 1, "versions": {library: version}, "saved": time, "kinds": {part: kind}, "parts":
{part: tree}, "tensors": {name: [dtype, shape, digest]}}``. Trees are those of
:mod:`thalweg.checkpoint.tree`, kinds those of :data:`KINDS`; the time is ISO 8601, UTC.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from thalweg.checkpoint import tree
from thalweg.names import printable

FORMAT = 1
# What a part was before it became data.
DATA, MODULE, OPTIMIZER, GENERATOR, OBJECT = KINDS = (
    "data", "module", "optimizer", "generator", "object",
)  # fmt: skip
RANDOM_STATE = "_random_state"  # the part that save() adds itself
BEGIN = '{"format":'  # of each text
_REMEDY = "use another file; thalweg.checkpoint.latest(folder) finds the newest that is whole"


class CheckpointError(ValueError):
    """A file that is no checkpoint, or one that is damaged. Nothing was changed."""


def broken(path: Path, reason: str, remedy: str = _REMEDY) -> CheckpointError:
    """The error for a file, with what is wrong with it."""
    return CheckpointError(printable(f"checkpoint: {path}: {reason}; {remedy}"))


@dataclass(frozen=True)
class Entry:
    """What a header says of a tensor as it is stored."""

    dtype: str  # safetensors' name
    shape: tuple[int, ...]
    digest: str

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * tree.DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        saved: when it was written; UTC.
        versions: library: version that wrote it.
        kinds: part: what it was, one of :data:`KINDS`.
        trees: part: its form, see :mod:`thalweg.checkpoint.tree`.
        entries: tensor's name: what the header says of it.
    """

    saved: datetime
    versions: Mapping[str, str]
    kinds: Mapping[str, str]
    trees: Mapping[str, Any]
    entries: Mapping[str, Entry]

    def with_digests(self, digests: Mapping[str, str]) -> "Header":
        """The same with the tensors' digests; its text is as long."""
        entries = {name: replace(e, digest=digests[name]) for name, e in self.entries.items()}
        return replace(self, entries=entries)

    def text(self) -> str:
        """As JSON."""
        told = {
            "format": FORMAT,
            "versions": self.versions,
            "saved": self.saved.isoformat(),
            "kinds": self.kinds,
            "parts": self.trees,
            "tensors": {name: [e.dtype, e.shape, e.digest] for name, e in self.entries.items()},
        }
        return json.dumps(told, separators=(",", ":"), allow_nan=False)


def parse(path: Path, text: str) -> Header:
    """The header that a text gives.

    Args:
        path: of the file, for messages.
        text: as :meth:`Header.text` gives it, or anything else.

    Raises:
        CheckpointError: it is none.
    """
    try:
        told = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise broken(path, f"the header cannot be read ({error!s:.200})") from error
    if not isinstance(told, dict):
        raise broken(path, f"the header must be a dict, got {type(told).__name__}")
    number = told.get("format")
    if type(number) is int and number > FORMAT:
        reason = f"it has format {number}, this thalweg reads {FORMAT}"
        raise broken(path, reason, "update thalweg")
    saved = _time(path, told.get("saved"))
    versions, kinds, trees, entries = (
        told.get(name) for name in ("versions", "kinds", "parts", "tensors")
    )
    if (
        number != FORMAT
        or not isinstance(versions, dict)
        or not all(isinstance(version, str) for version in versions.values())
        or not isinstance(trees, dict)
        or not isinstance(kinds, dict)
        or kinds.keys() != trees.keys()
        or not all(kind in KINDS for kind in kinds.values())
        or not isinstance(entries, dict)
    ):
        raise broken(path, "the header is not one of a checkpoint")
    checked = {name: _entry(path, name, entry) for name, entry in entries.items()}
    return Header(saved, versions, kinds, trees, checked)


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


def _entry(path: Path, name: str, entry: Any) -> Entry:
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
