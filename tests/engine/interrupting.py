"""Ctrl-C before any bytecode instruction of a call: each moment once, where timing meets few."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def instructions(function: Callable[[], Any], files: str) -> int:
    """How many instructions a call executes in source files whose path holds this text."""
    return traced(function, files, -1)


def interrupt_before(function: Callable[[], Any], files: str, number: int) -> None:
    """Call a function, and let the signal come before its instruction of this number, from 0."""
    assert traced(function, files, number) > number, "the call was over before"


def traced(function: Callable[[], Any], files: str, number: int, sent: int = signal.SIGINT) -> int:
    """Call a function, let a signal come before an instruction if it gets there, and count them."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if files not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            count += 1
            if count == number + 1:
                signal.raise_signal(sent)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count
