"""What every format must do: kernels and tensors store the same bits and load the same values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.engine.formats.calls import call
from tests.engine.formats.samples import SAMPLES, STOCHASTIC, in_memory, integers
from thalweg.engine.formats import FORMATS, Buffer, Format, compute_type, salt
from thalweg.rule import Rule

COUNTS = (1, 255, 256, 257, 4097, 3 * 16384 + 300)
ALL = pytest.mark.parametrize("form", [*FORMATS.values(), *SAMPLES], ids=lambda form: form.name)


def copy_in(p, g, s, h):
    s.stored = g
    return p


def copy_out(p, g, s, h):
    return s.stored


def values(count: int, dtype: torch.dtype) -> Tensor:
    """Of all sizes from 1e-4 to 1e4, and a few zeros."""
    generator = torch.Generator().manual_seed(count)
    sizes = torch.empty(count, dtype=dtype).uniform_(-9, 9, generator=generator).exp()
    return sizes * torch.empty(count, dtype=dtype).uniform_(-1, 1, generator=generator).round(
        decimals=2
    )


def copy(rule: Rule, form: Format, plain: list[Tensor], buffers, seeds=None, threads=1) -> None:
    """Copy plain tensors into a format's buffers, or from them."""
    wide = FORMATS[plain[0].dtype]
    program = rule.program({}, [1.0])
    formats = {"p": wide, "g": wide, "stored": form}
    tensors = [{"p": (x,), "g": (x,), "stored": b} for x, b in zip(plain, buffers, strict=True)]
    call(program, formats, tensors, seeds=seeds, on_threads=threads)


def same_bits(a: Tensor, b: Tensor) -> bool:
    kind = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.itemsize]
    return a.dtype is b.dtype and torch.equal(a.view(kind), b.view(kind))


def examples(form: Format) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    for count in COUNTS:
        x = values(count, getattr(torch, compute_type([form])))
        yield x, form.create(x, 7.0)


@ALL
@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_store_what_encode_stores(form: Format, threads: int) -> None:
    plain, buffers = zip(*examples(form), strict=True)
    seeds = [0xDEADBEEF + 7919 * k for k in range(len(plain))]
    copy(Rule(copy_in, {"stored": 0.0}), form, list(plain), buffers, seeds, threads)
    for x, stored, seed in zip(plain, buffers, seeds, strict=True):
        wanted = form.create(x, 7.0)
        form.encode(x, wanted, seed ^ salt("stored"))
        assert all(map(same_bits, stored, wanted))
        assert not all(map(same_bits, stored, form.create(x, 7.0)))


@ALL
def test_kernels_load_what_decode_gives(form: Format) -> None:
    for x, buffers in examples(form):
        form.encode(x, buffers)
        wanted = form.decode(buffers, x.dtype)
        assert torch.allclose(wanted, x, rtol=0.01, atol=float(x.abs().max()) / 200)
        loaded = torch.full_like(x, torch.nan)
        copy(Rule(copy_out, {"stored": 0.0}), form, [loaded], [buffers])
        assert same_bits(loaded, wanted)


@ALL
def test_created_buffers_hold_the_value_and_follow_the_layout(form: Format) -> None:
    like = torch.nn.Parameter(torch.zeros(3, 5, 200).permute(2, 0, 1))
    for value in (0.0, 1.0):
        buffers = form.create(like, value)
        assert buffers[0].stride() == like.stride()
        assert not any(b.requires_grad for b in buffers)
        assert torch.equal(form.decode(buffers, torch.float32), torch.full(like.shape, value))
    assert [b.dtype for b in buffers] == [b.dtype for b in form.buffers]


@ALL
def test_bytes_are_those_of_the_buffers(form: Format) -> None:
    buffers = form.create(torch.zeros(1024), 0.0)
    assert form.bytes_per_element == sum(b.nbytes for b in buffers) / 1024


@ALL
def test_formats_are_equal_by_what_they_are(form: Format) -> None:
    others = [f for f in (*FORMATS.values(), *SAMPLES) if f is not form]
    assert len({form, *others}) == len(others) + 1
    assert form not in others


def test_values_encoded_in_another_layout_are_found_again() -> None:
    like = torch.zeros(64, 48).t()
    x = torch.empty_like(like).copy_(values(64 * 48, torch.float32).reshape(48, 64))
    for form in SAMPLES:
        buffers = form.create(like, 0.0)
        form.encode(x, buffers)
        whole = form.decode(buffers, torch.float32)
        assert torch.equal(in_memory(whole), form.decode(tuple(map(in_memory, buffers)), x.dtype))
        assert torch.allclose(whole, x, rtol=0.01, atol=float(x.abs().max()) / 200)


def test_random_rounding_is_unbiased_and_draws_anew() -> None:
    x = torch.full((2**16,), 1 + 2.0**-9)  # a quarter of the way to the next bfloat16
    drawn = []
    for seed in (1, 2):
        buffers = STOCHASTIC.create(x, 0.0)
        copy(Rule(copy_in, {"stored": 0.0}), STOCHASTIC, [x], [buffers], [seed])
        drawn.append(buffers[0].float() > 1)
    assert all(abs(up.float().mean() - 0.25) < 0.01 for up in drawn)
    assert abs((drawn[0] & drawn[1]).float().mean() - 0.25**2) < 0.01


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16], ids=str)
def test_integers_of_every_size(dtype: torch.dtype) -> None:
    form, limits = integers(dtype), torch.iinfo(dtype)
    x = torch.arange(limits.min, limits.max + 1, dtype=torch.float32)
    buffers = form.create(x, 1.0)
    copy(Rule(copy_in, {"stored": 0.0}), form, [x], [buffers])
    assert torch.equal(buffers[0], torch.arange(limits.min, limits.max + 1, dtype=dtype))
    loaded = torch.zeros_like(x)
    copy(Rule(copy_out, {"stored": 0.0}), form, [loaded], [buffers])
    assert torch.equal(loaded, x)


def test_complex_operands_are_their_real_parts() -> None:
    like = torch.zeros(3, 4, dtype=torch.complex64).t()
    (stored,) = FORMATS[torch.float64].create(like, 2.0)
    assert (stored.dtype, stored.stride()) == (torch.complex128, like.stride())
    assert torch.equal(stored, torch.full((4, 3), 2 + 2j, dtype=torch.complex128))
    parts = torch.arange(24.0, dtype=torch.float64).reshape(4, 3, 2)
    FORMATS[torch.float64].encode(parts, [stored])
    assert torch.equal(stored.real, parts[..., 0])
    conjugate = stored.conj()
    assert torch.equal(
        FORMATS[torch.float64].decode([conjugate], torch.float32),
        parts.float() * torch.tensor([1, -1]),
    )
    with pytest.raises(TypeError, match=r"format bf16: got a parameter of torch.complex64, whose"):
        FORMATS[torch.bfloat16].create(like, 0.0)


def test_blocks_that_share_an_entry_are_refused() -> None:
    buffers = Buffer(torch.int8), Buffer(torch.float32, "scale", 256)
    with pytest.raises(ValueError, match=r"q8: got block=128, and 256 elements share an entry"):
        type(SAMPLES[0])("q8", buffers, block=128)
