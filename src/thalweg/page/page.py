"""A page as HTML: everything in one file, nothing fetched."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from thalweg.files import write_whole
from thalweg.page.extras import needs
from thalweg.page.parts import Part, Row, Section
from thalweg.page.render import Renderer, paragraphs

# The browser itself forbids any request; plotly.js needs inline scripts and styles.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
SCRIPTS = ("colours.js", "charts.js", "legend.js", "animation.js", "script.js")


@dataclass(frozen=True)
class Page:
    """A page that can be read offline, in light and dark, on a phone and on paper.

    Attributes:
        title: of the page and of the browser's tab.
        lead: what it all means, before anything else; one paragraph, or several.
        sections: in order.
    """

    title: str
    lead: str | Sequence[str]
    sections: Sequence[Section]

    def html(self) -> str:
        """The page as text.

        Raises:
            ModuleNotFoundError: it has charts and plotly is not installed.
        """
        return "".join(self._pieces())

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, and give its path; a reader never meets a half-written one.

        Raises:
            ModuleNotFoundError: it has charts and plotly is not installed.
            OSError: it cannot be written there; the message names the folder.
        """
        return write_whole(path, self.html())

    def _pieces(self) -> Iterator[str]:
        render = Renderer()
        lead = [self.lead] if isinstance(self.lead, str) else self.lead
        yield (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{_file('style.css')}</style>\n"
            "</head>\n<body>\n<header>\n"
            '<button type="button" id="theme" hidden></button>\n'
            f'<h1>{escape(self.title)}</h1>\n<div class="lead">{paragraphs(lead)}</div>\n'
        )
        if len(self.sections) > 1:
            items = "".join(
                f'<li><a href="#s{i}">{escape(section.heading)}</a></li>'
                for i, section in enumerate(self.sections, 1)
            )
            yield f'<nav aria-label="Contents"><ul>{items}</ul></nav>\n'
        yield "</header>\n<main>\n"
        for i, section in enumerate(self.sections, 1):
            yield f'<section id="s{i}">\n<h2>{escape(section.heading)}</h2>\n'
            yield from map(render.part, section.parts)
            yield "</section>\n"
        yield "</main>\n"
        if any(_draws(part) for section in self.sections for part in section.parts):
            yield "<noscript><p>The charts need JavaScript.</p></noscript>\n"
            library = needs("plotly.offline").get_plotlyjs()
            yield f"<script>{library.replace('</script', '<' + chr(92) + '/script')}</script>\n"
        yield f"<script>\n{_script()}</script>\n</body>\n</html>\n"


def _draws(part: Part) -> bool:
    if isinstance(part, Row):
        return any(map(_draws, part.parts))
    return hasattr(part, "figure")


def _script() -> str:
    """The files as one function: none of their names is seen from outside."""
    return "\n".join(['"use strict";', "(() => {", *map(_file, SCRIPTS), "})();", ""])


def _file(name: str) -> str:
    return (files("thalweg.page") / name).read_text(encoding="utf-8")
