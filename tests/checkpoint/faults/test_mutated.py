"""Checkpoints with bytes changed by chance, read apart: refused or read, never a crash.

In the archives of ``torch.save`` the sums are left out, so that what is changed gets further.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
import warnings
from pathlib import Path

import pytest
import torch

from tests.checkpoint.faults.subjects import Subject
from tests.checkpoint.faults.test_torch_files import write
from tests.fuzz.apart import Returned, apart
from thalweg import checkpoint

SECONDS = float(os.environ.get("THALWEG_FUZZ_SECONDS", "60"))
EXPECTED = (ValueError, TypeError, RuntimeError)


def changed(data: bytes, draw: random.Random) -> bytes:
    """One to four places written over, cut out, doubled or exchanged."""
    found = bytearray(data)
    # Half of them where the form of the data is told, at one end of the file.
    ends = draw.choice([len(found), min(len(found), 2048)])
    for _ in range(draw.randint(1, 4)):
        at, many = draw.randrange(ends), draw.choice([1, 1, 1, 2, 4, 8])
        piece = found[at : at + many]
        how = draw.randrange(5)
        if how == 0:
            found[at : at + many] = draw.randbytes(len(piece))
        elif how == 1:
            found[at] ^= 1 << draw.randrange(8)
        elif how == 2:
            found[at : at + many] = bytes([draw.choice([0, 255, 127, 128])]) * len(piece)
        elif how == 3:
            other = draw.randrange(ends)
            found[at : at + many] = found[other : other + len(piece)].ljust(len(piece), b"\0")
        else:
            found[at:at] = piece
        ends = min(ends, len(found))
    return bytes(found)


def mutated(kind: str, first: int, count: int, seconds: float) -> dict[str, int]:
    """How many files were read and how many were refused, of those with these seeds."""
    warnings.simplefilter("ignore")
    torch.serialization.set_crc32_options(False)
    end, done = time.monotonic() + seconds, {"read": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as folder:
        path, whole = Path(folder, "a"), Subject(0, rng=False)
        if kind == "checkpoint":
            whole.save(path)
            data = path.read_bytes()
        else:
            data = write(path, whole, kind)
        subject = Subject(1, rng=False)
        before = subject.state()
        for seed in range(first, first + count):
            if time.monotonic() > end:
                break
            path.write_bytes(changed(data, random.Random(seed)))
            try:
                checkpoint.inspect(path)
                subject.load(path)
            except EXPECTED:
                done["refused"] += 1
                assert subject.state() == before, f"seed {seed}"
            else:
                done["read"] += 1
                subject.advance()
                subject = Subject(1, rng=False)
    return done


@pytest.mark.parametrize("kind", ["checkpoint", "zip", "legacy"])
def test_a_few(kind: str) -> None:
    outcome = apart(mutated, kind, 0, 60, 20.0)
    assert isinstance(outcome, Returned), outcome
    assert outcome.value["refused"] > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["checkpoint", "zip", "legacy"])
def test_many(kind: str) -> None:
    """Of seeds that no other run has, for THALWEG_FUZZ_SECONDS."""
    first = random.randrange(10**9)
    outcome = apart(mutated, kind, first, 10**9, SECONDS / 3, longest=SECONDS + 60)
    assert isinstance(outcome, Returned), (first, outcome)
