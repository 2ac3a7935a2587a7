"""Intrinsics whose effect no result shows."""

from __future__ import annotations

import re

import pytest
from numba import njit

from thalweg.engine.backends.cpu.intrinsics import prefetch


@njit("void(int64)")
def four_lines(address):
    prefetch(address, 256)


@njit("void(int64)")
def less_than_a_line(address):
    prefetch(address, 1)


@pytest.mark.parametrize(("function", "lines"), [(four_lines, 4), (less_than_a_line, 1)])
def test_every_line_is_fetched_once(function, lines: int) -> None:
    (code,) = function.inspect_llvm().values()
    places = re.findall(r"call void @llvm\.prefetch\.\w+\((.*), i32 0, i32 3, i32 1\)", code)
    assert len(places) == len(set(places)) == lines


def test_any_address_will_do() -> None:
    for address in (0, 8, -1, 2**62):
        four_lines(address)
