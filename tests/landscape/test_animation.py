from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import (
    NARROW,
    WIDE,
    assert_charts_have_data,
    assert_layout_holds,
    assert_plays,
    assert_quiet,
    browser,
    opened,
)
from tests.landscape.paths import straight, three
from thalweg.landscape import Trajectory, himmelblau, rosenbrock, saddle
from thalweg.landscape.animation import (
    MOST_FRAMES,
    contour_animation,
    surface_animation,
    write_page,
)
from thalweg.landscape.contours import levels, lines

__all__ = ["browser"]  # a fixture


def traces(figure: Any, meta: str) -> list[Any]:
    return [trace for trace in figure.data if trace.meta == meta]


def test_tracks_are_the_trajectories() -> None:
    surface = rosenbrock()
    paths = three(surface)
    made = contour_animation(surface, paths, "A race", "Who is first?")
    assert made.title == "A race"
    assert made.caption.startswith("Who is first?")
    assert levels(surface).rule in made.caption
    assert list(made.steps) == list(range(31))
    for track, path in zip(made.tracks, paths, strict=True):
        assert np.array_equal(np.column_stack([track.x, track.y]), path.points)
        assert np.array_equal(track.values, path.values)
        assert track.note == ("diverged" if path.diverged else "")
    layout = made.figure.layout
    assert (*layout.xaxis.range, *layout.yaxis.range) == surface.region


@pytest.mark.parametrize("animation", [contour_animation, surface_animation])
def test_long_paths_are_thinned_and_keep_their_ends(animation: Any) -> None:
    surface = saddle()
    long = straight(surface, "SGD", (0.5, 0.5), steps=4999)
    short = straight(surface, "Adam", (0.2, 0.7), steps=1234)
    made = animation(surface, [long, short])
    assert len(made.steps) == len(made.tracks[0].x) == MOST_FRAMES
    assert (made.steps[0], made.steps[-1]) == (0, 4999)
    for track, path in zip(made.tracks, (long, short), strict=True):
        assert (track.x[0], track.y[0]) == tuple(path.points[0])
        assert (track.x[-1], track.y[-1]) == tuple(path.points[-1])
        rows = np.minimum(made.steps, len(path.points) - 1)[: len(track.x)]
        assert np.array_equal(track.values, path.values[rows])
    # The short one is at its end in the first frame that comes after it.
    assert made.steps[len(made.tracks[1].x) - 2] < 1234 <= made.steps[len(made.tracks[1].x) - 1]


def test_map_has_lines_heights_minima_and_valley() -> None:
    surface = himmelblau()
    figure = contour_animation(surface, three(surface)).figure
    drawn = traces(figure, "faint")
    points = sum(np.isfinite(trace.x).sum() for trace in drawn)
    whole = sum(len(line.points) for line in lines(surface))
    assert 0.9 * whole < points <= whole  # but for the gaps at the heights
    (text,) = traces(figure, "muted")
    at = levels(surface)
    assert set(text.text) <= {at.label(i) for i in at.labelled}
    assert len(text.text) >= 3
    places = np.column_stack([text.x, text.y]) / 12  # the region is 12 wide and high
    for a, b in itertools.combinations(places, 2):
        assert np.linalg.norm(a - b) > 0.045
    stars = [trace for trace in traces(figure, "ink") if trace.marker.symbol == "star"]
    assert len(stars[0].x) == 4
    assert traces(figure, "fill")[0].z.shape == (201, 201)


def test_parts_outside_the_region_are_left_out_in_space() -> None:
    surface = saddle()
    made = surface_animation(surface, three(surface))
    inside, _, outside = made.tracks
    assert np.isfinite(np.array(inside.z)).all()
    gone = np.isnan(np.array(outside.z))
    assert not gone[0]
    assert gone[-1]
    scene = made.figure.layout.scene
    assert "0" in scene.zaxis.ticktext
    assert max(np.abs([scene.camera.eye.x, scene.camera.eye.y, scene.camera.eye.z])) < 3


def test_no_trajectories_are_refused() -> None:
    with pytest.raises(ValueError, match="tracks must not be empty"):
        contour_animation(saddle(), [])


def test_page_says_who_ended_where(tmp_path: Path) -> None:
    def said(*paths: Trajectory) -> str:
        text = write_page(tmp_path / "page.html", saddle(), paths, text="Why.")
        lead = text.read_text(encoding="utf-8").split("</header>")[0]
        return " ".join(re.findall(r"<p>(.*?)</p>", lead)[:2])

    def path(name: str, *values: float, diverged: bool = False) -> Trajectory:
        points = np.linspace(-1, 0, 2 * len(values)).reshape(-1, 2)
        return Trajectory(name, points, np.array(values), diverged=diverged)

    down, up, off = path("a", 2, -0.5), path("b", 2, 1.5), path("c", 2, 9, diverged=True)
    begin = "After 1 step from one start, "
    assert said(down) == f"{begin}a is at −0.5. Why."
    assert said(up, down) == f"{begin}a is lowest, at −0.5, and b highest, at 1.5. Why."
    assert said(off, down) == f"{begin}a is at −0.5; diverged: c. Why."
    assert said(off) == f"{begin}all have diverged. Why."


@pytest.mark.parametrize(
    ("make", "width", "scheme"),
    [
        (saddle, NARROW, "light"),
        pytest.param(rosenbrock, WIDE, "dark", marks=pytest.mark.slow),
    ],
    ids=["saddle", "rosenbrock"],
)
def test_page_of_its_own_in_a_browser(
    browser: Any, tmp_path: Path, make: Any, width: int, scheme: str
) -> None:
    surface = make()
    path = write_page(tmp_path / "page.html", surface, three(surface))
    assert "diverged: RMSprop." in path.read_text(encoding="utf-8")
    with opened(browser, path, width, scheme) as shown:
        assert_charts_have_data(shown)
        assert_layout_holds(shown, width)
        assert_plays(shown)
        assert_quiet(shown)
