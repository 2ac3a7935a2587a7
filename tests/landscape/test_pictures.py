from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from tests.landscape.paths import three
from thalweg.landscape import SURFACES, Surface, goldstein_price, rosenbrock, saddle
from thalweg.landscape.contours import levels, lines
from thalweg.landscape.pictures import draw_contours, draw_surface, save
from thalweg.page import colours_of


def texts_of(figure: Any) -> dict[str, Any]:
    """Where each text of a figure stands, in pixels."""
    figure.canvas.draw()
    ax = figure.axes[0]
    found = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, figure._supxlabel]
    found += [text for text in ax.texts if text.get_text()]
    legend = ax.get_legend()
    found += (
        legend.get_texts() if legend else [t for one in figure.legends for t in one.get_texts()]
    )
    return {
        f"{i} {text.get_text()}": text.get_window_extent()
        for i, text in enumerate(found)
        if text.get_text()
    }


@pytest.mark.parametrize("make", [goldstein_price, saddle], ids=lambda make: make.__name__)
@pytest.mark.parametrize("size", [(8.0, 6.0), (6.0, 5.0)])
def test_no_text_leaves_the_map_or_covers_another(make: Any, size: tuple[float, float]) -> None:
    surface = make()
    figure = draw_contours(surface, three(surface), size=size)
    boxes = texts_of(figure)
    frame = figure.bbox
    assert len(boxes) > 8
    for name, box in boxes.items():
        assert box.x0 >= frame.x0 - 1, name
        assert box.x1 <= frame.x1 + 1, name
        assert box.y0 >= frame.y0 - 1, name
        assert box.y1 <= frame.y1 + 1, name
    heights = {levels(surface).label(i) for i in range(len(levels(surface).values))}
    apart = {n: b for n, b in boxes.items() if n.split(" ", 1)[1] not in heights}
    for (one, a), (two, b) in combinations(apart.items(), 2):
        assert not a.overlaps(b), (one, two)
    legend = figure.axes[0].get_legend().get_window_extent()
    assert not legend.overlaps(figure.axes[0].get_window_extent())


@pytest.mark.parametrize(
    ("height", "minima", "count"),
    [
        (lambda x, y: 1e4 * y**2 + 0 * x, ((0.0, 0.0),), 2),  # every line carries its height
        (lambda x, y: torch.sign(x) + 0 * y, (), 2),  # all at one place
        (lambda x, y: 0.5 + 0 * (x + y), (), 0),
    ],
    ids=["trough", "cliff", "plain"],
)
def test_map_of_a_surface_with_few_lines(height: Any, minima: Any, count: int) -> None:
    surface = Surface("Plain", "f", height, (-1.0, 1.0, -1e3, 1e3), minima, start=(0.5, 0.5))
    assert len(lines(surface)) >= count
    figure = draw_contours(surface, valley=False)
    figure.canvas.draw()
    said = figure._supxlabel.get_text()
    assert said.startswith("Lines at equal steps" if count else "No line")


def test_map_shows_what_it_is_given() -> None:
    surface = rosenbrock()
    paths = three(surface)
    ax = draw_contours(surface, paths).axes[0]
    drawn = {line.get_label(): line for line in ax.lines}
    for path in paths[:2]:
        assert np.array_equal(drawn[path.name].get_xydata(), path.points)
        assert to_hex(drawn[path.name].get_color()) == colours_of([path.name])[path.name]
    assert "RMSprop (diverged)" in drawn
    assert (*ax.get_xlim(), *ax.get_ylim()) == surface.region  # although a path leaves it
    x, y = drawn["valley line"].get_data()
    assert np.abs(y - x**2).max() < 1e-3
    assert drawn["minimum"].get_xydata().tolist() == [[1.0, 1.0]]
    assert drawn["start"].get_xydata().tolist() == [list(surface.start)]
    assert ax.get_aspect() == 1.0
    labels = [text.get_text() for text in ax.texts]
    assert {"1", "10", "100", "1000"} <= set(labels)


def test_lines_drawn_are_the_contour_lines() -> None:
    surface = saddle()
    ax = draw_contours(surface, valley=False).axes[0]
    at, drawn = levels(surface), [c for c in ax.collections if hasattr(c, "levels")]
    for line in lines(surface):
        pieces = [path for c in drawn for path in [c.get_paths()[line.level]] if len(path)]
        vertices = np.concatenate([path.vertices for path in pieces])
        # Where the height is written the line is left open.
        near = [np.abs(vertices - p).sum(axis=1).min() < 1e-9 for p in line.points]
        assert np.mean(near) > 0.5
    assert len(at.values) == len(drawn[0].levels)
    assert "valley line" not in [line.get_label() for line in ax.lines]


def test_surface_without_minimum_or_direction_has_no_valley_line() -> None:
    plain = Surface("tilted", "f", lambda x, y: 0.3 * x + y**2 + 1.0, (0.0, 1.0, 0.0, 1.0))
    ax = draw_contours(plain).axes[0]
    assert ax.get_legend() is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rosenbrock", "saddle"])
def test_surface_in_space(name: str) -> None:
    surface = SURFACES[name]()
    paths = three(surface)
    for chosen in ((), paths):
        figure = draw_surface(surface, chosen)
        figure.canvas.draw()
        ax = figure.axes[0]
        named = [line.get_label() for line in ax.lines if not line.get_label().startswith("_")]
        assert named == [path.name for path in chosen]
        assert len(ax.lines) == len(lines(surface)) + 2 * len(chosen)
        ticks = [text.get_text() for text in ax.get_zticklabels()]
        assert ("100" in ticks) == (name == "rosenbrock")
    frame = figure.bbox
    for name, box in texts_of(figure).items():
        assert box.x0 >= frame.x0 - 1, name
        assert box.x1 <= frame.x1 + 1, name


@pytest.mark.slow
def test_same_picture_has_the_same_bytes(tmp_path: Path) -> None:
    surface = saddle()
    for suffix in (".png", ".svg"):
        made = [
            save(draw_contours(surface, three(surface)), tmp_path / f"{i}{suffix}") for i in "ab"
        ]
        assert made[0].read_bytes() == made[1].read_bytes()
