"""Surfaces by name."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from thalweg.landscape import functions, saddles
from thalweg.landscape.surfaces import Surface
from thalweg.names import unknown

Made = TypeVar("Made")

SURFACES: dict[str, Callable[[], Surface]] = {
    "bowl": functions.bowl,
    "rosenbrock": functions.rosenbrock,
    "beale": functions.beale,
    "himmelblau": functions.himmelblau,
    "rastrigin": functions.rastrigin,
    "ackley": functions.ackley,
    "goldstein_price": functions.goldstein_price,
    "saddle": saddles.saddle,
    "monkey_saddle": saddles.monkey_saddle,
}


def surface(name: str) -> Surface:
    """The surface of that name, in any case.

    Raises:
        TypeError: the name is not a string.
        ValueError: there is none; the message suggests the nearest name and lists all.

    >>> surface("Rosenbrock").minima
    ((1.0, 1.0),)
    >>> surface("rosenbrok")
    Traceback (most recent call last):
        ...
    ValueError: surface: unknown name 'rosenbrok'; did you mean rosenbrock? There are: bowl, ...
    """
    return named("surface", name, SURFACES)


def named(owner: str, name: str, known: Mapping[str, Callable[[], Made]]) -> Made:
    """What the function of that name makes, in any case, with spaces or hyphens.

    Raises:
        TypeError: the name is not a string.
        ValueError: there is none; the message suggests the nearest name and lists all.
    """
    if not isinstance(name, str):
        raise TypeError(f"{owner}: name must be a string, got {type(name).__name__} {name!r}")
    key = name.lower().replace("-", "_").replace(" ", "_")
    if key in known:
        return known[key]()
    raise unknown(owner, "name", name, known)
