"""Docstrings are written to be read in a terminal; this makes Markdown of their few marks."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod):`~?([^`]+)`")
LITERAL = re.compile(r"^ *::\n", re.MULTILINE)
EXAMPLE = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


def markdown(text: str) -> str:
    """References become code, ``::`` goes (what follows is indented), examples are fenced."""
    text = ROLE.sub(r"`\1`", text)
    text = LITERAL.sub("", text)
    return EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", text)


class Marks(griffe.Extension):
    """Applies :func:`markdown` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
