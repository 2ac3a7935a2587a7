"""How far a command is: the time left, and lines where there is no terminal."""

from __future__ import annotations

import io

import pytest

from thalweg.cli import progress as module
from thalweg.cli.progress import Clock, Lines, progress, spelled


class Time:
    """Stands in for the clock of the machine."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("gone", "fraction", "left"),
    [
        (0.5, 0.5, ""),  # too early
        (10, 0, ""),
        (4, 0.001, ""),  # one kernel compiled, and next to nothing done
        (10, 0.5, "10 s left"),
        (30, 0.25, "1 min 30 s left"),
        (10, 1, "0 s left"),
        (3600, 0.1, "9 h 0 min left"),
    ],
)
def test_time_left(gone: float, fraction: float, left: str) -> None:
    time = Time()
    clock = Clock(time)
    time.now += gone
    assert clock.left(fraction) == left


def test_a_line_now_and_then() -> None:
    time, out = Time(), io.StringIO()
    lines = Lines("race", Clock(time), out)
    for step in range(60):
        time.now = 100 + step
        lines(step / 60, f"step {step}")
    assert out.getvalue().splitlines() == [
        "race: 3%, step 2, 58 s left",
        "race: 28%, step 17, 43 s left",
        "race: 53%, step 32, 28 s left",
        "race: 78%, step 47, 13 s left",
    ]


def test_without_a_terminal_nothing_is_said_of_what_is_quick(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("quick") as tell:
        tell(0.5, "half")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_in_a_terminal_there_is_a_bar_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(module, "Clock", lambda: Fixed())
    with progress("race") as tell:
        tell(0.25, "digits, Adam")
    captured = capsys.readouterr()
    assert captured.out == ""
    for words in ("digits, Adam", "25%", "3 s left"):
        assert words in captured.err
    assert captured.err.rstrip("\n").endswith("\x1b[2K")  # the line is cleared


class Fixed(Clock):
    def left(self, fraction: float) -> str:
        return "3 s left"


def test_durations() -> None:
    assert [spelled(s) for s in (0, 59.4, 59.6, 3599.9, 86399)] == [
        "0 s", "59 s", "1 min 0 s", "1 h 0 min", "23 h 59 min",
    ]  # fmt: skip
