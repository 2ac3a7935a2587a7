"""Which transforms of this package a saved parameter group was made with."""

from collections.abc import Container, Mapping
from typing import Any

from thalweg.transforms.average import averaged

KEEPING_STATES = (averaged(),)


def missing_transform(saved: Mapping[str, Any], own: Container[str]) -> str | None:
    """The name of a transform whose states an optimizer with other options would lose, or None.

    Args:
        saved: the options of a saved parameter group.
        own: the names of the optimizer's options.

    >>> missing_transform({"lr": 0.1, **averaged().options}, ["lr"])
    'averaged'
    """
    for each in KEEPING_STATES:
        if all(name in saved and name not in own for name in each.options):
            return each.name
    return None
