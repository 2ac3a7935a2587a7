"""The file: what is written is read, every changed bit is found, and no forged header does harm."""

import errno
import json
import os
import struct
import time
import tracemalloc
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.checkpoint.forgery import digest, forged, safetensors_file, text_of
from tests.checkpoint.same import same
from tests.checkpoint.test_tree import TENSORS
from thalweg.checkpoint import CheckpointError, container, read
from thalweg.checkpoint.container import opened, write
from thalweg.checkpoint.header import Entry
from thalweg.checkpoint.tree import DTYPES


def checked(path: Path) -> dict[str, Any]:
    """All parts of a file of ours, each digest checked."""
    with opened(path) as file:
        assert file is not None
        file.check()
        return {name: file.part(name) for name in file.trees}


def test_parts_come_back_as_they_were(tmp_path: Path) -> None:
    parts = {"tensors": TENSORS, "model": torch.nn.Linear(2, 3).state_dict(), "step": 3, "é": "é"}
    path = write(tmp_path / "a", parts)
    assert same(checked(path), parts)


def test_every_reader_of_safetensors_reads_it(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    path = write(tmp_path / "a", {"model": model.state_dict(), "lr": 0.1})
    found = safetensors.torch.load_file(path)
    assert same(
        dict(sorted(found.items())),
        {f"model/{name}": value for name, value in sorted(model.state_dict().items())},
    )


def test_a_header_tells_of_its_file(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    path = write(tmp_path / "a", {"m": {"w": torch.ones(2, 3)}, "n": 1}, {"m": "module"})
    with opened(path) as file:
        assert file is not None
        assert file.path == path
        assert before <= file.saved <= datetime.now(UTC)
        assert file.kinds == {"m": "module", "n": "data"}
        assert file.trees == {"m": {"w": {"$tensor": "m/w"}}, "n": 1}
        assert file.versions["torch"] == torch.__version__
        (entry,) = file.entries.values()
        assert entry == Entry("F32", (2, 3), digest(b"\0\0\x80?" * 6))
        with pytest.raises(KeyError, match="nope"):
            file.tensor("nope")


def test_each_tensor_lies_at_a_multiple_of_its_numbers_size(tmp_path: Path) -> None:
    tensors = {str(d): torch.zeros(3, dtype=d) for d in (*DTYPES.values(), torch.complex64)}
    path = write(tmp_path / "a", {"x": tensors})
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    assert (8 + length) % 64 == 0
    header = json.loads(raw[8 : 8 + length])
    for name, each in header.items():
        if name != "__metadata__":
            assert each["data_offsets"][0] % DTYPES[each["dtype"]].itemsize == 0
    assert same(read(path)["x"], tensors)


def test_a_tensor_of_the_file_can_be_changed_without_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"x": torch.ones(3)})
    found = read(path)["x"]
    found.add_(1)
    assert found.tolist() == [2, 2, 2]
    assert read(path)["x"].tolist() == [1, 1, 1]


def test_no_more_than_one_copy_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last: list[weakref.ref[Any]] = []
    make = container._bytes_of

    def bytes_of(tensor: Tensor) -> memoryview:
        assert not last or last.pop()() is None, "the former copy is still there"
        data = make(tensor)
        last.append(weakref.ref(data.obj))  # type: ignore[arg-type]
        return data

    monkeypatch.setattr(container, "_bytes_of", bytes_of)
    write(tmp_path / "a", {"x": [torch.ones(4, 5).T for _ in range(5)]})
    contiguous = torch.ones(4, 5)
    assert np.frombuffer(make(contiguous), np.float32).ctypes.data == contiguous.data_ptr()


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"x": 1})
    with pytest.raises(TypeError, match=r"^y\[0\]: object cannot be saved"):
        write(path, {"x": 2, "y": [object()]})
    assert checked(path) == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_more_plain_data_than_a_header_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a", {"x": 1})
    monkeypatch.setattr(container, "_LARGEST_HEADER", 2_000_000)
    with pytest.raises(ValueError, match=r"plain data and names take 4 MB.*numbers as tensors"):
        write(path, {"x": list(range(1_000_000, 1_500_000))})
    assert checked(path) == {"x": 1}


@pytest.mark.slow
def test_every_changed_bit_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"m": {"é": torch.ones(2), "b": torch.tensor([True])}, "s": 3})
    whole = checked(path)
    raw = bytearray(path.read_bytes())
    harmless = []
    for bit in range(8 * len(raw)):
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        raw[bit // 8] ^= 1 << bit % 8
        try:
            found = read(path)
        except CheckpointError:
            continue
        assert same(found, whole)
        harmless.append(bit)
    # JSON does not care whether the name's letter is written \\u00e9 or \\u00E9.
    assert [bytes(raw[bit // 8 - 4 : bit // 8 + 2]) for bit in harmless] == [rb"\u00e9"]


def test_every_shortened_or_lengthened_file_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"x": torch.ones(20), "s": "text"})
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=r"is no whole safetensors file .*; use another"):
            read(path)
    path.write_bytes(raw + b"\0")
    with pytest.raises(CheckpointError):
        read(path)


DAMAGED = {
    "no JSON": ("{", "the header cannot be read"),
    "a list": ("[]", "the header must be a dict, got list"),
    "key twice": ('{"format": 1, "format": 1}', "a key comes twice"),
    "not a number": ('{"format": NaN}', "NaN is not JSON"),
    "huge number": ('{"format": ' + "9" * 5000 + "}", "the header cannot be read"),
    "deep": ("[" * 200_000, "the header cannot be read"),
    "later format": (text_of(format=2), "it has format 2, this thalweg reads 1; update thalweg"),
    "huge format": (text_of(format=10**300), "this thalweg reads 1; update thalweg"),
    "format of text": (text_of(format="1"), "the header is not one of a checkpoint"),
    "no time": (text_of(saved=None), "the time of saving must be ISO 8601, got None"),
    "odd time": (text_of(saved="yesterday"), "must be ISO 8601, got 'yesterday'"),
    "time without zone": (text_of(saved="2026-01-01"), "must be ISO 8601"),
    "versions": (text_of(versions=[]), "the header is not one of a checkpoint"),
    "version": (text_of(versions={"torch": 2}), "the header is not one of a checkpoint"),
    "parts": (text_of(parts=[]), "the header is not one of a checkpoint"),
    "kinds": (text_of(kinds={}), "the header is not one of a checkpoint"),
    "kind": (text_of(kinds={"x": "code"}), "the header is not one of a checkpoint"),
    "kind of a list": (text_of(kinds={"x": []}), "the header is not one of a checkpoint"),
    "tensors": (text_of(tensors=None), "the header is not one of a checkpoint"),
    "entry": (text_of(tensors={"x": 3}), "tensor 'x' must have a dtype, a shape and a digest"),
    "dtype": (text_of(tensors={"x": ["F31", [2], "0"]}), "must have a dtype, a shape and a digest"),
    "dtype of a list": (text_of(tensors={"x": [[], [2], "0"]}), "must have a dtype, a shape"),
    "shape": (text_of(tensors={"x": ["F32", 2, "0"]}), "must have a dtype, a shape"),
    "shape of flags": (text_of(tensors={"x": ["F32", [True], "0"]}), "must have a dtype, a shape"),
    "negative": (text_of(tensors={"x": ["F32", [-2], "0"]}), "must have a dtype, a shape"),
    "digest": (text_of(tensors={"x": ["F32", [2], None]}), "must have a dtype, a shape"),
    "other dtype": (text_of(tensors={"x": ["I32", [2], "0"]}), r"should be I32 \[2\], the file"),
    "other shape": (text_of(tensors={"x": ["F32", [10**30], "0"]}), r"should be F32 \[1000"),
    "other digest": (text_of(tensors={"x": ["F32", [2], "0"]}), "tensor 'x' has digest .* damaged"),
    "no tensors": (text_of(tensors={}), "'x' stand in one list of tensors and not in the other"),
    "more tensors": (
        text_of(tensors={n: ["F32", [2], "0"] for n in ("x", *"abcdefg")}),
        "'a', 'b', 'c', 'd', 'e' and 2 more stand in one list",
    ),
    "no such tensor": (text_of(parts={"x": {"$tensor": "../y"}}), r"part 'x': a tensor '\.\./y'"),
    "broken part": (text_of(parts={"x": {"$tuple": 1}}), "part 'x': must be a list, got int"),
    "deep part": (
        text_of(parts={"x": json.loads("[" * 300 + "]" * 300)}), "nested more than 64 levels deep",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_text(tmp_path: Path, case: str) -> None:
    text, message = DAMAGED[case]
    path = forged(tmp_path / "a", text)
    with pytest.raises(CheckpointError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"checkpoint: {path}: ")


def test_the_forger_can_write_sound_files(tmp_path: Path) -> None:
    assert read(forged(tmp_path / "a", text_of()))["x"].shape == (2,)


def test_tensors_may_be_called_anything(tmp_path: Path) -> None:
    name = "../../etc/passwd\0"
    text = text_of(
        parts={"x": {"$tensor": name}}, tensors={name: ["F32", [2], digest(b"12345678")]}
    )
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    assert read(forged(tmp_path / "a", text, {name: entry}))["x"].shape == (2,)


@pytest.mark.parametrize("key", ["thalweg", "digest"])
def test_a_file_with_half_of_the_texts_is_not_taken_for_another_kind(
    tmp_path: Path, key: str
) -> None:
    raw = forged(tmp_path / "a", text_of()).read_bytes()
    path = tmp_path / "b"
    path.write_bytes(raw.replace(f'"{key}":'.encode(), f'"{key[:-1]}X":'.encode(), 1))
    with pytest.raises(CheckpointError, match="does not have its digest: it is damaged"):
        read(path)


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HUGE = 2**64 - 1
HEADERS = {
    "overlapping": {"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8)},
    "reaching over": {"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 4, 8)},
    "with a hole": {"a": entry("F32", [1], 4, 8)},
    "beyond the end": {"a": entry("F32", [2**40], 0, 2**42)},
    "backwards": {"a": entry("F32", [2], 8, 0)},
    "overflowing": {"a": entry("F32", [HUGE, HUGE], 0, 8)},
    "overflowing offsets": {"a": entry("F32", [2], HUGE - 7, HUGE + 1)},
    "empty and huge": {"x": entry("F32", [0, HUGE], 0, 0), "a": entry("F32", [2], 0, 8)},
    "negative": {"a": entry("F32", [-2], 0, 8)},
    "fraction": {"a": entry("F32", [2.5], 0, 8)},
    "unknown dtype": {"a": entry("F31", [2], 0, 8)},
    "dtype of a number": {"a": {"dtype": 3, "shape": [2], "data_offsets": [0, 8]}},
    "no offsets": {"a": {"dtype": "F32", "shape": [2]}},
    "a number": {"a": 3},
    "metadata of numbers": {"__metadata__": {"a": 3}, "a": entry("F32", [2], 0, 8)},
    "metadata of a list": {"__metadata__": [], "a": entry("F32", [2], 0, 8)},
    "a list": [],
    "nothing": b"",
    "no text": b"\xff\xfe\xfd{}",
    "half a surrogate": b'{"__metadata__": {"a": "\\ud800"}}',
    "no JSON": b"{",
    "deep": b"[" * 1_000_000,
    "deep dicts": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_malicious_header(tmp_path: Path, case: str) -> None:
    path = safetensors_file(tmp_path / "a", HEADERS[case], b"12345678")
    start = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="is no whole safetensors file"):
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * path.stat().st_size + 1_000_000
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("length", [0, 1, 3, 100, 2**31, 2**63, 2**64 - 1])
def test_a_malicious_length(tmp_path: Path, length: int) -> None:
    path = safetensors_file(tmp_path / "a", b"{}", length=length)
    with pytest.raises(CheckpointError, match="is no whole safetensors file"):
        read(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file") as caught:
        read(tmp_path / "pipe")
    assert caught.value.errno == errno.EINVAL
