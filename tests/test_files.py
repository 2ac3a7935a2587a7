"""Files are there whole or not at all, whatever happens to those who write them."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from thalweg import files
from thalweg.files import beside, replacing, write_whole


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("content", ["é\n", b"\0\xff", b""])
def test_content_is_written_and_replaced(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "made" / "file"
    for each in ("old and longer", content):
        assert write_whole(path, each) == path
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(path.parent) == ["file"]


def test_nobody_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), MemoryError()])
def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    message = f"cannot write file in {tmp_path}: No space left on device; choose another folder"
    with pytest.raises(OSError, match=message) as caught:
        write_whole(path, "new")
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_content_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def noted(name: str, call):
        def noting(*args):
            what = os.fstat(args[0]).st_mode if name == "fsync" else 0
            calls.append(name + (" folder" if stat.S_ISDIR(what) else ""))
            return call(*args)

        return noting

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    write_whole(tmp_path / "file", "new")
    assert calls == ["fsync", "replace", "fsync folder"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_folders_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sync = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, "no")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:
        with pytest.raises(OSError, match="cannot write"):
            write_whole(tmp_path / "file", "new")
    else:
        write_whole(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"cannot write folder in .*; choose another"):
        write_whole(tmp_path / "folder", "x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        write_whole(tmp_path / "pipe", "x")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        write_whole(tmp_path / "file" / "below", "x")
    assert names(tmp_path) == ["file", "folder", "pipe"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far" / "file")
    write_whole(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "far" / "file").read_text() == "new"
    assert names(tmp_path / "far") == ["file"]


def test_permissions_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    path.chmod(0o600)
    write_whole(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_the_new_content_is_never_open_to_more_users_than_the_old(
    tmp_path: Path, mode: int
) -> None:
    path = write_whole(tmp_path / "file", "old")
    path.chmod(mode)
    with replacing(path) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode
    umask = os.umask(0o027)
    try:
        with replacing(tmp_path / "other") as file:
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o640
    finally:
        os.umask(umask)


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, ".*[x]"])
def test_any_name_that_a_file_may_have(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    left = beside(path)
    left.touch()  # of this process, which does not write it
    write_whole(path, "x")
    assert names(tmp_path) == [name]


def gone() -> int:
    """The number of a process that has ended."""
    return int(
        subprocess.run(
            [sys.executable, "-c", "import os; print(os.getpid())"],
            capture_output=True, check=True,
        ).stdout
    )  # fmt: skip


def test_leftovers_of_ended_processes_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def left(process: int, *, of: Path = path, host: str = "") -> str:
        name = beside(of).name.replace(f".{os.getpid()}.", f".{process}.")
        if host:
            name = name.replace(files._prefix(of), f".{of.name}.{host}.")
        (tmp_path / name).touch()
        return name

    ended = gone()
    left(ended)
    left(os.getpid())
    kept = [
        left(os.getppid()),
        left(1),
        left(ended, of=tmp_path / "file2"),
        left(ended, host="elsewhere"),
    ]
    write_whole(path, "x")
    assert names(tmp_path) == sorted(["file", *kept])


def test_writers_at_once_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([i]) * 100_000 for i in range(4)]
    errors = []

    def write(content: bytes) -> None:
        try:
            for _ in range(10):
                write_whole(path, content)
                assert path.read_bytes() in contents
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not errors
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("refused", [False, True])
def test_the_disk_begins_while_a_large_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    begun = []

    def advise(handle: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        begun.append((start, length))
        if refused:
            raise OSError(errno.ESPIPE, "no")

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(files, "_AHEAD", 100)
    with replacing(tmp_path / "file") as file:
        stream = files.Stream(file, 5)
        for _ in range(6):
            stream.write(memoryview(b"x" * 40))
        file.seek(0)
        file.write(b"first")
    assert (tmp_path / "file").read_bytes() == b"first" + b"x" * 240
    assert begun == [(5, 120), (125, 120)]
