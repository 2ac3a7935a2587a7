"""Blocks within blocks: every element once, whole blocks, and tails."""

from __future__ import annotations

import pytest

from thalweg.engine.backends.cpu.loops import Blocks, nested


def run(sizes: list[int], count: int) -> list[tuple[str, int]]:
    """What happens, in order: blocks that begin and end, and elements."""
    blocks = [
        Blocks(
            size,
            f"first{size}",
            f"end{size}",
            begin=[f"seen.append(('begin {size}', first{size}))"],
            finish=[f"seen.append(('finish {size}', end{size}))"],
        )
        for size in sizes
    ]
    seen: list[tuple[str, int]] = []
    exec("\n".join(nested(blocks, ["seen.append(('element', i))"])), {"seen": seen, "count": count})
    return seen


@pytest.mark.parametrize("sizes", [[], [8], [8, 4], [8, 4, 2], [8, 1]], ids=str)
@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 31, 32])
def test_each_element_is_in_its_blocks(sizes: list[int], count: int) -> None:
    seen = run(sizes, count)
    assert [at for what, at in seen if what == "element"] == list(range(count))
    for size in sizes:
        firsts = list(range(0, count, size))
        assert [at for what, at in seen if what == f"begin {size}"] == firsts
        assert [at for what, at in seen if what == f"finish {size}"] == [
            min(first + size, count) for first in firsts
        ]
        for first in firsts:
            own = seen.index((f"begin {size}", first)), seen.index(("element", first))
            assert own[0] < own[1] < seen.index((f"finish {size}", min(first + size, count)))


def test_a_second_loop_over_a_blocks_elements() -> None:
    block = Blocks(4, "first4", "end4")
    block.finish = block.elements(["seen.append(-i)"])
    seen: list[int] = []
    exec("\n".join(nested([block], ["seen.append(i)"])), {"seen": seen, "count": 6})
    assert seen == [0, 1, 2, 3, 0, -1, -2, -3, 4, 5, -4, -5]
