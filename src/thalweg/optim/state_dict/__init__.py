"""State dicts of optimizers, in torch's format: packed, matched by order or by name, taken over.

1. ``form``: what an optimizer gives away, and what a state dict must look like.
2. ``matching``: which entry belongs to which parameter; the report of what does not fit.
3. ``saved_options`` and ``values``: whether each option and each value fits.
4. ``loading``: all checks first, then the change, which nothing can stop half way.
"""

from thalweg.optim.state_dict.form import (
    Groups,
    Saved,
    State,
    named,
    names_in,
    pack,
    packed,
)
from thalweg.optim.state_dict.loading import Pending, prepare
from thalweg.optim.state_dict.matching import Match, Rename
from thalweg.optim.state_dict.report import LoadReport, Misshaped
from thalweg.optim.state_dict.values import Entry, Misfits, checked_states, is_number, state_names

__all__ = [
    "Entry",
    "Groups",
    "LoadReport",
    "Match",
    "Misfits",
    "Misshaped",
    "Pending",
    "Rename",
    "Saved",
    "State",
    "checked_states",
    "is_number",
    "named",
    "names_in",
    "pack",
    "packed",
    "prepare",
    "state_names",
]
