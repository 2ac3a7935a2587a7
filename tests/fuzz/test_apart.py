"""The outcomes of processes are told apart: a value, an exception, a crash, an endless loop."""

import os
import signal
import time
from typing import Any

import pytest
import torch

from tests.fuzz.apart import Died, Raised, Returned, apart


def doubled(numbers: list[float]) -> list[float]:
    return (2 * torch.tensor(numbers)).tolist()


def refused() -> None:
    raise IndexError("7 is no place")


def crashed() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def endless() -> None:
    while True:
        time.sleep(0.1)


def crashed_with_a_child() -> None:
    if os.fork() == 0:
        time.sleep(10)
        os._exit(0)
    crashed()


def test_a_value_comes_back() -> None:
    assert apart(doubled, [1.0, 2.5]) == Returned([2.0, 5.0])


def test_an_exception_is_told_by_its_classes() -> None:
    found = apart(refused)
    assert isinstance(found, Raised)
    assert found.kinds[:3] == ("IndexError", "LookupError", "Exception")
    assert found.message == "7 is no place"


@pytest.mark.parametrize(("function", "reason"), [(crashed, "SIGSEGV"), (endless, "too long")])
def test_a_process_that_ends_before_its_function_is_told(function: Any, reason: str) -> None:
    found = apart(function, longest=2.0)
    assert isinstance(found, Died)
    assert reason in found.reason


def test_a_child_that_goes_on_does_not_hide_a_crash() -> None:
    begin = time.monotonic()
    assert apart(crashed_with_a_child, longest=8.0) == Died("SIGSEGV")
    assert time.monotonic() - begin < 7
