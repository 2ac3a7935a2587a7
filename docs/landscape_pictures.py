"""Pictures of every surface for the documentation, into docs/pictures/; see pictures.py."""

from pathlib import Path
from tempfile import TemporaryDirectory

from thalweg import landscape

MAPS = tuple(landscape.SURFACES)
SIZE = (5.0, 4.2)  # inches


def write_maps(folder: Path) -> None:
    """A contour map of each surface, with its valley line; a file that is right is left alone."""
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory() as drawn:
        for name in MAPS:
            figure = landscape.draw_contours(landscape.surface(name), size=SIZE)
            new = landscape.save(figure, Path(drawn) / f"map-{name}.png").read_bytes()
            path = folder / f"map-{name}.png"
            if not path.exists() or path.read_bytes() != new:
                path.write_bytes(new)
