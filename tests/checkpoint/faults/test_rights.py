"""Folders and files that may not be written or read: the error says which, and nothing changes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoint.faults import mounts
from tests.checkpoint.faults.forks import Helper
from tests.checkpoint.faults.subjects import Subject, refused, refused_save, seeded

CASES = 200
NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach, too: pytest's own are root's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def drop_rights() -> None:
    if os.getuid() == 0:  # whom no mode stops
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def with_random_rights(where: Path) -> dict[str, int]:
    subjects, reader = [Subject(0), Subject(1)], Subject(9)
    states = [subject.state() for subject in subjects]
    folder = where / "folder"
    folder.mkdir()
    os.chown(folder, NOBODY if os.getuid() == 0 else -1, -1)
    drop_rights()
    path = folder / "a.safetensors"
    subjects[0].save(path)
    content = path.read_bytes()
    found: Counter[str] = Counter()
    for case in range(CASES):
        draw = seeded("rights", case)
        path.unlink(missing_ok=True)
        if exists := draw.random() < 0.7:
            path.write_bytes(content)
            path.chmod(draw.randrange(8) << 6)
        mode = draw.choice([0o7, draw.randrange(8)])
        folder.chmod(mode << 6)
        before = reader.untouched()
        file_mode = stat.S_IMODE(path.stat().st_mode) >> 6 if exists and mode & 1 else 0
        if not mode & 1 or (exists and not file_mode & 4):
            error = refused(path, reader, before, PermissionError)
            assert isinstance(error, PermissionError)
            assert error.errno == errno.EACCES
            found["not read"] += 1
        elif exists:
            reader.load(path)
            assert reader.state() == states[0]
            found["read"] += 1
        failed = refused_save(path, subjects[1], PermissionError)
        assert (failed is None) == (mode & 3 == 3), f"folder's mode {mode}: {failed}"
        folder.chmod(0o700)
        assert os.listdir(folder) == ([path.name] if exists or failed is None else [])
        if failed is None and exists:
            assert stat.S_IMODE(path.stat().st_mode) >> 6 == file_mode, "the mode is kept"
        if exists or failed is None:
            path.chmod(0o600)
        if failed is None:
            reader.load(path)
            assert reader.state() == states[1]
        elif exists:
            assert path.read_bytes() == content
        found["not written" if failed else "written"] += 1
    return dict(found)


def test_random_rights(open_folder: Path, helper: Helper) -> None:
    found = helper.run(with_random_rights, open_folder)
    assert found["written"] + found["not written"] == CASES
    assert found.keys() == {"read", "not read", "written", "not written"}
    assert min(found.values()) > CASES // 10, found


def in_a_shared_folder(where: Path) -> str:
    """Everybody may write into it, and only owners may replace their files."""
    subject, path = Subject(0), where / "a.safetensors"
    subject.save(path)
    where.chmod(0o1777)
    drop_rights()
    error = refused_save(path, Subject(1), PermissionError)
    assert os.listdir(where) == [path.name]
    reader = Subject(9)
    reader.load(path)
    assert reader.state() == subject.state()
    return str(error)


@pytest.mark.skipif(os.getuid() != 0, reason="files of another user need root")
def test_another_users_file(open_folder: Path, helper: Helper) -> None:
    assert "Operation not permitted" in helper.run(in_a_shared_folder, open_folder)


def on_a_read_only_disk(folder: Path) -> str | None:
    subject, path = Subject(0), folder / "a.safetensors"
    try:
        mounts.mounted(folder, "size=1m")
        subject.save(path)
        mounts.made_read_only(folder)
    except mounts.Refused:
        return None
    error = refused_save(path, Subject(1), OSError)
    assert error is not None
    assert error.errno == errno.EROFS
    assert os.listdir(folder) == [path.name]
    reader = Subject(9)
    reader.load(path)
    assert reader.state() == subject.state()
    return str(error)


def test_read_only_disk(tmp_path: Path, helper: Helper) -> None:
    found = helper.run(on_a_read_only_disk, tmp_path)
    if found is None:
        pytest.skip("mounting a disk needs root")
    assert found.endswith("Read-only file system; choose another folder")
