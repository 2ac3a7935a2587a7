"""No room for the new file: the old one stays, and nothing else."""

from __future__ import annotations

import errno
import os
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoint.faults import mounts
from tests.checkpoint.faults.forks import Helper
from tests.checkpoint.faults.subjects import Subject, refused_save, seeded

CASES = 200
WIDTH = 500  # 80 kB


def saves(path: Path, number: int, limit: Callable[[int, int], None]) -> dict[str, int]:
    """Save over a checkpoint with ever another amount of room, ``limit(case, bytes of a file)``."""
    subjects = [Subject(seed, width=WIDTH) for seed in range(2)]
    states = [subject.state() for subject in subjects]
    reader = Subject(9, width=WIDTH)
    subjects[0].save(path)
    size, holds = path.stat().st_size, 0
    beside = set(os.listdir(path.parent))
    found: Counter[str] = Counter()
    for case in range(CASES):
        limit(case, size)
        new, content = subjects[1 - holds], path.read_bytes()
        memory = new.untouched()
        error = refused_save(path, new, OSError)
        if error is None:
            holds = 1 - holds
            found["new"] += 1
            reader.load(path)
            assert reader.state() == states[holds]
        else:
            assert error.errno == number, repr(error)
            found["old"] += 1
            assert path.read_bytes() == content
        assert new.untouched() == memory
        assert set(os.listdir(path.parent)) - beside <= {"ballast"}
    return dict(found)


def on_a_small_disk(folder: Path) -> dict[str, int] | None:
    try:
        mounts.mounted(folder, "size=1m,nr_inodes=64")
    except mounts.Refused:
        return None

    def limit(case: int, size: int) -> None:
        ballast = folder / "ballast"
        ballast.unlink(missing_ok=True)
        disk = os.statvfs(folder)
        room = int(seeded("disk", case).uniform(0, 1.5) * size)
        ballast.write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - room)))

    return saves(folder / "a.safetensors", errno.ENOSPC, limit)


def test_disk_full(tmp_path: Path, helper: Helper) -> None:
    found = helper.run(on_a_small_disk, tmp_path)
    if found is None:
        pytest.skip("mounting a small disk needs root")
    assert sum(found.values()) == CASES
    assert min(found["old"], found["new"]) >= CASES // 5, found


def without_names_left(folder: Path) -> str | None:
    try:
        mounts.mounted(folder, "size=1m,nr_inodes=3")  # the folder, the file, and one more
    except mounts.Refused:
        return None
    subject, path = Subject(0), folder / "a.safetensors"
    subject.save(path)
    (folder / "ballast").touch()
    error = refused_save(path, Subject(1), OSError)
    assert error is not None
    assert error.errno == errno.ENOSPC
    reader = Subject(2)
    reader.load(path)
    assert reader.state() == subject.state()
    return str(error)


def test_no_more_files(tmp_path: Path, helper: Helper) -> None:
    found = helper.run(without_names_left, tmp_path)
    if found is None:
        pytest.skip("mounting a small disk needs root")
    assert found.endswith("No space left on device; choose another folder")


def with_a_largest_file(folder: Path) -> dict[str, int]:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def limit(case: int, size: int) -> None:
        # Python ignores SIGXFSZ: writing further is an error.
        room = int(seeded("largest", case).uniform(0, 1.5) * size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))

    return saves(folder / "a.safetensors", errno.EFBIG, limit)


def test_file_too_large(tmp_path: Path, helper: Helper) -> None:
    found = helper.run(with_a_largest_file, tmp_path)
    assert sum(found.values()) == CASES
    assert min(found["old"], found["new"]) >= CASES // 5, found
