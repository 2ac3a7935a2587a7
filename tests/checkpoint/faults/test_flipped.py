"""Files with wrong bits in them: each is found, and nothing changes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.checkpoint.faults.subjects import Subject, raised, refused, seeded
from tests.checkpoint.faults.test_truncated import header_end
from thalweg import checkpoint
from thalweg.checkpoint import CheckpointError

PAGE = 4096
WIDTH = 2000  # 64 pages

# Damages a file: its bytes, random numbers, and another file's bytes.
Damage = Callable[[bytes, random.Random, bytes], bytes]


def written(path: Path, seed: int = 0) -> bytes:
    Subject(seed, width=WIDTH).save(path)
    return path.read_bytes()


def flipped(data: bytes, *bits: int) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def refused_with_each_bit(path: Path, data: bytes, bits: range) -> None:
    """A read is refused with each of these bits flipped, and no other."""
    with open(path, "r+b", buffering=0) as file:
        for bit in bits:
            place, value = bit // 8, data[bit // 8]
            os.pwrite(file.fileno(), bytes([value ^ 1 << bit % 8]), place)
            error = raised(checkpoint.read, path, kinds=(CheckpointError,))
            assert error is not None, f"bit {bit} was not found"
            assert str(path) in str(error)
            os.pwrite(file.fileno(), bytes([value]), place)


def small(path: Path) -> bytes:
    """A file with two tensors and a number; its header has less than a kilobyte."""
    checkpoint.save(path, w=torch.arange(6).bfloat16(), x=(torch.ones(4), 0.1), rng=False)
    return path.read_bytes()


def test_every_bit_of_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    data = small(path)
    refused_with_each_bit(path, data, range(8 * header_end(data)))


def test_every_bit_of_small_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    data = small(path)
    bits = range(8 * header_end(data), 8 * len(data))
    assert len(bits) >= 200
    refused_with_each_bit(path, data, bits)


@pytest.mark.slow
def test_every_bit_of_a_training(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Subject(0, width=2, rng=False).save(path)
    data = path.read_bytes()
    refused_with_each_bit(path, data, range(8 * len(data)))


def random_bit(draw: random.Random, begin: int, end: int) -> int:
    return draw.randrange(8 * begin, 8 * end)


def one_bit_of_a_tensor(data: bytes, draw: random.Random, other: bytes) -> bytes:
    return flipped(data, random_bit(draw, header_end(data), len(data)))


def two_bits(data: bytes, draw: random.Random, other: bytes) -> bytes:
    ends = [(0, len(data)), (0, header_end(data)), (header_end(data), len(data))]
    return flipped(data, *{random_bit(draw, *draw.choice(ends)) for _ in range(2)})


def a_neighbouring_pair_of_bits(data: bytes, draw: random.Random, other: bytes) -> bytes:
    bit = random_bit(draw, 0, len(data) - 1)
    return flipped(data, bit, bit + draw.randrange(1, 8))


def a_zeroed_page(data: bytes, draw: random.Random, other: bytes) -> bytes:
    start = draw.randrange(len(data) // PAGE) * PAGE
    return data[:start] + bytes(PAGE) + data[start + PAGE :]


def swapped_pages(data: bytes, draw: random.Random, other: bytes) -> bytes:
    first, second = sorted(draw.sample(range(len(data) // PAGE), 2))
    pages = [data[i : i + PAGE] for i in range(0, len(data), PAGE)]
    pages[first], pages[second] = pages[second], pages[first]
    return b"".join(pages)


def bytes_appended(data: bytes, draw: random.Random, other: bytes) -> bytes:
    number = draw.choice([1, 8, draw.randrange(1, 3 * PAGE)])
    return data + draw.choice([bytes(number), draw.randbytes(number), data[:number]])


def bytes_lost(data: bytes, draw: random.Random, other: bytes) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.choice([1, 4, 64, PAGE]) :]


def bytes_twice(data: bytes, draw: random.Random, other: bytes) -> bytes:
    start = draw.randrange(len(data))
    return data[: start + draw.choice([1, 4, 64, PAGE])] + data[start:]


def a_piece_of_another(data: bytes, draw: random.Random, other: bytes) -> bytes:
    start = draw.randrange(len(data))
    end = draw.choice([len(data), draw.randrange(start, len(data)) + 1])
    if draw.randrange(2):
        return data[:start] + other[start:end] + data[end:]
    place = draw.randrange(len(other))  # from elsewhere in it
    return data[:start] + other[place : place + end - start] + data[end:]


DAMAGES: list[Damage] = [
    *(two_bits, a_neighbouring_pair_of_bits, a_zeroed_page, swapped_pages),
    *(bytes_appended, bytes_lost, bytes_twice, a_piece_of_another),
]


def try_damages(folder: Path, damages: Sequence[Damage], cases: int) -> None:
    """Damage a file again and again, each time in the next way; each is refused."""
    path, subject = folder / "a.safetensors", Subject(1, width=WIDTH)
    data, other = (written(path, seed) for seed in (0, 2))
    before, unchanged = subject.untouched(), 0
    for case in range(cases):
        changed = damages[case % len(damages)](data, seeded("damage", case), other)
        if changed == data:
            unchanged += 1
            continue
        path.write_bytes(changed)
        refused(path, subject, before)
    assert unchanged <= cases // 5, "most must be damaged"


def test_random_bits_of_tensors(tmp_path: Path) -> None:
    try_damages(tmp_path, [one_bit_of_a_tensor], 220)


def test_other_damages(tmp_path: Path) -> None:
    try_damages(tmp_path, DAMAGES, 320)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_one_kind_of_damage(damage: Damage, tmp_path: Path) -> None:
    try_damages(tmp_path, [damage], 1000)
