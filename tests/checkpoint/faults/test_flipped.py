"""Files with wrong bits in them: each is found, and nothing changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.checkpoint.faults.subjects import Subject, refused, seeded
from tests.checkpoint.faults.test_truncated import header_end
from thalweg import checkpoint
from thalweg.checkpoint import CheckpointError

PAGE = 4096
WIDTH = 2000  # 64 pages


def written(path: Path, seed: int = 0) -> bytes:
    Subject(seed, width=WIDTH).save(path)
    return path.read_bytes()


def flipped(data: bytes, *bits: int) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def refused_by_read(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as found:
        checkpoint.read(path)
    assert str(path) in str(found.value)


def small(path: Path) -> bytes:
    """A file with two tensors and some plain data; its header has a kilobyte."""
    weights = torch.arange(6, dtype=torch.bfloat16)
    checkpoint.save(path, w=weights, state=({"x": torch.ones(3)}, 0.1), rng=False)
    return path.read_bytes()


def test_every_bit_of_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    data = small(path)
    end = 8 * header_end(data)
    assert end >= 200
    for bit in range(end):
        refused_by_read(path, flipped(data, bit))


def test_every_bit_of_small_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    data = small(path)
    for bit in range(8 * header_end(data), 8 * len(data)):
        refused_by_read(path, flipped(data, bit))


@pytest.mark.slow
def test_every_bit_of_a_training(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Subject(0, width=2, rng=False).save(path)
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        refused_by_read(path, flipped(data, bit))


def random_bit(draw: random.Random, begin: int, end: int) -> int:
    return draw.randrange(8 * begin, 8 * end)


def one_bit_of_a_tensor(data: bytes, draw: random.Random) -> bytes:
    return flipped(data, random_bit(draw, header_end(data), len(data)))


def two_bits(data: bytes, draw: random.Random) -> bytes:
    ends = [(0, len(data)), (0, header_end(data)), (header_end(data), len(data))]
    return flipped(data, *{random_bit(draw, *draw.choice(ends)) for _ in range(2)})


def a_neighbouring_pair_of_bits(data: bytes, draw: random.Random) -> bytes:
    bit = random_bit(draw, 0, len(data) - 1)
    return flipped(data, bit, bit + draw.randrange(1, 8))


def a_zeroed_page(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) // PAGE) * PAGE
    return data[:start] + bytes(PAGE) + data[start + PAGE :]


def swapped_pages(data: bytes, draw: random.Random) -> bytes:
    first, second = sorted(draw.sample(range(len(data) // PAGE), 2))
    pages = [data[i : i + PAGE] for i in range(0, len(data), PAGE)]
    pages[first], pages[second] = pages[second], pages[first]
    return b"".join(pages)


def bytes_appended(data: bytes, draw: random.Random) -> bytes:
    number = draw.choice([1, 8, draw.randrange(1, 3 * PAGE)])
    return data + draw.choice([bytes(number), draw.randbytes(number), data[:number]])


def bytes_lost(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.choice([1, 4, 64, PAGE]) :]


def bytes_twice(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[: start + draw.choice([1, 4, 64, PAGE])] + data[start:]


def a_piece_of_another(data: bytes, draw: random.Random, other: bytes) -> bytes:
    start = draw.randrange(len(data))
    end = draw.choice([len(data), draw.randrange(start, len(data)) + 1])
    if draw.randrange(2):
        return data[:start] + other[start:end] + data[end:]
    place = draw.randrange(len(other))  # from elsewhere in it
    return data[:start] + other[place : place + end - start] + data[end:]


DAMAGES = [
    *(one_bit_of_a_tensor, two_bits, a_neighbouring_pair_of_bits, a_zeroed_page, swapped_pages),
    *(bytes_appended, bytes_lost, bytes_twice),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage(damage: Callable[[bytes, random.Random], bytes], tmp_path: Path) -> None:
    try_damage(tmp_path, damage)


def test_a_piece_of_another(tmp_path: Path) -> None:
    other = written(tmp_path / "b.safetensors", 2)
    try_damage(tmp_path, lambda data, draw: a_piece_of_another(data, draw, other))


def try_damage(folder: Path, damage: Callable[[bytes, random.Random], bytes]) -> None:
    """200 damaged files, each refused."""
    path, subject = folder / "a.safetensors", Subject(1, width=WIDTH)
    data = written(path)
    before, done, case = subject.untouched(), 0, 0
    while done < 200:
        case += 1
        changed = damage(data, seeded("damage", case))
        if changed != data:
            path.write_bytes(changed)
            refused(path, subject, before)
            done += 1
    assert case < 300, "most cases must be damaged"
