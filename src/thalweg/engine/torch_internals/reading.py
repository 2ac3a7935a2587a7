"""What ``torch.load`` calls for a file, for one thread."""

import importlib
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import Any

Globals = dict[str, Any]

# What a thread makes of the functions that its files may call, by their names there.
_changed: ContextVar[Callable[[Globals], Globals] | None] = ContextVar("_changed", default=None)


@cache
def _ask_each_thread() -> None:
    """Have torch's reader of plain data ask the thread that it runs in: its list is everybody's."""
    try:
        reader: Any = importlib.import_module("torch._weights_only_unpickler")
        of_all: Callable[[], Globals] = reader._get_user_allowed_globals
    except (ImportError, AttributeError):
        return

    def of_this_thread() -> Globals:
        change = _changed.get()
        return of_all() if change is None else change(of_all())

    reader._get_user_allowed_globals = of_this_thread


def with_safe_globals(change: Callable[[Globals], Globals], read: Callable[[], Any]) -> Any:
    """Call what reads files by ``torch.load`` with ``weights_only=True``, with other safe globals.

    ``torch.serialization.safe_globals`` changes what all threads may read, and two threads that
    use it leave each other's behind.

    Args:
        change: makes of the functions that the program allows, by name, those that files may call.
        read: what reads.
    """
    _ask_each_thread()
    before = _changed.get()
    try:
        _changed.set(change)
        return read()
    finally:
        _changed.set(before)
