"""The newest whole checkpoint of a folder."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from thalweg import checkpoint
from thalweg.checkpoint import latest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with checkpoints that were saved as their names say; their files' times are odd."""
    for i, name in enumerate(["b", "c", "a"]):
        path = checkpoint.save(tmp_path / f"{name}.safetensors", x=torch.ones(4), step=i)
        os.utime(path, (1e9 - i, 1e9 - i))
    return tmp_path


def damage(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def test_the_time_in_the_file_counts(run: Path) -> None:
    assert latest(run) == latest(str(run)) == run / "a.safetensors"


@pytest.mark.parametrize("place", [-1, 20])
def test_a_damaged_file_is_skipped_and_named(run: Path, place: int) -> None:
    damage(run / "a.safetensors", place)
    with pytest.warns(UserWarning, match=r"a\.safetensors: .* it is skipped"):
        assert latest(run) == run / "c.safetensors"


def test_none_is_whole(run: Path) -> None:
    for name in "abc":
        damage(run / f"{name}.safetensors", -1)
    with (
        pytest.warns(UserWarning, match="it is skipped") as told,
        pytest.raises(FileNotFoundError, match=r"no whole checkpoint among .* there are 3 with"),
    ):
        latest(run)
    assert len(told) == 3


def test_other_files_are_left_aside(run: Path) -> None:
    save_file({"x": torch.ones(2)}, run / "plain.safetensors")
    (run / "folder.safetensors").mkdir()
    (run / ".a.safetensors.host.1.0.tmp").touch()
    (run / "notes.txt").touch()
    (run / "gone.safetensors").symlink_to("nowhere")
    assert latest(run) == run / "a.safetensors"


def test_only_names_of_the_pattern(run: Path) -> None:
    assert latest(run, "[bc].*") == run / "c.safetensors"
    (run / "below").mkdir()
    path = checkpoint.save(run / "below" / "d.safetensors", step=1)
    assert latest(run, "**/*.safetensors") == path


def test_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        latest(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file, not a folder; give its folder"):
        latest(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=r"'\*\.safetensors' in .* there are 0"):
        latest(tmp_path)
