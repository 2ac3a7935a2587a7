"""One self-contained HTML page from charts, animations, tables and text."""

from thalweg.page.colours import colours_of, dashes_of, styles_of
from thalweg.page.extras import needs
from thalweg.page.page import Page
from thalweg.page.parts import Animation, Chart, Code, Part, Row, Section, Table, Text, Track

__all__ = [
    "Animation",
    "Chart",
    "Code",
    "Page",
    "Part",
    "Row",
    "Section",
    "Table",
    "Text",
    "Track",
    "colours_of",
    "dashes_of",
    "needs",
    "styles_of",
]
