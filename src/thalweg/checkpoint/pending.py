"""Taking several parts over: all of them, or none."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from thalweg.engine.interrupts import uninterrupted
from thalweg.optim.state_dict import LoadReport


@dataclass
class Pending:
    """Data that was checked, and only waits to be taken over.

    Attributes:
        commit: takes it over; may give a report, where it is only known then.
        undo: puts everything back, also after half of it; None if ``commit`` cannot fail.
        report: what of it fits; None where nothing goes by name, or before it was tried.
    """

    commit: Callable[[], Any]
    undo: Callable[[], Any] | None = None
    report: LoadReport | None = None


def commit_all(pending: Iterable[Pending]) -> None:
    """Take all over without being interrupted, those first that may fail.

    If one of these raises, it is put back with all that went before it. A part that cannot fail
    may still call its owner's hooks at its end: what they raise comes when everything is through.
    """
    parts = list(pending)
    done: list[Callable[[], Any]] = []
    errors: list[Exception] = []
    with uninterrupted():
        try:
            for each in parts:
                if each.undo is not None:
                    done.append(each.undo)
                    found = each.commit()
                    if isinstance(found, LoadReport):
                        each.report = found
        except BaseException as error:
            for undo in reversed(done):
                try:
                    undo()
                except Exception as failed:
                    error.add_note(f"and a part could not be put back as it was: {failed!r}")
            raise
        for each in parts:
            if each.undo is None:
                try:
                    each.commit()
                except Exception as error:
                    errors.append(error)
    if errors:
        errors[0].add_note("everything was loaded; a hook that is called after that raised this")
        raise errors[0]


def apart(value: Any) -> Any:
    """Nested data with tensors and arrays of their own, what is the same one time remaining so."""
    return _apart(value, {})


def _apart(value: Any, done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)]
    found = value
    if isinstance(value, Tensor):
        found = value.clone()
    elif isinstance(value, np.ndarray):
        found = value.copy()
    elif isinstance(value, OrderedDict):
        found = OrderedDict((key, _apart(item, done)) for key, item in value.items())
        if hasattr(value, "_metadata"):
            found._metadata = value._metadata  # type: ignore[attr-defined]
    elif isinstance(value, dict) and not isinstance(value, Counter):
        found = {key: _apart(item, done) for key, item in value.items()}
    elif type(value) in (list, tuple):
        found = type(value)(_apart(item, done) for item in value)
    done[id(value)] = found
    return found
