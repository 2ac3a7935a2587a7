"""Classes and functions that are given by where they are imported from."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from thalweg.names import nearest

_FAILURES = (Exception, SystemExit)  # what a user's code may do when it is run


def find_object(owner: str, spec: str) -> Any:
    """What ``module:name`` or ``package.module.name`` stands for.

    The current folder is looked into first, as ``python -m`` does.

    Args:
        owner: whose argument it is, for the message.
        spec: with a colon, the module before it and the name in it behind; without one, the
            longest part that is a module is taken for it.

    Raises:
        ValueError: there is no such module, it cannot be imported, or nothing in it has that name.

    >>> find_object("example", "math:floor")(1.5), find_object("example", "os.path.join")("a", "b")
    (1, 'a/b')
    """
    place, colon, name = spec.partition(":")
    if not all(part.isidentifier() for part in [*place.split("."), *name.split(".")] if part) or (
        colon and not (place and name)
    ):
        raise ValueError(f"{owner}: {spec!r} is no importable name; write my_module:MyName")
    if colon:
        return _attribute(owner, spec, _module(owner, spec, place), name)
    parts = spec.split(".")
    for count in range(len(parts) - 1, 0, -1):
        place, name = ".".join(parts[:count]), ".".join(parts[count:])
        if count == 1 or _exists(place):
            return _attribute(owner, spec, _module(owner, spec, place), name)
    return _module(owner, spec, spec)


def build(owner: str, spec: str) -> Any:
    """What the function of that name returns, called without arguments.

    Raises:
        ValueError: there is no such function, or it fails.
    """
    function = find_object(owner, spec)
    if not callable(function):
        raise ValueError(
            f"{owner}: {spec} must be a function without arguments, got {type(function).__name__}"
        )
    try:
        return function()
    except _FAILURES as error:
        raise ValueError(f"{owner}: {spec} failed: {type(error).__name__}: {error}") from error


def _exists(place: str) -> bool:
    with _current_folder():
        try:
            return importlib.util.find_spec(place) is not None
        except (ImportError, AttributeError, ValueError):
            return False


def _module(owner: str, spec: str, place: str) -> ModuleType:
    with _current_folder():
        try:
            return importlib.import_module(place)
        except _FAILURES as error:
            if isinstance(error, ModuleNotFoundError) and place.startswith(str(error.name)):
                raise ValueError(
                    f"{owner}: there is no module {error.name!r}, which {spec!r} asks for; run "
                    "this in the folder that holds it, or install it"
                ) from error
            raise ValueError(
                f"{owner}: cannot import {place!r} for {spec!r}: {type(error).__name__}: {error}"
            ) from error


def _attribute(owner: str, spec: str, module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            hint = nearest(part, dir(found))
            raise ValueError(f"{owner}: {module.__name__} has no {part!r} for {spec!r}{hint}")
        found = getattr(found, part)
    return found


@contextmanager
def _current_folder() -> Iterator[None]:
    """The current folder first on the path of imports."""
    folder = str(Path.cwd())
    added = folder not in sys.path and "" not in sys.path
    try:
        if added:
            sys.path.insert(0, folder)
        importlib.invalidate_caches()  # a file may have been written a moment ago
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)
