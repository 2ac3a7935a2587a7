"""Several writers of one path at once, and a reader: each load finds one checkpoint, whole."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoint.faults.forks import Helper, ended, forked
from tests.checkpoint.faults.subjects import Subject
from thalweg import checkpoint

LOADS = 200
SEEDS = range(4)
WIDTHS = [300, 8, 700, 40]  # files of several lengths


class Reader:
    """Reads what is at the path, and compares it with what the writers write there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.subjects = [
            Subject(seed, width=width) for seed, width in zip(SEEDS, WIDTHS, strict=True)
        ]
        self.seen: list[int] = []

    def read(self) -> None:
        found = checkpoint.read(self.path)
        subject = self.subjects[found["step"]]
        for name, tensor in subject.model.state_dict().items():
            assert found["model"][name].equal(tensor), f"{name} is not that of {subject.step}"
        assert found["optimizer"]["param_groups"][0]["initial_lr"] == 0.1 + subject.step
        self.seen.append(subject.step)

    def load(self) -> None:
        generator = torch.Generator()
        step = checkpoint.load(self.path, generator=generator, rng=False)["step"]
        assert generator.get_state().equal(self.subjects[step].generator.get_state())
        self.seen.append(step)


def check_reads(reader: Reader, through: Callable[[], bool], seconds: float) -> int:
    """Read until there were enough and all writers were seen; the changes between two reads."""
    end = time.perf_counter() + seconds
    while not through() and time.perf_counter() < end:
        reader.read()
        reader.load()
        if len(reader.seen) % 20 == 0:
            assert checkpoint.latest(reader.path.parent) == reader.path
        enough = len(reader.seen) >= LOADS and set(reader.seen) == set(SEEDS)
        if enough:
            break
    assert len(reader.seen) >= LOADS, f"{len(reader.seen)} reads only"
    return sum(a != b for a, b in zip(reader.seen, reader.seen[1:], strict=False))


def with_processes(folder: Path) -> int:
    path = folder / "a.safetensors"
    reader = Reader(path)
    reader.subjects[0].save(path)

    def write(subject: Subject) -> None:
        for _ in range(100_000):
            subject.save(path)

    writers = [forked(lambda each=each: write(each)) for each in reader.subjects]
    try:
        changes = check_reads(reader, lambda: False, 60)
    finally:
        for process in writers:
            os.kill(process, signal.SIGKILL)
        codes = [ended(process) for process in writers]
    assert codes == [-signal.SIGKILL] * len(writers), "a writer has failed"
    reader.read()
    reader.subjects[1].save(path)
    assert os.listdir(folder) == [path.name], "the next save leaves what dead writers left"
    return changes


def with_threads(folder: Path) -> int:
    path = folder / "a.safetensors"
    reader = Reader(path)
    reader.subjects[0].save(path)
    through, failures = threading.Event(), []

    def write(subject: Subject) -> None:
        try:
            while not through.is_set():
                subject.save(path)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(each,)) for each in reader.subjects]
    for thread in writers:
        thread.start()
    try:
        changes = check_reads(reader, lambda: bool(failures), 60)
    finally:
        through.set()
        for thread in writers:
            thread.join()
    assert not failures, failures
    assert os.listdir(folder) == [path.name]
    return changes


@pytest.mark.slow
@pytest.mark.parametrize("writers", [with_processes, with_threads])
def test_writers_at_once(writers: Any, tmp_path: Path, helper: Helper) -> None:
    changes = helper.run(writers, tmp_path)
    assert changes >= LOADS // 4, "the writers wrote at other times than the reader read"
