"""Running a function in a process of its own, so that a crash is an outcome like any other.

The processes are forked from a server that has imported torch and thalweg, and run no thread yet:
each begins within milliseconds, and may use threads.
"""

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, NamedTuple

LONGEST = 60.0  # seconds that a function may take


class Returned(NamedTuple):
    """What the function returned."""

    value: Any


class Raised(NamedTuple):
    """An exception, by the names of its classes, itself first."""

    kinds: tuple[str, ...]
    message: str


class Died(NamedTuple):
    """The process ended before the function did: by a signal, or because it took too long."""

    reason: str


Outcome = Returned | Raised | Died


def apart(function: Callable[..., Any], *arguments: Any, longest: float = LONGEST) -> Outcome:
    """What becomes of a function that is called in a process of its own.

    Args:
        function: of a module's top level; what it returns must be picklable.
        arguments: picklable.
        longest: seconds until it is ended.
    """
    context = _server()
    ours, theirs = context.Pipe(duplex=False)
    place = function.__module__, function.__qualname__
    process = context.Process(target=_told, args=(theirs, sys.path, place, arguments))
    process.start()
    theirs.close()
    outcome: Outcome = Died("it took too long")
    try:
        # What the process has started, as torch's server of shared memory, may keep the pipe open.
        if wait([ours, process.sentinel], longest):
            outcome = ours.recv() if ours.poll() else _died(process)
    except EOFError:
        outcome = _died(process)
    finally:
        ours.close()
        if process.is_alive():
            process.join(1)
            process.kill()
        process.join()
    return outcome


def _died(process: ForkServerProcess) -> Died:
    process.join(1)
    code = process.exitcode or 0
    return Died(signal.Signals(-code).name if code < 0 else f"exit code {code}")


def _told(
    connection: Connection, path: list[str], place: tuple[str, str], arguments: tuple[Any, ...]
) -> None:
    sys.path[:] = path
    outcome: Outcome
    try:
        outcome = Returned(getattr(importlib.import_module(place[0]), place[1])(*arguments))
    except BaseException as error:
        kinds = tuple(kind.__name__ for kind in type(error).__mro__)
        outcome = Raised(kinds, str(error))
    connection.send(outcome)
    connection.close()
    # Neither threads that still run nor what is registered for the end matters any more.
    os._exit(0)


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    # Children import the main module; under pytest that is pytest.
    context.set_forkserver_preload(["__main__", "torch", "thalweg.optim", "thalweg.losses"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        from multiprocessing import forkserver

        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context
