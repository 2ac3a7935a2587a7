"""How two checkpoints differ, as data."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from thalweg.checkpoint.contents import (
    Key,
    Progress,
    address,
    dtype_of,
    has_names,
    labels,
    leaves,
    parsed,
    parts_in,
)
from thalweg.checkpoint.entries import plain, written
from thalweg.checkpoint.foreign import Source, opened_any
from thalweg.checkpoint.header import OPTIMIZER
from thalweg.checkpoint.numbers import Changed, changed, overlaps_both
from thalweg.optim.state_dict.form import SHAPES, Saved


@dataclass(frozen=True)
class Alone:
    """What only one of two files has.

    Attributes:
        name: of the entry, or of all that is below it: a part, a parameter's states.
        entries: how many tensors and values that are.
    """

    name: str
    entries: int


@dataclass(frozen=True)
class OtherForm:
    """A tensor that has another dtype or shape in the second file, or is a plain value there.

    Attributes:
        name: of the entry.
        a: dtype and shape in the first file.
        b: in the second.
    """

    name: str
    a: str
    b: str


@dataclass(frozen=True)
class ChangedTensor:
    """A tensor that has other elements in the second file.

    Attributes:
        name: of the entry.
        elements: how many it has.
        changed: how many differ, and how far.
        a: the value in the first file of one that has no dimensions; None for others.
        b: in the second.
    """

    name: str
    elements: int
    changed: Changed
    a: Any = None
    b: Any = None


@dataclass(frozen=True)
class ChangedValue:
    """A plain value that is another one in the second file.

    Attributes:
        name: of the entry.
        a: the value in the first file.
        b: in the second.
    """

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Difference:
    """How two files differ; when and by what they were saved aside.

    Attributes:
        a: the first file.
        b: the second.
        only_a: what the second lacks.
        only_b: what the first lacks.
        forms: tensors of another dtype or shape.
        tensors: those that differ in an element.
        values: those that differ.
        same: how many tensors and values are the same in every bit.
        by_order: optimizers whose parameters have names in one file only, and were compared in
            their order.
    """

    a: str
    b: str
    only_a: tuple[Alone, ...]
    only_b: tuple[Alone, ...]
    forms: tuple[OtherForm, ...]
    tensors: tuple[ChangedTensor, ...]
    values: tuple[ChangedValue, ...]
    same: int
    by_order: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether both hold the same in every bit."""
        return not (self.only_a or self.only_b or self.forms or self.tensors or self.values)

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON can hold it; what is not finite as text."""
        tensors = [{**asdict(each), **asdict(each.changed)} for each in self.tensors]
        for each in tensors:
            del each["changed"]
        data = {**asdict(self), "tensors": tensors, "identical": self.identical}
        found: dict[str, Any] = plain(data)
        return found


def diff(
    a: str | os.PathLike[str], b: str | os.PathLike[str], progress: Progress | None = None
) -> Difference:
    """How two files differ, each of any kind that :func:`thalweg.checkpoint.inspect` reads.

    Entries are compared by name, optimizers' by that of their parameters, in whatever order or
    groups these are; where one file numbers them, in their order. What is compared are bits: zeros
    of both signs differ, and NaNs that are written otherwise; the count of them is told. The order
    of a dict's entries is no difference. No file is in memory as a whole.

    Args:
        a: the first file.
        b: the second.
        progress: called with the fraction done, 0 to 1, and the part that is compared.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        CheckpointError: one is damaged, or of another kind.

    >>> import tempfile, torch
    >>> a, b = (f"{tempfile.mkdtemp()}/{name}.pt" for name in "ab")
    >>> torch.save({"model": {"w": torch.ones(3)}, "step": 1}, a)
    >>> torch.save({"model": {"w": torch.tensor([1.0, 1.0, 1.5])}, "step": 2}, b)
    >>> found = diff(a, b)
    >>> found.values
    (ChangedValue(name='step', a=1, b=2),)
    >>> found.tensors[0].changed.different, found.tensors[0].changed.largest
    (1, 0.5)
    """
    with opened_any(a) as first, opened_any(b) as second:
        return _Compared(first, second, progress or (lambda fraction, doing: None)).result(a, b)


class _Compared:
    """Compares two files part by part."""

    def __init__(self, a: Source, b: Source, progress: Progress) -> None:
        self.sources, self.progress = (a, b), progress
        self.forms: list[OtherForm] = []
        self.tensors: list[ChangedTensor] = []
        self.values: list[ChangedValue] = []
        self.same = 0
        self.by_order: list[str] = []

    def result(self, a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Difference:
        first, second = self.entries()
        both = [key for key in first if key in second]
        total = max(1, sum(_elements(first[key]) for key in both))
        done = 0
        for key in both:
            self.progress(done / total, key[0])
            self.compare(address(key[0], key[1:]), first[key], second[key])
            done += _elements(first[key])
        return Difference(
            a=os.fspath(a),
            b=os.fspath(b),
            only_a=tuple(_alone(first, second)),
            only_b=tuple(_alone(second, first)),
            forms=tuple(self.forms),
            tensors=tuple(self.tensors),
            values=tuple(self.values),
            same=self.same,
            by_order=tuple(self.by_order),
        )

    def entries(self) -> tuple[dict[Key, Any], dict[Key, Any]]:
        """Everything by part and key, of both files."""
        found: tuple[dict[Key, Any], dict[Key, Any]] = {}, {}
        data = [parts_in(source) for source in self.sources]
        for name in dict.fromkeys(name for source in self.sources for name in source.kinds):
            optimizers = [
                parsed(parts[name]) if source.kinds.get(name) == OPTIMIZER else None
                for source, parts in zip(self.sources, data, strict=True)
            ]
            names = _names(*optimizers)
            if names is not None:
                self.by_order.append(name)
            for entries, parts, saved in zip(found, data, optimizers, strict=True):
                if saved is not None:
                    part = _by_parameter(parts[name], saved, names or labels(saved))
                elif name in parts:
                    part = parts[name]
                else:
                    continue
                entries.update({(name, *key): leaf for key, leaf in leaves(part)})
        return found

    def compare(self, name: str, a: Any, b: Any) -> None:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if dtype_of(a) == dtype_of(b) and a.shape == b.shape and not _expanded_apart(a, b):
                found = changed(a, b)
                if found.different:
                    values = () if a.ndim else (a.item(), b.item())
                    self.tensors.append(ChangedTensor(name, a.numel(), found, *values))
                else:
                    self.same += 1
            else:
                self.forms.append(OtherForm(name, _form(a), _form(b)))
        elif isinstance(a, Tensor) or isinstance(b, Tensor):
            self.forms.append(OtherForm(name, _form(a), _form(b)))
        elif _same_value(a, b):
            self.same += 1
        else:
            self.values.append(ChangedValue(name, a, b))


def _names(a: Saved | None, b: Saved | None) -> list[str] | None:
    """The parameters' names, if one file has names and the other as many numbers."""
    if a is None or b is None or has_names(a) == has_names(b):
        return None
    return labels(a if has_names(a) else b) if len(a.all_keys) == len(b.all_keys) else None


def _by_parameter(part: Any, saved: Saved, names: list[str]) -> dict[str, Any]:
    """An optimizer's data with all that belongs to a parameter under its name."""
    name_of = dict(zip(saved.all_keys, names, strict=True))
    shapes = {name_of[key]: shape for key, shape in saved.shapes.items()}
    return {
        **{key: value for key, value in part.items() if key != SHAPES},
        **({SHAPES: shapes} if shapes else {}),
        "state": {name_of.get(key, key): value for key, value in saved.state.items()},
        "param_groups": dict(enumerate(saved.groups)),
        "group": {name_of[key]: k for k, keys in enumerate(saved.keys) for key in keys},
    }


def _alone(entries: Mapping[Key, Any], others: Mapping[Key, Any]) -> Iterator[Alone]:
    known = {key[:n] for key in others for n in range(len(key) + 1)}
    counts: dict[Key, int] = {}
    for key in entries:
        if key not in others:
            # All of a part, or of a parameter's states, is told in one.
            top = next((key[:n] for n in range(1, len(key)) if key[:n] not in known), key)
            counts[top] = counts.get(top, 0) + 1
    return (Alone(address(top[0], top[1:]), count) for top, count in counts.items())


def _same_value(a: Any, b: Any) -> bool:
    """Of the same type, and in every bit: zeros of both signs differ, NaN and NaN do not."""
    if isinstance(a, set) and isinstance(b, set):  # which keep no order
        return a == b
    try:
        return repr(a) == repr(b)
    except ValueError:  # integers of more digits than Python writes
        return bool(a == b)


def _form(entry: Any) -> str:
    if not isinstance(entry, Tensor):
        return f"no tensor: {written(entry):.80}"
    return f"{dtype_of(entry)} {list(entry.shape)}"


def _expanded_apart(a: Tensor, b: Tensor) -> bool:
    """Whether both are expanded, in other dimensions: only the shape bounds a comparison."""
    return overlaps_both(a, b) and a.stride() != b.stride()


def _elements(entry: Any) -> int:
    return entry.numel() if isinstance(entry, Tensor) else 0
