"""The moving picture: many optimizers at once over a contour map, as a GIF."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.files import write_whole
from thalweg.landscape.contours import Relief
from thalweg.landscape.pictures import (
    HIGH,
    LINES,
    LOW,
    draw_legend,
    draw_map,
    draw_path,
    draw_starts,
)
from thalweg.landscape.surfaces import Surface
from thalweg.landscape.trajectory import Trajectory
from thalweg.page import colours_of, needs, styles_of
from thalweg.page.figures import BACK, INK, MUTED, blank, style
from thalweg.ranges import Range, integer, number

HOLD = 2.5  # seconds that the last frame stays


def write_gif(
    surface: Surface,
    trajectories: Sequence[Trajectory],
    path: str | os.PathLike[str],
    *,
    frames: int = 120,
    fps: float = 20.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write an animated GIF: all trajectories grow at once over the contour map.

    The frames are spread evenly over the steps of the longest trajectory; one that ends earlier,
    because it diverged, waits at its end. The last frame stays for 2.5 seconds.

    Args:
        surface: what to draw.
        trajectories: paths over it, at least one.
        path: ends in ``.gif``.
        frames: how many (default: 120), at least 2.
        fps: frames per second (default: 20), above 0 and at most 50.
        progress: called after each frame with how many are done and how many there are.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says what to install.
        OSError: it cannot be written there; the message names the folder.
        TypeError: frames is not an integer.
        ValueError: a number is out of range, the suffix is another one, there are no trajectories,
            or the surface is nowhere finite.
    """
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"write_gif: path must end in .gif, got {os.fspath(path)!r}")
    if not trajectories:
        raise ValueError("write_gif: trajectories must not be empty; use draw_contours without any")
    number("write_gif", "frames", integer("write_gif", "frames", frames, flags=False), Range(2))
    number("write_gif", "fps", fps, Range(0, 50.5, open="both"), "; browsers show no more than 50")
    images = _Images(surface, trajectories)
    steps = np.linspace(0, images.last, frames).round().astype(int)
    shown = []
    for done, step in enumerate(steps, 1):
        shown.append(images.at(int(step)))
        if progress is not None:
            progress(done, frames)
    palette = _palette(shown[-1], trajectories)
    first, *rest = (_reduced(image, palette) for image in shown)
    file = io.BytesIO()
    times = [round(1000 / fps)] * (frames - 1) + [round(1000 * HOLD)]
    first.save(file, "GIF", save_all=True, append_images=rest, duration=times, loop=0)
    return write_whole(path, file.getvalue())


def _palette(image: Any, trajectories: Sequence[Trajectory]) -> bytes:
    """One palette for all frames, from the last, which shows everything.

    With it, what does not move has the same bytes in each frame, and only what moves is stored.
    The colours that carry meaning are in it exactly, with what they blend to at edges; half of it
    is left to the rest.
    """
    colours = [INK, MUTED, LINES, *colours_of(t.name for t in trajectories).values()]
    exact = [rgb for c in dict.fromkeys(colours) for rgb in _blends(c, BACK, 5)][:88]
    exact += _blends(LOW, HIGH, 40)
    others = image.quantize(256 - len(exact)).getpalette()
    return b"".join(exact) + bytes(others)


def _reduced(image: Any, palette: bytes) -> Any:
    """With the palette's colours, each pixel the nearest one."""
    # Pillow looks colours up with their last two bits cut off. Cut them off in the palette too,
    # else white would become a colour that is nearer to 252 than to 255.
    coarse = needs("PIL.Image").new("P", (1, 1))
    coarse.putpalette(bytes(value & 0xFC for value in palette))
    found = image.quantize(palette=coarse, dither=0)
    found.putpalette(palette)
    return found


def _blends(first: str, last: str, count: int) -> list[bytes]:
    """So many colours from one to another, both of them among these."""
    ends = [np.array(list(bytes.fromhex(colour[1:])), dtype=float) for colour in (first, last)]
    blends = np.linspace(ends[0], ends[1], count).round().astype(np.uint8)
    return [blend.tobytes() for blend in blends]


class _Images:
    """Draws the map once, and over a copy of it the trajectories up to a step."""

    def __init__(self, surface: Surface, trajectories: Sequence[Trajectory]) -> None:
        self._trajectories = trajectories
        self.last = max(len(trajectory.points) for trajectory in trajectories) - 1
        with style():
            figure, ax = blank((8.0, 6.0))
            canvas: Any = figure.canvas
            draw_map(ax, Relief(surface), valley=True)
            draw_starts(ax, trajectories)
            styles = styles_of(trajectory.name for trajectory in trajectories)
            self._moving = [draw_path(ax, t, styles[t.name]) for t in trajectories]
            draw_legend(ax)
            self._counter = ax.annotate(
                "", (1, 1), (0, 8), xycoords="axes fraction", textcoords="offset points",
                ha="right", color=MUTED,
            )  # fmt: skip
            self._counter.set_in_layout(False)
            self._ax, self._canvas = ax, canvas
            for artist in self._artists():
                artist.set_animated(True)  # left out of the background
            canvas.draw()
            self._background = canvas.copy_from_bbox(figure.bbox)

    def _artists(self) -> list[Any]:
        lines, ends = zip(*self._moving, strict=True)
        return [*lines, *ends, self._counter]

    def at(self, step: int) -> Any:
        """The picture after so many steps."""
        for (line, end), trajectory in zip(self._moving, self._trajectories, strict=True):
            points = trajectory.points[: step + 1]
            line.set_data(*points.T)
            end.set_data(*points[-1:].T)
        self._counter.set_text(f"step {step} of {self.last}")
        with style():
            self._canvas.restore_region(self._background)
            for artist in self._artists():
                self._ax.draw_artist(artist)
        pixels = np.asarray(self._canvas.buffer_rgba())[..., :3]
        return needs("PIL.Image").fromarray(pixels.copy())
