from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.landscape.paths import three
from thalweg.landscape import saddle
from thalweg.landscape.gif import write_gif
from thalweg.page import colours_of

SURFACE = saddle()
FRAMES = 8


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    heard: list[tuple[int, int]] = []
    path = write_gif(
        SURFACE,
        three(SURFACE),
        tmp_path_factory.mktemp("gif") / "race.gif",
        frames=FRAMES,
        fps=10,
        progress=lambda done, total: heard.append((done, total)),
    )
    return path, heard


def frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        found = []
        for i in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(i)
            found.append(np.array(image.convert("RGB")))
    return found


def test_frames_are_there_and_the_last_one_stays(written: Any) -> None:
    path, heard = written
    assert heard == [(i, FRAMES) for i in range(1, FRAMES + 1)]
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        times = []
        for i in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(i)
            times.append(image.info["duration"])
    assert times == [100] * (FRAMES - 1) + [2500]
    assert path.stat().st_size < 200_000


def test_every_frame_differs_and_the_map_does_not(written: Any) -> None:
    shown = frames(written[0])
    assert all((a != b).any() for a, b in pairwise(shown))
    moved = np.any([(frame != shown[0]).any(axis=-1) for frame in shown], axis=0)
    assert 0.001 < moved.mean() < 0.2


def test_colours_are_exact(written: Any) -> None:
    last = frames(written[0])[-1].reshape(-1, 3)
    found = {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.unique(last, axis=0)}
    assert {"#ffffff", *colours_of(["SGD", "Adam", "RMSprop"]).values()} <= found
    assert last[0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"path": "a.mp4"}, ValueError, "path must end in .gif, got 'a.mp4'"),
        ({"trajectories": ()}, ValueError, "trajectories must not be empty"),
        ({"frames": 1}, ValueError, "frames must be"),
        ({"frames": 2.5}, TypeError, "frames must be an integer"),
        ({"fps": 0}, ValueError, "fps must be"),
        ({"fps": 100}, ValueError, "fps must be .*browsers show no more than 50"),
    ],
    ids=["suffix", "no paths", "one frame", "no integer", "fps 0", "fps 100"],
)
def test_bad_input(changes: Any, error: type[Exception], message: str) -> None:
    given = {"trajectories": three(SURFACE), "path": "a.gif"} | changes
    with pytest.raises(error, match=message):
        write_gif(SURFACE, **given)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write a\.gif in .*file"):
        write_gif(SURFACE, three(SURFACE), tmp_path / "file" / "a.gif", frames=2)
