"""Places where no file can be written or read: the error says which, and nothing changes."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from tests.checkpoint.faults.forks import Helper
from tests.checkpoint.faults.subjects import Subject, raised, refused, seeded
from thalweg import checkpoint

CASES = 200
NOBODY = 65534


@contextmanager
def at_once(seconds: int = 5) -> Iterator[None]:
    """TimeoutError for a block that waits for ever."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------------------------- kinds


def folder(path: Path) -> Path:
    path.mkdir()
    (path / "inside").touch()
    return path


def below_a_file(path: Path) -> Path:
    path.write_text("text")
    return path / "a.safetensors"


def far_below_a_file(path: Path) -> Path:
    return below_a_file(path) / "b" / "c.safetensors"


def long_name(path: Path) -> Path:
    return path.with_name("a" * 256)


def long_folder(path: Path) -> Path:
    return path.with_name("a" * 256) / "b"


def circle(path: Path) -> Path:
    path.symlink_to(path.name)
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def link_to_a_pipe(path: Path) -> Path:
    os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path}.pipe")
    return path


def plug(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as each:
        each.bind(os.fspath(path))
    return path


def zeros(path: Path) -> Path:
    return Path("/dev/zero")


def null(path: Path) -> Path:
    return Path("/dev/null")


def missing(path: Path) -> Path:
    return path


def in_a_missing_folder(path: Path) -> Path:
    return path / "a.safetensors"


UNWRITABLE: dict[Callable[[Path], Path], int] = {
    folder: errno.EISDIR,
    below_a_file: errno.ENOTDIR,
    far_below_a_file: errno.ENOTDIR,
    long_name: errno.ENAMETOOLONG,
    long_folder: errno.ENAMETOOLONG,
    circle: errno.ELOOP,
    pipe: errno.EINVAL,
    link_to_a_pipe: errno.EINVAL,
    plug: errno.EINVAL,
    zeros: errno.EINVAL,
    null: errno.EINVAL,
}
UNREADABLE = UNWRITABLE | {
    plug: errno.ENXIO,
    missing: errno.ENOENT,
    in_a_missing_folder: errno.ENOENT,
}


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("place", UNWRITABLE, ids=lambda place: place.__name__)
def test_saving_to(place: Callable[[Path], Path], tmp_path: Path) -> None:
    path = place(tmp_path / "place")
    before, subject = listed(tmp_path), Subject(0)
    memory = subject.untouched()
    with at_once(), pytest.raises(OSError) as error:  # noqa: PT011  # the number is looked at
        subject.save(path)
    assert error.value.errno == UNWRITABLE[place], error.value
    assert path.name in str(error.value)
    assert listed(tmp_path) in (before, sorted([*before, "place"])), "a folder may be made"
    assert subject.untouched() == memory


@pytest.mark.parametrize("place", UNREADABLE, ids=lambda place: place.__name__)
def test_loading_from(place: Callable[[Path], Path], tmp_path: Path) -> None:
    path = place(tmp_path / "place")
    before, subject = listed(tmp_path), Subject(0)
    with at_once():
        error = refused(path, subject, subject.untouched(), OSError)
    assert isinstance(error, OSError)
    assert error.errno == UNREADABLE[place], error
    assert listed(tmp_path) == before


@pytest.mark.parametrize("place", [pipe, plug, circle], ids=lambda place: place.__name__)
def test_latest_skips(place: Callable[[Path], Path], tmp_path: Path) -> None:
    path = tmp_path / "1.safetensors"
    Subject(0).save(path)
    place(tmp_path / "2.safetensors")
    with at_once(), pytest.warns(UserWarning, match=r"2\.safetensors.*; it is skipped$"):
        assert checkpoint.latest(tmp_path) == path


def test_latest_skips_a_folder_with_the_name_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "1.safetensors"
    Subject(0).save(path)
    folder(tmp_path / "2.safetensors")
    assert checkpoint.latest(tmp_path) == path


def test_missing_folders_are_made(tmp_path: Path) -> None:
    subject, reader = Subject(0), Subject(1)
    path = tmp_path / "a" / "b" / "c.safetensors"
    subject.save(path)
    reader.load(path)
    assert reader.state() == subject.state()
    assert listed(tmp_path) == ["a", "a/b", "a/b/c.safetensors"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, path = tmp_path / "link", tmp_path / "there" / "a.safetensors"
    link.symlink_to(path)
    for seed in range(2):
        subject, reader = Subject(seed), Subject(9)
        subject.save(link)
        assert link.is_symlink()
        for each in (link, path):
            reader.load(each)
            assert reader.state() == subject.state()
    assert listed(tmp_path) == ["link", "there", "there/a.safetensors"]


# ---------------------------------------------------------------------------------- names


def random_name(draw: random.Random) -> str:
    """Any bytes that a file's name may have, up to the longest that Linux takes."""
    letters = draw.choice(["abc", "ab .-~$*?[]{}'\"\\\n\t", "aäßλ語🎈́", "\udcff\udc80a\x7f\x01"])
    length = draw.choice([1, 7, 40, 100, 150, 151, 200, 255])
    name = b""
    while len(name) < length:
        name += os.fsencode(draw.choice(letters))
    name = name[:length].replace(b"/", b"")
    return os.fsdecode(name if name.strip(b".") else b"a")


def test_names_of_every_kind(tmp_path: Path) -> None:
    subjects, reader = [Subject(0), Subject(1)], Subject(9)
    for case in range(50):
        path = tmp_path / random_name(seeded("name", case))
        for subject in subjects:  # anew, and over it
            subject.save(path)
            reader.load(path)
            assert reader.state() == subject.state()
        assert os.listdir(tmp_path) == [path.name]
        path.unlink()
        with pytest.raises(FileNotFoundError):
            reader.load(path)


# ------------------------------------------------------------------------------ vanishing


def vanishing(where: Path) -> dict[str, int]:
    """Load a file that comes and goes."""
    subject, reader = Subject(0), Subject(1)
    subject.save(where / "kept")
    path, through = where / "a.safetensors", threading.Event()

    def come_and_go() -> None:
        while not through.is_set():
            os.link(where / "kept", path)
            path.unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    found: Counter[str] = Counter()
    try:
        while sum(found.values()) < 5000 and (len(found) < 2 or sum(found.values()) < CASES):
            before = reader.untouched()
            error = raised(reader.load, path, kinds=(FileNotFoundError,))
            if error is None:
                assert reader.state() == subject.state()
            else:
                assert str(path) in str(error)
                assert reader.untouched() == before
            found["gone" if error else "there"] += 1
    finally:
        through.set()
        thread.join()
    return dict(found)


def test_a_file_that_vanishes(tmp_path: Path, helper: Helper) -> None:
    found = helper.run(vanishing, tmp_path)
    assert found.keys() == {"gone", "there"}, found


def test_what_was_read_outlives_its_file(tmp_path: Path) -> None:
    path, first, second = tmp_path / "a.safetensors", Subject(0), Subject(1)
    first.save(path)
    read = checkpoint.read(path)  # views of the file
    second.save(path)
    path.unlink()
    for name, tensor in first.model.state_dict().items():
        assert read["model"][name].equal(tensor)
