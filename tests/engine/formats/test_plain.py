"""Formats: every number of a 16-bit format loads exactly, and stores round as torch's do."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from tests.engine.running import class_of, close, give
from thalweg.engine.formats import FORMATS, compute_type, format_of
from thalweg.optim.optimizer import MODES
from thalweg.rule import Rule

HALVES = [torch.bfloat16, torch.float16]


def copy_out(p, g, s, h):
    s.wide = p
    return p


def copy_in(p, g, s, h):
    return s.wide


def run(rule: Rule, p: torch.Tensor, wide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    param = Parameter(p.clone())
    param.grad = torch.zeros_like(p)
    optimizer = class_of(rule)([param], {**MODES, "fused": True})
    optimizer.state[param] = {"wide": wide.clone()}
    optimizer.step()
    return param.detach(), optimizer.state[param]["wide"]


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int16 if x.itemsize == 2 else torch.int32)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_16_bit_number_loads_exactly(dtype: torch.dtype) -> None:
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    stored, wide = run(Rule(copy_out, {"wide": 0.0}), numbers, torch.zeros(2**16))
    wanted = numbers.float()
    real = ~wanted.isnan()
    assert wide.dtype is torch.float32
    assert torch.equal(wide.isnan(), ~real)
    assert torch.equal(bits(wide[real]), bits(wanted[real]))
    assert torch.equal(bits(stored[real]), bits(numbers[real])), "and what was loaded stores back"
    assert stored[~real].isnan().all()


def float32_sample(dtype: torch.dtype) -> torch.Tensor:
    """Every sign, exponent and kept mantissa, each just below, at and above a rounding tie."""
    dropped = 16 if dtype is torch.bfloat16 else 13
    upper = torch.arange(2 ** (32 - dropped), dtype=torch.int64) << dropped
    half = 1 << (dropped - 1)
    lower = torch.tensor([0, 1, half - 1, half, half + 1, 2 * half - 1])
    grid = (upper[:, None] + lower).flatten()
    noise = torch.randint(0, 2**32, (2**18,), generator=torch.Generator().manual_seed(1))
    all_bits = torch.cat([grid, noise])
    return (
        torch.where(all_bits < 2**31, all_bits, all_bits - 2**32)
        .to(torch.int32)
        .view(torch.float32)
    )


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_stores_round_as_torch(dtype: torch.dtype) -> None:
    values = float32_sample(dtype)
    rule = Rule(copy_in, {"wide": 0.0})
    stored, _ = run(rule, torch.zeros(len(values), dtype=dtype), values)
    wanted = values.to(dtype)
    real = ~wanted.isnan()
    assert torch.equal(stored.isnan(), ~real)
    assert torch.equal(bits(stored[real]), bits(wanted[real]))


def momentum(p, g, s, h):
    s.buf = 0.9 * s.buf + g
    return p - h.lr * s.buf / 3


@pytest.mark.parametrize(
    ("p", "g", "state"),
    [
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float32, torch.bfloat16),
        (torch.float32, torch.float64, torch.float16),
        (torch.float64, torch.float16, torch.float32),
        (torch.float16, torch.float16, torch.float64),
    ],
    ids=str,
)
def test_operands_of_different_formats(p, g, state) -> None:
    rule = Rule(momentum, {"buf": 0.0})
    gradients = torch.randn(3, 1000).to(g)
    results = []
    for fused in (True, False):
        param = Parameter(torch.linspace(-1, 1, 1000).to(p))
        optimizer = class_of(rule)([param], {**MODES, "lr": 0.1, "fused": fused})
        optimizer.state[param] = {"buf": torch.zeros(1000, dtype=state)}
        for gradient in gradients:
            give(param, gradient.clone())
            optimizer.step()
        buf = optimizer.state[param]["buf"]
        assert (param.dtype, buf.dtype) == (p, state)
        results.append((param.detach(), buf))
    (kernel_p, kernel_buf), (eager_p, eager_buf) = results
    assert kernel_p.float().sub(torch.linspace(-1, 1, 1000)).abs().max() > 0.01
    close(kernel_p, eager_p)
    close(kernel_buf, eager_buf)


def test_computing_is_wide_where_an_operand_is() -> None:
    half, single, double = (FORMATS[d] for d in (torch.float16, torch.float32, torch.float64))
    assert compute_type((half,)) == "float32"
    assert compute_type((half, single)) == "float32"
    assert compute_type((half, double)) == "float64"


def test_formats_of_dtypes() -> None:
    assert format_of(torch.complex64) is FORMATS[torch.float32]
    assert format_of(torch.complex128) is FORMATS[torch.float64]
    assert format_of(torch.int32) is None
    assert all(torch.empty(0, dtype=d).itemsize == f.itemsize for d, f in FORMATS.items())
