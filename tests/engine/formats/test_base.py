"""Where the buffers of operands are found."""

from __future__ import annotations

import pytest
import torch

from tests.engine.formats.samples import SPLIT, blockwise
from thalweg.engine.formats import FORMATS, buffers_of, salt

FP32 = FORMATS[torch.float32]


def test_further_buffers_come_after_all_main_ones() -> None:
    formats = {"p": SPLIT, "g": FP32, "exp_avg": blockwise(64)}
    found = buffers_of(["p", "g", "exp_avg"], formats)
    assert [b.name(operand) for operand, b in found] == [
        *("p", "g", "exp_avg", "p_low", "exp_avg_scale")
    ]
    assert [b.elements for _, b in found] == [1, 1, 1, 1, 64]


def test_two_buffers_of_one_name_are_refused() -> None:
    formats = {"p": FP32, "g": FP32, "m": blockwise(64), "m_scale": FP32}
    with pytest.raises(
        ValueError,
        match="operand 'm' in format q8x64 has a buffer 'm_scale', and so has operand 'm_scale'",
    ):
        buffers_of(list(formats), formats)


def test_salts_of_operands_differ() -> None:
    names = ["p", "g", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum"]
    assert len({salt(name) for name in names}) == len(names)
    assert all(0 <= salt(name) < 2**32 for name in names)
