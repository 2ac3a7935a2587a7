"""Pictures of every surface for the documentation, into docs/pictures/; see pictures.py."""

from pathlib import Path

from thalweg import landscape

SIZE = (5.0, 4.2)  # inches


def write_maps(folder: Path) -> None:
    """A contour map of each surface, with its valley line."""
    folder.mkdir(exist_ok=True)
    for name in landscape.SURFACES:
        figure = landscape.draw_contours(landscape.surface(name), size=SIZE)
        landscape.save(figure, folder / f"map-{name}.png")
