"""Running a test's function in a fresh process that costs milliseconds.

Importing torch takes a second, and a process with several threads must not fork. So one helper
process is started, which imports all that is needed, keeps to one thread and does nothing but fork.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
# numpy's and torch's libraries would start threads of their own.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Helper:
    """The helper process, from the side of the tests."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.checkpoint.faults.forks"],
            cwd=ROOT,
            env=os.environ | ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, function: Callable[..., Any], *args: Any, seconds: int = 120) -> Any:
        """What a module's function gives, called in a fork; AssertionError with all that it raises.

        Args:
            function: found by its name in the fork.
            args: and its result: whatever can be pickled.
            seconds: after so many the fork is killed.
        """
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        pickle.dump((function, args, seconds), sink)
        sink.flush()
        result, failure = pickle.load(source)
        assert failure is None, failure
        return result

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def forked(function: Callable[[], object]) -> int:
    """Start a function in a fork of this process, which must have one thread; gives its number.

    The fork ends with 0, or with 1 and a traceback on stderr.
    """
    for _ in range(1000):
        if len(os.listdir("/proc/self/task")) == 1:
            break
        time.sleep(0.001)  # the system lists a thread that was joined for a moment longer
    else:
        raise AssertionError("a process with threads cannot be forked")
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # nothing of the parent's is to be closed or flushed twice


def ended(process: int) -> int:
    """Wait for a fork; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _answer(function: Callable[..., Any], args: tuple[Any, ...], to: int) -> None:
    try:
        answer = (function(*args), None)
    except BaseException:
        answer = (None, traceback.format_exc())
    with open(to, "wb", closefd=False) as file:
        pickle.dump(answer, file)


def _serve() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # what is printed must not stand between the answers
    while True:
        try:
            function, args, seconds = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        ours, theirs = os.pipe()

        def run(
            function: Any = function, args: Any = args, seconds: int = seconds, to: int = theirs
        ) -> None:
            signal.alarm(seconds)
            _answer(function, args, to)

        process = forked(run)
        os.close(theirs)
        with open(ours, "rb") as file:
            answer = file.read()
        code = ended(process)
        if code or not answer:
            answer = pickle.dumps((None, f"{function.__name__} ended with code {code}"))
        with open(answers, "wb", closefd=False) as file:
            file.write(answer)


if __name__ == "__main__":
    from tests.checkpoint.faults.subjects import Subject

    # What is loaded at first use is there then, also for forks that may read nothing any more.
    with tempfile.TemporaryDirectory() as folder:
        warm = Subject(0)
        warm.save(Path(folder, "a.safetensors"))
        warm.load(Path(folder, "a.safetensors"))
    _serve()
