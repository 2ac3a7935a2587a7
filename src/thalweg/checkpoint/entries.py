"""What a file holds, entry by entry, as data; and that as JSON."""

import math
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from thalweg.checkpoint.numbers import Numbers


@dataclass(frozen=True)
class Stored:
    """A tensor of a file.

    Attributes:
        name: the part and the keys that lead to it, ``optimizer/state/fc.weight/exp_avg``.
        dtype: torch's name; for other layouts with theirs.
        shape: of the tensor.
        elements: their number.
        bytes: that they take.
        numbers: how many are not finite, and the root mean square of the others.
        value: of one that has no dimensions; None for others.
        same_as: the name of an earlier tensor of the file that is the same memory; its bytes count
            once.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    numbers: Numbers
    value: Any = None
    same_as: str | None = None

    @property
    def nonfinite(self) -> int:
        """How many elements are NaN or infinite."""
        return self.numbers.nan + self.numbers.infinite


@dataclass(frozen=True)
class Value:
    """A plain value of a file.

    Attributes:
        name: the part and the keys that lead to it, ``scheduler/last_epoch``.
        value: a number, a string, None, or a list, tuple or set of such.
    """

    name: str
    value: Any

    @property
    def nonfinite(self) -> int:
        """1 for NaN, else 0. Infinity is a sound value: of a best loss that is still to come."""
        return int(isinstance(self.value, (float, complex)) and self.value != self.value)


@dataclass(frozen=True)
class Parameter:
    """What an optimizer keeps for one of its parameters.

    Attributes:
        name: its name, or its number where the file has no names.
        group: the number of its group; None for one that no group lists.
        shape: as the file tells it, else that of its states if all have the same; else None.
        states: state: what it consists of; mostly one tensor or one value.
    """

    name: str
    group: int | None
    shape: tuple[int, ...] | None
    states: Mapping[str, tuple[Stored | Value, ...]]


@dataclass(frozen=True)
class Optimizer:
    """What is kept of an optimizer.

    Attributes:
        made_by: its class; None where the file does not tell it.
        by_name: whether parameters have names.
        groups: the options of each group.
        parameters: those of all groups in a row.
    """

    made_by: str | None
    by_name: bool
    groups: tuple[Mapping[str, Any], ...]
    parameters: tuple[Parameter, ...]

    @property
    def steps(self) -> tuple[float, float] | None:
        """The least and the greatest step count of a parameter; None if one is no number."""
        counts = [e.value for p in self.parameters for e in p.states.get("step", ())]
        if not counts or not all(map(_is_count, counts)):
            return None
        return min(counts), max(counts)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < 2**63


@dataclass(frozen=True)
class Part:
    """A part of a file.

    Attributes:
        name: as it was given to ``save``.
        kind: "module", "optimizer", "generator", "object" (a scheduler, say), "random state" or
            "data".
        tensors: all that are in it.
        values: all plain values that are in it.
        optimizer: the same by parameter, if it is an optimizer.
    """

    name: str
    kind: str
    tensors: tuple[Stored, ...]
    values: tuple[Value, ...]
    optimizer: Optimizer | None = None

    @property
    def entries(self) -> list[Stored | Value]:
        """Tensors, then values."""
        return [*self.tensors, *self.values]

    @property
    def elements(self) -> int:
        """Of all tensors; what is there twice counts once."""
        return sum(tensor.elements for tensor in self.tensors if tensor.same_as is None)

    @property
    def bytes(self) -> int:
        """Of all tensors; what is there twice counts once."""
        return sum(tensor.bytes for tensor in self.tensors if tensor.same_as is None)

    @property
    def dtypes(self) -> dict[str, int]:
        """dtype: bytes of its tensors; the largest first."""
        found: dict[str, int] = {}
        for tensor in self.tensors:
            found[tensor.dtype] = found.get(tensor.dtype, 0) + tensor.bytes * (not tensor.same_as)
        return dict(sorted(found.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Contents:
    """What is in a file.

    Attributes:
        path: of the file.
        format: "thalweg", "safetensors" or "torch.save".
        size: of the file in bytes.
        saved: when, if the file tells it.
        versions: library: version that wrote it, if the file tells it.
        parts: in their order.
        checked: whether every tensor has its digest; False where a file has no digests. A file in
            which one is wrong has no contents: :func:`inspect` raises.
    """

    path: str
    format: str
    size: int
    saved: datetime | None
    versions: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    checked: bool = False

    @property
    def nonfinite(self) -> tuple[Stored | Value, ...]:
        """Tensors with elements that are NaN or infinite, and values that are NaN."""
        return tuple(entry for part in self.parts for entry in part.entries if entry.nonfinite)

    def to_dict(self) -> dict[str, Any]:
        """The contents as JSON can hold them; what is not finite as text."""
        return {
            **{key: getattr(self, key) for key in ("path", "format", "size", "checked")},
            "saved": None if self.saved is None else self.saved.isoformat(),
            "versions": dict(self.versions),
            "nonfinite": [entry.name for entry in self.nonfinite],
            "parts": [_part_to_dict(part) for part in self.parts],
        }


def plain(value: Any) -> Any:
    """A value as JSON can hold it: what is not finite, or of another type, as text."""
    if isinstance(value, Mapping):
        return {f"{key}": plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, Set)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or (isinstance(value, (bool, int, float, str)) and not _is_huge(value)):
        return value
    if isinstance(value, (Stored, Value)):
        return _leaf_to_dict(value)
    return written(value)


def written(value: Any) -> str:
    """A value as Python writes it; an integer in which it would not, in hexadecimal.

    >>> written([1.5, "a"]), len(written(10**5000))
    ("[1.5, 'a']", 4155)
    """
    try:
        return repr(value)
    except ValueError:  # more digits than Python writes
        return hex(value) if isinstance(value, int) else f"{type(value).__name__} of huge numbers"


def _is_huge(value: Any) -> bool:
    return isinstance(value, int) and value.bit_length() > 10_000


def _leaf_to_dict(leaf: Stored | Value) -> dict[str, Any]:
    found = asdict(leaf) if isinstance(leaf, Stored) else {"name": leaf.name, "value": leaf.value}
    found |= found.pop("numbers", {})
    return {key: plain(value) for key, value in found.items()}


def _part_to_dict(part: Part) -> dict[str, Any]:
    found: dict[str, Any] = {
        **{key: getattr(part, key) for key in ("name", "kind", "elements", "bytes", "dtypes")},
        "tensors": [_leaf_to_dict(tensor) for tensor in part.tensors],
        "values": [_leaf_to_dict(value) for value in part.values],
    }
    if (optimizer := part.optimizer) is not None:
        found["optimizer"] = {
            "class": optimizer.made_by,
            "by_name": optimizer.by_name,
            "steps": optimizer.steps,
            "groups": plain(optimizer.groups),
            "parameters": [
                {
                    **{key: getattr(p, key) for key in ("name", "group", "shape")},
                    "states": {
                        name: [leaf.name for leaf in each] for name, each in p.states.items()
                    },
                }
                for p in optimizer.parameters
            ],
        }
    made: dict[str, Any] = plain(found)
    return made
