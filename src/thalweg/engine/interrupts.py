"""Blocks that Ctrl-C does not cut in two."""

# signal's own functions, without its wrappers, which spend 4 µs on looking handlers up in an enum.
import _signal  # type: ignore[import-not-found]
import sys
import threading
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGINT
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

Result = TypeVar("Result")

_SIGINT = int(SIGINT)


class uninterrupted:
    """Let Ctrl-C (SIGINT) wait until the block is through, however that ends.

    Then the handler that was there is called, once for each signal that came, just as if it came at
    the end of the block; if it raises, as Python's own raises ``KeyboardInterrupt``, that goes on
    from there, and the signals left are dropped. One that comes before the block begins is handled
    before it begins.

    Blocks may be nested: signals wait for the outermost. Nothing is done in other threads than the
    main one, where Python runs no handlers, nor where the handler is none of Python's: a signal
    that is ignored, ends the process or belongs to a C library interrupts no Python code.

    Entering and leaving takes about a microsecond.

    >>> import signal
    >>> done = []
    >>> try:
    ...     with uninterrupted():
    ...         signal.raise_signal(signal.SIGINT)
    ...         done.append("all of it")
    ... except KeyboardInterrupt:
    ...     done.append("then the interrupt")
    >>> done
    ['all of it', 'then the interrupt']
    """

    __slots__ = ("_frame", "_previous", "_waiting")

    def __enter__(self) -> Self:
        self._previous: Any = None  # nothing to put back
        if get_ident() != threading.main_thread().ident:
            return self
        handler = _signal.getsignal(_SIGINT)
        while type(handler) is uninterrupted and not handler._is_running():
            # What another signal's handler raised has kept a block from putting back what it found.
            handler = handler._previous
        if not callable(handler) or type(handler) is uninterrupted:
            return self
        self._waiting = 0
        self._frame: FrameType | None = sys._getframe(1)
        try:
            # Handles what has come so far, and if that raises, changes nothing.
            _signal.signal(_SIGINT, self)
        except BaseException:
            self._put_back(handler)
            raise
        self._previous = handler
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        handler, self._previous = self._previous, None
        if handler is None:
            return
        self._frame = None
        try:
            # First lets what has come so far wait, too; from then on the handler is the user's.
            _signal.signal(_SIGINT, handler)
        except BaseException:  # another signal's handler raised, and nothing was put back
            self._put_back(handler)
            raise
        for _ in range(self._waiting):
            handler(_SIGINT, sys._getframe(1))

    def but_for(self, function: Callable[[], Result]) -> Result:
        """Call a function inside the block that may be interrupted, and return its result.

        What has waited is handled before.
        """
        self.__exit__(None, None, None)
        try:
            return function()
        finally:
            self.__enter__()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note a signal: this object is the handler meanwhile."""
        self._waiting += 1

    def _is_running(self) -> bool:
        """Whether the block is being executed."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame is self._frame:
                return True
            frame = frame.f_back
        return False

    def _put_back(self, handler: Any) -> None:
        if _signal.getsignal(_SIGINT) is self:
            _signal.signal(_SIGINT, handler)


@contextmanager
def put_back_after(put_back: Callable[[], object]) -> Iterator[None]:
    """Call a function after the block, however that ends, and let Ctrl-C wait for it.

    A signal between the block and the function is handled first, and the function is called all
    the same; at the latest when the exception is dropped.

    Args:
        put_back: is called once more where it does not come to its end.
    """
    done = False
    try:
        yield
    finally:
        try:
            with uninterrupted():
                put_back()
                done = True
        except BaseException:
            if not done:  # a signal came as the block began, perhaps
                put_back()
            raise
