from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import pytest
from matplotlib._pylab_helpers import Gcf

from thalweg.page.figures import blank, save, style


def figure() -> matplotlib.figure.Figure:
    with style():
        made, ax = blank((3.0, 2.0))
        ax.plot([0, 1], [0, 1], label="a")
        ax.legend()
    return made


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_same_figure_has_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    one, two = (save(figure(), tmp_path / f"{name}{suffix}") for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    start = b"<?xml" if suffix == ".svg" else b"\x89PNG"
    assert one.read_bytes().startswith(start)
    assert sorted(os.listdir(tmp_path)) == [f"a{suffix}", f"b{suffix}"]


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"save: path must end in one of \.png, \.svg, got 'a.jpg'"
    ):
        save(figure(), "a.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write a\.png in .*file"):
        save(figure(), tmp_path / "file" / "a.png")


def test_matplotlib_is_left_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    figure()
    assert dict(matplotlib.rcParams) == before
    assert Gcf.get_all_fig_managers() == []
