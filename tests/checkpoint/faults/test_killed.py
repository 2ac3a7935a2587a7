"""A process that is killed or interrupted while it saves: the file is the old or the new one."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.checkpoint.faults.forks import Helper, ended, forked
from tests.checkpoint.faults.subjects import Subject, raised, seeded
from thalweg import checkpoint, files
from thalweg.checkpoint import container

WIDTH = 2000  # a quarter of a megabyte: milliseconds of writing
CASES = 200


class Folder:
    """A folder with two checkpoints; saves over the newer one are killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files._AHEAD = 1 << 15  # in this fork the disk begins early, as it does with large files
        self.older, self.path = folder / "step-1.safetensors", folder / "step-2.safetensors"
        self.subjects = {name: Subject(seed, width=WIDTH) for seed, name in enumerate("AB")}
        self.states = {name: subject.state() for name, subject in self.subjects.items()}
        self.reader = Subject(9, width=WIDTH)
        self.subjects["A"].save(self.older)
        self.holds = "A"
        self.subjects["A"].save(self.path)

    @property
    def other(self) -> str:
        return "B" if self.holds == "A" else "A"

    def temporaries(self) -> set[str]:
        return set(os.listdir(self.folder)) - {self.older.name, self.path.name}

    def check(self) -> tuple[str, bool]:
        """What a kill has left: "old" or "new", and whether there is a temporary file."""
        self.reader.load(self.path)
        state, before = self.reader.state(), self.holds
        if state != self.states[self.holds]:
            assert state == self.states[self.other], "neither the old state nor the new one"
            self.holds = self.other
        left = self.temporaries()
        assert len(left) <= 1, f"more than the last writer's file was left: {left}"
        return "old" if self.holds == before else "new", bool(left)


def duration(folder: Folder) -> float:
    """The seconds of a save in a fork, the median of nine."""

    def measure() -> None:
        begin = time.perf_counter()
        folder.subjects[folder.other].save(folder.path)
        os.write(pipe[1], f"{time.perf_counter() - begin}\n".encode())

    pipe = os.pipe()
    for _ in range(9):
        assert ended(forked(measure)) == 0
    os.close(pipe[1])
    with open(pipe[0]) as file:
        times = sorted(map(float, file))
    folder.subjects[folder.holds].save(folder.path)
    return times[len(times) // 2]


def killed_after(folder: Folder, random: random.Random, longest: float, saves: int) -> None:
    def save() -> None:
        os.write(pipe[1], b"!")
        for number in range(saves):
            name = folder.other if number % 2 == 0 else folder.holds
            folder.subjects[name].save(folder.path)
        signal.pause()

    pipe = os.pipe()
    process = forked(save)
    os.read(pipe[0], 1)
    # On a busy machine some saves take much longer than the others.
    time.sleep(random.uniform(0, longest) * (random.choice([1, 1, 1, 4]) if saves == 1 else 1))
    os.kill(process, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    for number in pipe:
        os.close(number)


def has_met_all(found: Mapping[tuple[str, bool], int]) -> bool:
    """Whether enough of the kills met the writing, and came before and after the new name."""
    amid = sum(number for (_, left), number in found.items() if left)
    sides = [sum(n for (each, _), n in found.items() if each == side) for side in ("old", "new")]
    return amid >= CASES // 10 and min(sides) >= CASES // 50


def kill_at_random(where: Path, saves: int) -> dict[tuple[str, bool], int]:
    folder = Folder(where)
    longest = duration(folder) * 2
    found: Counter[tuple[str, bool]] = Counter()
    for case in range(3 * CASES):  # the measured time may be too short for what follows
        if case >= CASES and has_met_all(found):
            break
        killed_after(folder, seeded("killed", case), longest, saves)
        found[folder.check()] += 1
        if case % 10 == 0:
            assert checkpoint.latest(folder.folder) == folder.path
    files.beside(folder.path).touch()  # of this process, which may have another's number
    folder.subjects["A"].save(folder.path)
    assert folder.temporaries() == set(), "the next save leaves what dead writers left"
    return dict(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "saves", [1000, pytest.param(1, marks=pytest.mark.slow)], ids=["in a loop", "once"]
)
def test_killed_at_random_moments(saves: int, tmp_path: Path, helper: Helper) -> None:
    found = helper.run(kill_at_random, tmp_path, saves, seconds=300)
    assert sum(found.values()) >= CASES >= 200
    assert has_met_all(found), found


def save_until(folder: Folder, last: int, end: Callable[[], None]) -> int:
    """A save that is ended at its n-th line in the modules that write; the lines until then."""
    line = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal line
        if frame.f_code.co_filename not in (files.__file__, container.__file__):
            return None
        if event == "line":
            line += 1
            if line == last:
                sys.settrace(None)
                end()
        return trace

    sys.settrace(trace)
    try:
        folder.subjects[folder.other].save(folder.path)
    finally:
        sys.settrace(None)
    return line


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise KeyboardInterrupt


def kill_at_lines(where: Path, stride: int) -> dict[tuple[str, bool], int]:
    folder = Folder(where)
    lines = save_until(folder, 0, kill)
    folder.holds = folder.other
    found: Counter[tuple[str, bool]] = Counter()
    # The last lines, where the file gets its name, are tried one by one.
    for line in [*range(1, lines - 30, stride), *range(lines - 30, lines + 1)]:
        process = forked(lambda line=line: save_until(folder, line, kill))
        assert ended(process) == -signal.SIGKILL
        found[folder.check()] += 1
    assert checkpoint.latest(folder.folder) == folder.path
    folder.subjects["A"].save(folder.path)
    assert folder.temporaries() == set(), "the next save leaves what dead writers left"
    return dict(found)


@pytest.mark.parametrize("stride", [60, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_a_line(stride: int, tmp_path: Path, helper: Helper) -> None:
    found = helper.run(kill_at_lines, tmp_path, stride, seconds=600)
    assert found.keys() >= {("old", False), ("old", True), ("new", False)}, found


def interrupt_at_lines(where: Path, stride: int) -> dict[tuple[str, bool], int]:
    folder = Folder(where)
    lines = save_until(folder, 0, interrupt)
    folder.holds = folder.other
    found: Counter[tuple[str, bool]] = Counter()
    for line in [*range(1, lines - 30, stride), *range(lines - 30, lines + 1)]:
        error = raised(save_until, folder, line, interrupt, kinds=(KeyboardInterrupt,))
        assert error is not None
        found[folder.check()] += 1
    return dict(found)


@pytest.mark.parametrize("stride", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_interrupted_at_a_line(stride: int, tmp_path: Path, helper: Helper) -> None:
    found = helper.run(interrupt_at_lines, tmp_path, stride, seconds=600)
    assert found.keys() == {("old", False), ("new", False)}, "no file may be left"


def kill_first_saves(where: Path) -> dict[bool, int]:
    """Saves to a name that is not there yet: afterwards it is not there, or whole."""
    folder = Folder(where)
    longest = duration(folder) * 2
    found: Counter[bool] = Counter()
    for case in range(CASES):
        if case >= 30 and len(found) == 2:
            break
        folder.path.unlink(missing_ok=True)
        killed_after(folder, seeded("first", case), longest, 1)
        there = folder.path.exists()
        found[there] += 1
        newest = checkpoint.latest(where)
        assert newest == (folder.path if there else folder.older)
        folder.reader.load(newest)
        assert folder.reader.state() == folder.states["B" if there else "A"]
    return dict(found)


def test_killed_in_a_first_save(tmp_path: Path, helper: Helper) -> None:
    found = helper.run(kill_first_saves, tmp_path)
    assert found.keys() == {False, True}
