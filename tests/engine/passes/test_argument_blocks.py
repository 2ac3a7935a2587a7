"""Argument blocks: each belongs to one call, and a pool keeps those of so many keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from thalweg.engine.backends.cpu import threads
from thalweg.engine.passes.argument_blocks import KEPT_KEYS, ArgumentBlock, ArgumentBlocks


class Block(ArgumentBlock):
    def __init__(self, key: int) -> None:
        super().__init__(4)
        self.key = key
        self.most_threads = key
        self.arguments[1] = key


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The address of the arguments and the number of threads of each call."""
    calls: list[tuple[int, int]] = []

    def run(kernel: Any, arguments: int, count: int, *_: Any) -> None:
        calls.append((arguments, count))

    monkeypatch.setattr(threads, "run", run)
    return calls


def pool() -> ArgumentBlocks[int, Block]:
    return ArgumentBlocks(Block, "1q1d", 2)


def run(blocks: ArgumentBlocks[int, Block], key: int, *changing: float) -> Block:
    kernel: Any = None
    return blocks.run(kernel, key, *changing)


def test_arguments_that_change_are_written_and_the_others_kept(ran: list[Any]) -> None:
    blocks = pool()
    block = run(blocks, 1, 7, 0.5)
    block.arguments[0] = 3  # tickets drawn
    blocks.give_back(1, block)
    again = run(blocks, 1, 8, 1.0)
    assert again is block
    assert [*again.arguments] == [0, 1, 8, 0x3FF0000000000000]
    assert [address for address, _ in ran] == [block.address] * 2


def test_a_block_belongs_to_one_call_at_a_time(ran: list[Any]) -> None:
    blocks = pool()
    first, second = run(blocks, 1, 0, 0.0), run(blocks, 1, 0, 0.0)
    assert first is not second
    blocks.give_back(1, first)
    blocks.give_back(1, second)
    assert {run(blocks, 1, 0, 0.0) for _ in range(2)} == {first, second}


def test_threads_are_at_most_those_of_use_and_of_torch(ran: list[Any]) -> None:
    blocks = pool()
    for key in (0, 1, 1000):
        run(blocks, key, 0, 0.0)
    assert [count for _, count in ran] == [0, 1, torch.get_num_threads()]


def test_blocks_are_kept_for_so_many_keys(ran: list[Any]) -> None:
    blocks = pool()
    for key in range(3 * KEPT_KEYS):
        block = run(blocks, key, 0, 0.0)
        assert block.key == key
        blocks.give_back(key, block)
        assert len(blocks._free) <= KEPT_KEYS
