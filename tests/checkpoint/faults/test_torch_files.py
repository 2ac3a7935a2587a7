"""Files of torch.save that are damaged or hold code: refused, and nothing runs or changes."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoint.faults.subjects import Subject, raised, refused, seeded
from thalweg import checkpoint
from thalweg.checkpoint import CheckpointError

FORMATS = ["zip", "legacy"]


def write(path: Path, subject: Subject, how: str = "zip") -> bytes:
    data = {
        "model": subject.model.state_dict(),
        "optimizer": subject.optimizer.state_dict(),
        "scheduler": subject.scheduler.state_dict(),
        "generator": subject.generator.get_state(),
        "step": subject.step,
    }
    torch.save(data, path, _use_new_zipfile_serialization=how == "zip")
    return path.read_bytes()


@pytest.mark.parametrize("how", FORMATS)
def test_whole_files_load(how: str, tmp_path: Path) -> None:
    path, subject, reader = tmp_path / "a.pt", Subject(0), Subject(1)
    write(path, subject, how)
    reader.load(path)
    assert reader.state() == subject.state()


@pytest.mark.parametrize("how", FORMATS)
def test_truncated_at_every_64th_byte(how: str, tmp_path: Path) -> None:
    path, subject = tmp_path / "a.pt", Subject(1, width=40)
    data = write(path, Subject(0, width=40), how)
    before, ends = subject.untouched(), range(0, len(data) - 1, 64)
    assert len(ends) >= 200
    for end in reversed(ends):
        os.truncate(path, end)
        refused(path, subject, before)


def contents(data: bytes) -> list[range]:
    """The bytes of an archive that are its files' own."""
    found = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            lengths = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
            begin = info.header_offset + 30 + sum(lengths)
            found.append(range(begin, begin + info.file_size))
    return [each for each in found if each]


def test_single_bits(tmp_path: Path) -> None:
    """Those of the files in the archive are all found; others are, or mean nothing."""
    path, subject, whole = tmp_path / "a.pt", Subject(1), Subject(0)
    data = write(path, whole)
    own, before = contents(data), subject.untouched()
    for case in range(400):
        draw = seeded("torch", case)
        inside = case % 2 == 0
        place = draw.choice(draw.choice(own) if inside else range(len(data)))
        changed = bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        error = raised(subject.load, path, kinds=(CheckpointError,))
        if error is None:
            assert not inside, f"bit in byte {place} was not found"
            assert subject.state() == whole.state()
            subject = Subject(1)
            before = subject.untouched()
        else:
            assert str(path) in str(error)
            assert subject.untouched() == before


def test_files_without_sums(tmp_path: Path) -> None:
    path, subject, reader = tmp_path / "a.pt", Subject(0), Subject(1)
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        write(path, subject)
    finally:
        torch.serialization.set_crc32_options(before)
    reader.load(path)
    assert reader.state() == subject.state()


# ------------------------------------------------------------------------------------------- code


class Runs:
    """An object whose reading runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.marker}'",)


class Opens(Runs):
    def __reduce__(self) -> Any:
        return open, (str(self.marker), "w")


class Evaluates(Runs):
    def __reduce__(self) -> Any:
        return eval, (f"open({str(self.marker)!r}, 'w')",)


class Assembles(Runs):
    """A class that is allowed, with a state that is not."""

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, (Opens(self.marker), 0, (1,), (1,), False, None)


@pytest.mark.parametrize("how", [*FORMATS, "pickle"])
@pytest.mark.parametrize("kind", [Runs, Opens, Evaluates, Assembles])
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_code_does_not_run(kind: type[Runs], how: str, name: str, tmp_path: Path) -> None:
    path, marker, subject = tmp_path / name, tmp_path / "marker", Subject(1)
    data = {"model": Subject(0).model.state_dict(), "step": kind(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(data))
    else:
        torch.save(data, path, _use_new_zipfile_serialization=how == "zip")
    refused(path, subject, subject.untouched())
    for look in (checkpoint.read, checkpoint.inspect):
        with pytest.raises(CheckpointError) as error:
            look(path)
        assert str(path) in str(error.value)
    assert os.listdir(tmp_path) == [name], "code has run"


def test_random_pickles(tmp_path: Path) -> None:
    """Of a damaged pickle, errors of all kinds may come; only ours come out."""
    path, subject = tmp_path / "a.pt", Subject(1)
    write(path, Subject(0))
    before = subject.untouched()
    for case in range(200):
        draw = seeded("pickle", case)
        made = io.BytesIO()
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
            for info in old.infolist():
                content = bytearray(old.read(info))
                if info.filename.endswith("data.pkl"):
                    for _ in range(draw.choice([1, 2, 8])):
                        content[draw.randrange(len(content))] = draw.randrange(256)
                new.writestr(info.filename, bytes(content))  # with a sum that is right
        other = tmp_path / "b.pt"
        other.write_bytes(made.getvalue())
        kinds = (CheckpointError, ValueError, TypeError, RuntimeError)
        error = raised(subject.load, other, kinds=kinds)
        if error is None:  # a number of an option, say
            subject = Subject(1)
            before = subject.untouched()
        else:
            assert str(other) in str(error)
            assert subject.untouched() == before
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "b.pt"]
