"""Intrinsics whose effect no result shows."""

from __future__ import annotations

import re

import pytest

from tests.engine.backends.cpu.compiled import compiled
from thalweg.engine.backends.cpu.compiler.llvm import optimized
from thalweg.engine.backends.cpu.intrinsics import prefetch


def four_lines(address):
    prefetch(address, 256)


def less_than_a_line(address):
    prefetch(address, 1)


@pytest.mark.parametrize(("function", "lines"), [(four_lines, 4), (less_than_a_line, 1)])
def test_every_line_is_fetched_once(function, lines: int) -> None:
    code = str(optimized({"f": function}))
    places = re.findall(r"call void @llvm\.prefetch\.\w+\((.*), i32 0, i32 3, i32 1\)", code)
    assert len(places) == len(set(places)) == lines


def test_any_address_will_do() -> None:
    fetch = compiled(four_lines)
    for address in (0, 8, -1, 2**62):
        fetch(address)


def test_python_cannot_call_them() -> None:
    with pytest.raises(TypeError, match="prefetch is an operation of compiled kernels"):
        prefetch(0, 1)
