"""What passes share: a block of arguments belongs to one call, and those of 64 keys are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from thalweg.engine.backends.cpu import threads
from thalweg.engine.passes.base import KEPT_KEYS, ArgumentBlock, Pass


class Block(ArgumentBlock[list[int]]):
    """Finds its own arguments."""

    def __init__(self, key: int) -> None:
        kernel: Any = None
        super().__init__(kernel, 4, most_threads=key)
        self.arguments[1] = key

    def found(self) -> list[int]:
        return [*self.arguments]


class Plain(Pass[int, list[int]]):
    def __init__(self) -> None:
        super().__init__("1q1d", 2)
        self.made: list[int] = []

    def _new_block(self, key: int) -> Block:
        self.made.append(key)
        return Block(key)


@pytest.fixture
def while_running(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[int, int], None]]:
    """Called with the address of the arguments and the number of threads, instead of a kernel."""
    calls: list[Callable[[int, int], None]] = []

    def run(kernel: Any, arguments: int, count: int, *_: Any) -> None:
        for call in calls:
            call(arguments, count)

    monkeypatch.setattr(threads, "run", run)
    return calls


def test_arguments_that_change_are_written_and_the_others_kept(while_running: list[Any]) -> None:
    plain = Plain()
    assert plain.run(1, 7, 0.5) == [0, 1, 7, 0x3FE0000000000000]
    (block,) = plain._free[1]
    block.arguments[0] = 3  # tickets drawn
    assert plain.run(1, 8, 1.0) == [0, 1, 8, 0x3FF0000000000000]
    assert plain.made == [1]


def test_a_block_belongs_to_one_call_at_a_time(while_running: list[Any]) -> None:
    plain, inner = Plain(), []

    def call_within(address: int, count: int) -> None:
        while_running.clear()
        inner.append(plain.run(1, 8, 0.0))

    while_running.append(call_within)
    assert plain.run(1, 7, 0.0)[2] == 7
    assert inner[0][2] == 8
    assert plain.made == [1, 1]
    assert len(plain._free[1]) == 2


def test_threads_are_at_most_those_of_use_and_of_torch(while_running: list[Any]) -> None:
    counts: list[int] = []
    while_running.append(lambda address, count: counts.append(count))
    plain = Plain()
    for key in (0, 1, 1000):
        plain.run(key, 0, 0.0)
    assert counts == [0, 1, torch.get_num_threads()]


def test_blocks_are_kept_for_so_many_keys(while_running: list[Any]) -> None:
    plain = Plain()
    for key in range(3 * KEPT_KEYS):
        assert plain.run(key, 0, 0.0)[1] == key
        assert len(plain._free) <= KEPT_KEYS
