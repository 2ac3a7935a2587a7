"""What is in a checkpoint, as data: for ``thalweg inspect``, and for whoever asks."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.checkpoint.container import Container
from thalweg.checkpoint.entries import Contents, Optimizer, Parameter, Part, Stored, Value
from thalweg.checkpoint.foreign import Source, opened_any
from thalweg.checkpoint.header import DATA, OPTIMIZER, RANDOM_STATE
from thalweg.checkpoint.numbers import components, numbers
from thalweg.engine.readable import memory_of
from thalweg.optim.state_dict.form import Saved, parse

Key = tuple[Any, ...]  # where an entry is in the nested data
Progress = Callable[[float, str], None]

CHECKPOINT, SAFETENSORS, TORCH = "thalweg", "safetensors", "torch.save"
RANDOM = "random state"


def inspect(path: str | os.PathLike[str], progress: Progress | None = None) -> Contents:
    """What is in a file: ours, a plain safetensors file, or one of ``torch.save``.

    The file is read twice, for its digests and for its numbers; it is never in memory as a whole.

    Args:
        path: of the file.
        progress: called with the fraction done, 0 to 1, and the part that is looked at.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        CheckpointError: it is damaged, or of another kind.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "weights.pt")
    >>> torch.save({"fc.weight": torch.tensor([1.0, torch.nan])}, path)
    >>> contents = inspect(path)
    >>> [(entry.name, entry.nonfinite) for entry in contents.nonfinite]
    [('model/fc.weight', 1)]
    """
    with opened_any(path) as source:
        data = parts_in(source)
        total = sum(_size(leaf) for part in data.values() for _, leaf in leaves(part))
        look = _Look(total, progress or (lambda fraction, doing: None))
        return Contents(
            path=os.fspath(path),
            format=_format(source),
            size=Path(path).stat().st_size,
            saved=source.saved if isinstance(source, Container) else None,
            versions=dict(source.versions) if isinstance(source, Container) else {},
            parts=tuple(
                look.part(name, kind_of(source, name), part) for name, part in data.items()
            ),
            checked=isinstance(source, Container),
        )


def parts_in(source: Source) -> dict[str, Any]:
    """The data of all parts; in the order of layers where the file keeps no order."""
    data = {name: source.part(name) for name in source.kinds}
    if _format(source) == SAFETENSORS:
        return {name: dict(sorted(part.items(), key=_natural)) for name, part in data.items()}
    return data


def kind_of(source: Source, name: str) -> str:
    """What a part is; the random states that ``save`` adds are a kind of their own."""
    return RANDOM if name == RANDOM_STATE else source.kinds[name]


def leaves(data: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Tensors and plain values of nested data, with the keys that lead to them.

    Lists are taken apart only where there are tensors or dicts in them.

    >>> list(leaves({"betas": (0.9, 0.99), "history": [{"loss": 1.0}]}))
    [(('betas',), (0.9, 0.99)), (('history', 0, 'loss'), 1.0)]
    """
    if isinstance(data, Mapping) and data:
        for name, value in data.items():
            yield from leaves(value, (*key, name))
    elif isinstance(data, (list, tuple)) and not _is_plain(data):
        for i, value in enumerate(data):
            yield from leaves(value, (*key, i))
    else:
        yield key, _as_tensor(data) if isinstance(data, np.ndarray) else data


def address(part: str, key: Key) -> str:
    """A name for what is there, as the file has it for tensors: ``model/fc.weight``."""
    return "/".join((part, *(each if isinstance(each, str) else f"{each!r:.80}" for each in key)))


def dtype_of(tensor: Tensor) -> str:
    """torch's name, with what else a tensor must have in common with one that it is compared to."""
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return f"{name} without data"
    if tensor.layout is torch.strided:
        return name
    stored = components(tensor)[-1].shape[0]
    return f"{name} {str(tensor.layout).removeprefix('torch.')} of {stored}"


class _Look:
    """Looks at the parts of a file one after the other."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.done, self.progress = max(total, 1), 0, progress
        self.seen: dict[Any, Stored] = {}

    def part(self, name: str, kind: str, data: Any) -> Part:
        saved = parsed(data) if kind == OPTIMIZER else None
        if kind == OPTIMIZER and saved is None:
            kind = DATA  # without the form of one it is shown as what it is
        names = {} if saved is None else dict(zip(saved.all_keys, labels(saved), strict=True))
        found = {
            key: self.leaf(address(name, _by_name(key, names)), leaf) for key, leaf in leaves(data)
        }
        return Part(
            name,
            kind,
            tensors=tuple(leaf for leaf in found.values() if isinstance(leaf, Stored)),
            values=tuple(leaf for leaf in found.values() if isinstance(leaf, Value)),
            optimizer=None if saved is None else _optimizer(saved, names, found),
        )

    def leaf(self, name: str, leaf: Any) -> Stored | Value:
        if not isinstance(leaf, Tensor):
            return Value(name, leaf)
        self.progress(self.done / self.total, name.partition("/")[0])
        memory = _memory(leaf)
        earlier = self.seen.get(memory)
        stored = Stored(
            name=name,
            dtype=dtype_of(leaf),
            shape=tuple(leaf.shape),
            elements=leaf.numel(),
            bytes=_size(leaf),
            numbers=numbers(leaf) if earlier is None else earlier.numbers,
            value=leaf.item() if memory and not leaf.ndim else None,
            same_as=None if earlier is None else earlier.name,
        )
        if memory is not None:
            self.seen.setdefault(memory, stored)
        self.done += stored.bytes
        return stored


def parsed(data: Any) -> Saved | None:
    """The state dict of an optimizer taken apart; None if it is none."""
    try:
        return parse("inspect", data)
    except (TypeError, ValueError):
        return None


def _by_name(key: Key, names: Mapping[Any, str]) -> Key:
    """The key of a state with its parameter's name in place of the number."""
    if key[:1] != ("state",) or key[1:2] == () or key[1] not in names:
        return key
    return ("state", names[key[1]], *key[2:])


def _optimizer(
    saved: Saved, names: Mapping[Any, str], found: Mapping[Key, Stored | Value]
) -> Optimizer:
    states: dict[Any, dict[str, list[Stored | Value]]] = {}
    for key, leaf in found.items():
        if key[0] == "state" and len(key) > 1:
            of = states.setdefault(key[1], {})
            of.setdefault(str(key[2]) if len(key) > 2 else "", []).append(leaf)
    group_of = {key: k for k, keys in enumerate(saved.keys) for key in keys}
    return Optimizer(
        made_by=saved.made_by,
        by_name=has_names(saved),
        groups=tuple(saved.groups),
        parameters=tuple(
            Parameter(
                name=names.get(key, f"{key}"),
                group=group_of.get(key),
                shape=saved.shapes.get(key, _common_shape(states.get(key, {}))),
                states={name: tuple(each) for name, each in states.get(key, {}).items()},
            )
            for key in (*group_of, *(key for key in states if key not in group_of))
        ),
    )


def has_names(saved: Saved) -> bool:
    """Whether an optimizer's parameters can be told apart by name."""
    names = [name for names in saved.names or () for name in names]
    return saved.names is not None and len(set(names)) == len(set(saved.all_keys))


def labels(saved: Saved) -> list[str]:
    """The names of an optimizer's parameters, all groups' in a row.

    Their numbers where there are no names, or where two parameters have the same.
    """
    if has_names(saved):
        return [name for names in saved.names or () for name in names]
    return [f"{key}" for key in saved.all_keys]


def _common_shape(states: Mapping[str, Sequence[Stored | Value]]) -> tuple[int, ...] | None:
    shapes = {
        leaf.shape for each in states.values() for leaf in each
        if isinstance(leaf, Stored) and leaf.shape
    }  # fmt: skip
    return shapes.pop() if len(shapes) == 1 else None


def _is_plain(data: Any) -> bool:
    """Whether there is neither a tensor nor a dict in it."""
    if isinstance(data, (list, tuple, set)):
        return all(map(_is_plain, data))
    return not isinstance(data, (Tensor, np.ndarray, Mapping))


def _as_tensor(array: "np.ndarray[Any, Any]") -> Any:
    try:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except TypeError:  # of text, say: nothing that can be counted
        return array


def _memory(tensor: Tensor) -> Any:
    """Equal for two tensors that are the same; None where there is no memory."""
    if tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return None
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _size(leaf: Any) -> int:
    if not isinstance(leaf, Tensor):
        return 0
    if leaf.is_meta:
        return 0
    if leaf.layout is torch.strided:
        return memory_of(leaf).numel() * leaf.itemsize
    return sum(each.numel() * each.itemsize for each in components(leaf))


def _natural(item: tuple[str, Any]) -> list[Any]:
    """For an order in which layer 10 comes after layer 9."""
    return [(int(t), "") if t.isdecimal() else (-1, t) for t in re.split(r"(\d+)", item[0])]


def _format(source: Source) -> str:
    if isinstance(source, Container):
        return CHECKPOINT
    with open(source.path, "rb") as file:
        return SAFETENSORS if file.read(9)[8:] == b"{" else TORCH
