"""Packages that only pictures, pages and races need: imported where they are used."""

import importlib
from types import ModuleType

# What users know a package by where that is not the name it is imported by.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "Pillow"}


def needs(name: str) -> ModuleType:
    """The module of that dotted name, imported now.

    Args:
        name: as in an import statement, for example ``"matplotlib.figure"``.

    Raises:
        ModuleNotFoundError: its package is not installed; the message says what to install.

    >>> needs("math").floor(1.5)
    1
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise  # It is installed, but something that it needs is not.
        known = DISTRIBUTIONS.get(package, package)
        raise ModuleNotFoundError(
            f"{known} is not installed, and this needs it; install it with: "
            'pip install "thalweg[race]"',
            name=error.name,
        ) from error
