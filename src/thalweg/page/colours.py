"""One colour per optimizer, the same in every picture."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

# Eight hues that stay apart for readers with any of the three kinds of colour blindness, each with
# a contrast of at least 3:1 on white and on the page's dark background (WCAG 2.2, 1.4.11).
PALETTE = (
    "#1f6ad1",  # blue
    "#bc2f10",  # vermilion
    "#09724d",  # green
    "#9e3c98",  # purple
    "#0fa2b5",  # cyan
    "#909101",  # olive
    "#f05f87",  # pink
    "#9384f9",  # lavender
)
DASHES = ("solid", "dash", "dot", "dashdot")  # in plotly's words

# Slot n has colour n modulo 8 and dash n divided by 8; relatives share a colour.
_SLOTS = {
    "sgd": 0,
    "adam": 1,
    "rmsprop": 2,
    "adagrad": 3,
    "sgdmomentum": 4,
    "adadelta": 5,
    "adamax": 6,
    "nadam": 7,
    "sgdnesterov": 12,
    "adamw": 9,
    "radam": 15,
    "rprop": 10,
    "asgd": 8,
    "lbfgs": 11,
    "sparseadam": 14,
}
_SPELLINGS = {
    "momentum": "sgdmomentum",
    "nesterov": "sgdnesterov",
    "sgdmomentumnesterov": "sgdnesterov",
}


_TORCH = re.compile(r"^torch(\.optim)?\W+|\W*\(torch\)$")


@dataclass(frozen=True)
class Style:
    """How a series is drawn.

    Attributes:
        colour: ``#rrggbb``.
        dash: one of :data:`DASHES`.
    """

    colour: str
    dash: str


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """Colour and dash of each series, no two alike among up to 32.

    An optimizer that thalweg has always looks the same, whatever else is in the picture. Others
    take the free places in their order; ``"Adam (torch)"`` and ``"torch.optim.Adam"`` have the
    colour of Adam and another dash.

    Args:
        names: of the series; upper case, spaces and signs do not matter.

    >>> styles_of(["Adam", "mine"])["Adam"] == styles_of(["SGD", "adam"])["adam"]
    True
    """
    listed = list(dict.fromkeys(names))
    slots = {name: _SLOTS[key] for name in listed if (key := _key(name)) in _SLOTS}
    taken = set(slots.values())
    for name in listed:
        if name not in slots:
            near = _SLOTS.get(_key(_TORCH.sub("", name)))
            places = count() if near is None else count(near, len(PALETTE))
            slots[name] = next(slot for slot in places if slot not in taken)
            taken.add(slots[name])
    return {
        name: Style(
            PALETTE[slots[name] % len(PALETTE)],
            DASHES[slots[name] // len(PALETTE) % len(DASHES)],
        )
        for name in listed
    }


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """The colour of each series as ``#rrggbb``; see :func:`styles_of`."""
    return {name: style.colour for name, style in styles_of(names).items()}


def dashes_of(names: Iterable[str]) -> dict[str, str]:
    """The dash of each series in plotly's words; see :func:`styles_of`."""
    return {name: style.dash for name, style in styles_of(names).items()}


def _key(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", name.lower().replace("with ", ""))
    return _SPELLINGS.get(plain, plain)
