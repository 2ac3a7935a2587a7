"""Files that end too early: never loaded, and nothing changes."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from tests.checkpoint.faults.subjects import Subject, refused
from thalweg import checkpoint
from thalweg.checkpoint import CheckpointError


def header_end(data: bytes) -> int:
    """Where the tensors begin."""
    return 8 + struct.unpack("<Q", data[:8])[0]


def cut_everywhere(path: Path, ends: range) -> None:
    """Cut the file at these places, from the last to the first; each load is refused."""
    subject = Subject(1)
    before = subject.untouched()
    for end in reversed(ends):
        os.truncate(path, end)
        refused(path, subject, before)


def test_at_every_64th_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Subject(0).save(path)
    ends = range(0, path.stat().st_size, 64)
    assert len(ends) >= 200
    cut_everywhere(path, ends)


@pytest.mark.slow
def test_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Subject(0, rng=False).save(path)
    data = path.read_bytes()
    assert len(data) > header_end(data)
    cut_everywhere(path, range(len(data)))


@pytest.mark.parametrize("lost", [1, 7, 8, 64, 4096])
def test_the_end_is_lost(lost: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Subject(0).save(path)
    os.truncate(path, path.stat().st_size - lost)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: it is no whole safetensors file"):
        checkpoint.read(path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.touch()
    subject = Subject(1)
    error = refused(path, subject, subject.untouched())
    assert "truncated, damaged or of another kind; use another file" in str(error)


def test_latest_skips_what_is_cut(tmp_path: Path) -> None:
    subject = Subject(0)
    for step in range(4):
        subject.save(tmp_path / f"{step}.safetensors")
    os.truncate(tmp_path / "3.safetensors", 100)
    size = (tmp_path / "2.safetensors").stat().st_size
    os.truncate(tmp_path / "2.safetensors", size - 1)
    with (
        pytest.warns(UserWarning, match=r"2\.safetensors: .*; it is skipped"),
        pytest.warns(UserWarning, match=r"3\.safetensors: .*; it is skipped"),
    ):
        assert checkpoint.latest(tmp_path) == tmp_path / "1.safetensors"
