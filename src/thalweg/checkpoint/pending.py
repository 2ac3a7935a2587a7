"""Taking several parts over: all of them, or none."""

from collections.abc import Callable, Iterable
from typing import Any

from thalweg.engine.interrupts import uninterrupted
from thalweg.optim.state_dict import LoadReport, Pending


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
