"""Checkpoints whose headers were written by somebody who means harm, and what may come of them.

A file is taken apart, changed where its structure allows it, and put together again with digests
that are right, mostly: a wrong one would end each attempt at the first check.
"""

from __future__ import annotations

import random
import struct
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

from tests.checkpoint.faults.odd_json import (
    NUMBERS,
    TAGS,
    WORDS,
    Pairs,
    Raw,
    get,
    junk,
    parsed,
    places,
    put,
    written,
)
from tests.checkpoint.faults.subjects import Subject, raised
from thalweg import checkpoint
from thalweg.checkpoint import CheckpointError

# -------------------------------------------------------------------------------------- forgeries


@dataclass
class Forgery:
    """The pieces of a file, to be changed.

    Attributes:
        text: the tree of our part of the header.
        header: of safetensors' part, without the metadata.
        data: of the tensors.
    """

    text: Any
    header: Pairs
    data: bytearray

    @classmethod
    def of(cls, file: bytes) -> Forgery:
        (length,) = struct.unpack("<Q", file[:8])
        header = parsed(file[8 : 8 + length].decode())
        metadata = dict(header.pop(0)[1])
        return cls(parsed(metadata["thalweg"]), header, bytearray(file[8 + length :]))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.header]

    def file(self, *, digests: bool = True, digest: str | None = None) -> bytes:
        """The file, with digests that are right.

        Args:
            digests: of tensors, too.
            digest: of the text; None: the right one.
        """
        if digests:
            self._tell_digests()
        text = written(self.text)
        if digest is None:
            digest = xxhash.xxh3_128(text.encode("utf-8", "surrogatepass")).hexdigest()
        metadata = Pairs([("thalweg", text), ("digest", digest)])
        return framed(written(Pairs([("__metadata__", metadata), *self.header])), self.data)

    def _tell_digests(self) -> None:
        listed = dict(self.text).get("tensors") if isinstance(self.text, Pairs) else None
        offsets = {}
        for name, entry in self.header:
            told = dict(entry).get("data_offsets") if isinstance(entry, Pairs) else None
            if isinstance(told, list) and [type(each) for each in told] == [int, int]:
                offsets[name] = told
        for name, entry in listed if isinstance(listed, Pairs) else []:
            if name in offsets and type(entry) is list and len(entry) == 3:
                begin, end = offsets[name]
                if 0 <= begin <= end <= len(self.data):
                    entry[2] = xxhash.xxh3_128(bytes(self.data[begin:end])).hexdigest()


def framed(header: str, data: bytes | bytearray) -> bytes:
    """A file of safetensors with any text as its header."""
    raw = header.encode("utf-8", "surrogatepass")
    raw += b" " * (-(len(raw) + 8) % 8)
    return struct.pack("<Q", len(raw)) + raw + data


def change_tree(of: Forgery, draw: random.Random) -> None:
    """Something in our text."""
    spots = list(places(of.text))
    spot = draw.choice(spots)
    held, number = spot
    action = draw.randrange(9)
    if action < 4:
        put(spot, junk(draw, of.names))
    elif action == 4:
        del held[number]
    elif action == 5:
        held.insert(draw.randrange(len(held) + 1), held[number])  # twice
    elif action == 6:
        other = draw.choice(spots)
        first, second = written(get(spot)), written(get(other))
        put(spot, Raw(second))
        put(other, Raw(first))
    elif action == 7:
        put(spot, Pairs([(draw.choice(TAGS), get(spot))]))
    elif isinstance(held, Pairs):
        held[number] = (draw.choice([*WORDS, *TAGS, *of.names]), held[number][1])


def change_header(of: Forgery, draw: random.Random) -> None:
    """Something in safetensors' part."""
    spots = list(places(of.header))
    spot = draw.choice(spots)
    held, number = spot
    action = draw.randrange(6)
    if action < 2:
        put(spot, junk(draw, of.names))
    elif action == 2:
        put(spot, draw.choice(NUMBERS))
    elif action == 3:
        del held[number]
    elif action == 4:
        held.insert(draw.randrange(len(held) + 1), held[number])
    elif isinstance(held, Pairs):
        held[number] = (draw.choice([*WORDS, *of.names]), held[number][1])


def change_both(of: Forgery, draw: random.Random) -> None:
    """A tensor in both parts alike: its name, dtype, shape or place."""
    number = draw.randrange(len(of.header))
    name, entry = of.header[number]
    listed = dict(of.text).get("tensors") if isinstance(of.text, Pairs) else None
    if not isinstance(entry, Pairs) or not isinstance(listed, Pairs):
        return
    if not {"dtype", "shape", "data_offsets"} <= dict(entry).keys():
        return
    told = [i for i, (each, item) in enumerate(listed) if each == name and type(item) is list]
    fields = dict(entry)
    action = draw.randrange(5)
    if action == 0:
        new = draw.choice([*WORDS, *of.names])
        of.header[number] = (new, entry)
        for i in told:
            listed[i] = (new, listed[i][1])
        if draw.randrange(2):  # what speaks of it, too
            for spot in places(of.text):
                if get(spot) == name:
                    put(spot, new)
        return
    if action == 1:
        fields["dtype"] = draw.choice(["F64", "F32", "BF16", "I64", "U8", "BOOL", "F8_E5M2", "C64"])
    elif action == 2:
        ones = [1] * draw.choice([1, 2, 70, 1000])
        fields["shape"] = draw.choice(
            [
                *([], [0], [2**62], [0, 2**62], [2**32, 2**32], [2**62, 0, 2**62], [-1], ones),
                *([6, *ones], [*ones, 3], [3, 4], [4, 3], ["1"], [1.0], [True]),
            ]
        )
    elif action == 3:
        offsets = [draw.choice([*NUMBERS, *range(0, 99, 4), len(of.data)]) for _ in range(2)]
        fields["data_offsets"] = draw.choice([offsets, offsets[:1], dict(of.header)[of.names[0]]])
    else:  # the same bytes in another form
        sizes = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "I16": 2, "U8": 1, "BOOL": 1}
        dtype = draw.choice(list(sizes))
        count = draw.choice([8, 12, 24, 32, 96]) // sizes[dtype]
        fields["dtype"] = dtype
        fields["shape"] = draw.choice([[count], [1, count, 1], [count // 2, 2], [count, 0]])
    of.header[number] = (name, Pairs(fields.items()))
    for i in told:
        item = listed[i][1]
        item[:2] = [fields.get("dtype"), fields.get("shape")]


def change_data(of: Forgery, draw: random.Random) -> None:
    """Bytes of the tensors; and more or fewer of them."""
    action = draw.randrange(3)
    place = draw.randrange(len(of.data) + 1)
    if action == 0:
        of.data[place : place + draw.randrange(1, 99)] = draw.randbytes(draw.randrange(99))
    elif action == 1:
        of.data += bytes(draw.randrange(1, 99))
    else:
        of.data[place:] = draw.choice([b"\xff", b"\0"]) * (len(of.data) - place)


CHANGES: list[Callable[[Forgery, random.Random], None]] = [
    *(change_tree, change_tree, change_tree, change_both, change_both, change_header, change_data),
]


def forged(file: bytes, draw: random.Random) -> bytes:
    """The file with one to three changes."""
    of = Forgery.of(file)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        if of.header and isinstance(of.text, list) and of.text:
            draw.choice(CHANGES)(of, draw)
    made = of.file(digests=draw.random() < 0.9, digest=draw.choice([None] * 19 + ["0" * 32]))
    if draw.random() < 0.05:  # a length that is wrong
        (length,) = struct.unpack("<Q", made[:8])
        wrong = [0, 1, length - 1, length + 1, len(made) - 8, 100_000_000, 2**62, 2**63, 2**64 - 1]
        made = struct.pack("<Q", draw.choice(wrong)) + made[8:]
    return made


# --------------------------------------------------------------------------------- what may come

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)


def check_plain(value: Any) -> None:
    """AssertionError for anything that is not data."""
    if type(value) in (list, tuple, set, torch.Size):
        for item in value:
            check_plain(item)
    elif type(value) in (dict, OrderedDict, Counter):
        for key, item in value.items():
            check_plain(key)
            check_plain(item)
        check_plain(getattr(value, "_metadata", None))
    elif type(value) is torch.Tensor:
        assert value.device.type == "cpu"
        assert value.untyped_storage().nbytes() < 1 << 20
    else:
        assert type(value) in (*_PLAIN, np.ndarray), f"{type(value)} came out of a file"


class Victim:
    """Who reads forged files: nothing but the errors that are foreseen may come.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "a.safetensors"
        Subject(0, width=3).save(self.path)
        self.original = self.path.read_bytes()
        self.found: Counter[str] = Counter()
        self._start()

    def _start(self) -> None:
        self.path.write_bytes(self.original)
        self.subject = Subject(0, width=3)
        self.subject.load(self.path)

    def read(self, file: bytes) -> None:
        """Read, inspect and load; the subject is as it was, or has loaded all of it."""
        self.path.write_bytes(file)
        before = self.subject.untouched()
        result: list[Any] = []
        broken = self._raised(
            lambda: result.append(checkpoint.read(self.path)), CheckpointError, OSError
        )
        inspected = self._raised(lambda: checkpoint.inspect(self.path), CheckpointError, OSError)
        assert type(broken) is type(inspected), f"{broken!r} and {inspected!r}"
        # A header may be sound and fit no model; one that is not must not be loaded.
        error = self._raised(
            lambda: self.subject.load(self.path), ValueError, TypeError, RuntimeError, OSError
        )
        assert broken is None or error is not None, f"loaded in spite of {broken!r}"
        if broken is None:
            check_plain(result[0])
        if error is None:
            self._start()  # whoever forges may set what they like
        else:
            assert self.subject.untouched() == before, f"changed by a load that raised {error!r}"
        self.found["refused" if broken else "does not fit" if error else "loaded"] += 1

    def _raised(self, function: Callable[[], Any], *kinds: type[Exception]) -> Exception | None:
        with warnings.catch_warnings():
            # Generators of devices that are not here.
            warnings.filterwarnings("ignore", "checkpoint: it holds the states of")
            error = raised(function, kinds=kinds)
        if error is not None:
            assert str(self.path) in str(error), f"{error!r} does not name the file"
            assert len(str(error)) < 5000, f"a message that nobody reads: {error!r:.80}"
        return error
