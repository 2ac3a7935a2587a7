"""Looking for a private part, which may be missing."""

from typing import Any

import torch

looked_for: set[str] = set()  # so far, for tests


def part(name: str) -> Any:
    """A part of torch by its dotted name, such as ``_C._dispatch_keys``; None if it is missing."""
    looked_for.add(name)
    found: Any = torch
    for each in name.split("."):
        found = getattr(found, each, None)
    return found
