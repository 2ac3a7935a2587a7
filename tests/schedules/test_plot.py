"""Drawing a schedule."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from thalweg.schedules import Constant, Linear, Schedule, Table, Warmup


class Axes:
    """Stands in for matplotlib's: remembers what is drawn."""

    def __init__(self) -> None:
        self.lines: list[tuple[list[float], list[float]]] = []

    def plot(self, x: list[float], y: list[float]) -> None:
        self.lines.append((x, y))

    def set_xlabel(self, text: str) -> None:
        assert text == "step"

    def set_ylabel(self, text: str) -> None:
        assert text == "value"


def drawn(schedule: Schedule, steps: float | None = None) -> tuple[list[float], list[float]]:
    axes: Any = Axes()
    assert schedule.plot(steps, ax=axes) is axes
    (line,) = axes.lines
    return line


@pytest.mark.parametrize("steps", [1, 7, 0.5, 1000, 2.25])
def test_line_holds_every_whole_step_up_to_the_end(steps: float) -> None:
    schedule = Warmup(3).then(Linear(1, 0, 4))
    x, y = drawn(schedule, steps)
    assert x[0] == 0
    assert steps - 0.01 * steps <= x[-1] <= steps
    assert set(range(int(steps) + 1)) <= set(x)
    assert len(x) >= 200
    assert y == [schedule(t) for t in x]


def test_length_is_the_schedule_s_own() -> None:
    assert drawn(Linear(1, 0, 8))[0][-1] == 8


def test_nothing_is_drawn_past_the_end() -> None:
    x, _ = drawn(Table((1, 2, 3)), steps=10)
    assert x[-1] < 3


@pytest.mark.parametrize("steps", [0, -1, float("nan"), float("inf")])
def test_bad_length(steps: float) -> None:
    with pytest.raises(ValueError, match=r"Linear\.plot: steps must be a finite number > 0"):
        drawn(Linear(1, 0, 8), steps)


def test_endless_schedule_needs_a_length() -> None:
    with pytest.raises(ValueError, match=r"Constant\.plot: steps must be given"):
        drawn(Constant(1))


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError) as caught:
        Linear(1, 0, 8).plot()
    assert str(caught.value) == "plotting needs matplotlib: pip install 'thalweg[plots]'"


def test_with_matplotlib() -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="an optional dependency")
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure = pyplot.figure()
    try:
        axes = Linear(1, 0, 8).plot()
        assert axes is figure.gca()
        (line,) = axes.get_lines()
        assert line.get_xdata()[-1] == 8
        assert axes.get_xlabel() == "step"
    finally:
        pyplot.close(figure)
