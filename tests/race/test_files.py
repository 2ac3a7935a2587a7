import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from thalweg.race import Result, settings
from thalweg.race.files import prepare, read_result, write_result

RESULT = Result(settings("small"), {"torch": "2"}, 1.0, (), complete=False)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert prepare(tmp_path / "a" / "b", resume=False) is None
    path = write_result(tmp_path / "a" / "b", RESULT)
    assert path == tmp_path / "a" / "b" / "race.json"
    assert read_result(tmp_path / "a" / "b") == RESULT
    assert prepare(tmp_path / "a" / "b", resume=True) == RESULT
    assert os.listdir(path.parent) == ["race.json"]


def test_to_go_on_from_nothing_is_to_begin(tmp_path: Path) -> None:
    assert prepare(tmp_path, resume=True) is None


def test_a_result_is_never_lost(tmp_path: Path) -> None:
    for number in range(4):
        assert prepare(tmp_path, resume=False) is None
        write_result(tmp_path, replace(RESULT, seconds=float(number)))
    found = {
        path.name: json.loads(path.read_text())["seconds"] for path in sorted(tmp_path.iterdir())
    }
    assert found == {
        "race.json": 3,
        "race.previous.json": 0,
        "race.previous.2.json": 1,
        "race.previous.3.json": 2,
    }


def test_a_broken_result_is_not_gone_on_from_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "race.json"
    text = RESULT.to_json()[:50]
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^race: .*race\.json cannot be read: not JSON") as error:
        prepare(tmp_path, resume=True)
    assert "without --resume" in str(error.value)
    assert path.read_text() == text
    assert prepare(tmp_path, resume=False) is None
    assert (tmp_path / "race.previous.json").read_text() == text


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "race.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read"):
        read_result(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file, not a folder; choose another"):
        prepare(tmp_path / "file", resume=False)
    with pytest.raises(NotADirectoryError, match="cannot write to the folder"):
        prepare(tmp_path / "file" / "below", resume=False)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch) -> None:
    write_result(tmp_path, RESULT)

    def touch(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(
        PermissionError, match=r"race: cannot write to the folder .*: Permission de"
    ):
        prepare(tmp_path, resume=False)
    assert read_result(tmp_path) == RESULT


def test_a_write_that_fails_leaves_the_result_before(tmp_path: Path, monkeypatch) -> None:
    write_result(tmp_path, RESULT)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(tmp_path, replace(RESULT, seconds=2.0))
    assert read_result(tmp_path) == RESULT
    assert os.listdir(tmp_path) == ["race.json"]
