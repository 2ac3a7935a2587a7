"""Docstrings are written to be read in a terminal; this makes Markdown of their few marks."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr):`~?([^`]+)`")
LITERAL = re.compile(r"^ *::\n|(?<=:):$", re.MULTILINE)
EXAMPLE = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
BOUND = re.compile(r"^( +\w+: )(?=>)", re.MULTILINE)


def markdown(text: str) -> str:
    """Make Markdown of a docstring.

    References become code, ``::`` goes or is ``:`` (what follows is indented), examples are fenced,
    and an argument that must be ``> 0`` is not a quotation.
    """
    text = ROLE.sub(r"`\1`", text)
    text = LITERAL.sub("", text)
    text = BOUND.sub(r"\1\\", text)
    return EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", text)


class Marks(griffe.Extension):
    """Applies :func:`markdown` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """A dataclass's ``steps: float = field()`` has no default."""
        if str(attr.value) == "field()":
            attr.value = None
