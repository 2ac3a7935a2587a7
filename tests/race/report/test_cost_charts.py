from __future__ import annotations

from tests.race.report.results import diverged, entry, failed, result, task, usual
from thalweg.race.report import cost_charts
from thalweg.race.result import StepTime


def test_step_times_are_sorted_and_beside_torchs() -> None:
    slow, fast, alone = StepTime(50, 100, 1, 8), StepTime(5, 20, 1, 8), StepTime(20, None, 1, 8)
    figure = cost_charts.step_times(
        task(
            entry("a", step_time=slow),
            entry("b", step_time=fast),
            entry("c", step_time=alone),
            entry("d", step_time=None),
            failed("e"),
        )
    )
    lines, own, torch = figure.data
    assert list(own.y) == ["b", "c", "a"]
    assert list(own.x) == [5, 20, 50]
    assert dict(zip(torch.y, torch.x, strict=True)) == {"b": 20, "a": 100}
    assert list(lines.x) == [5, 20, None, 50, 100, None]
    assert list(figure.layout.yaxis.categoryarray) == ["a", "c", "b"]
    low, high = figure.layout.xaxis.range
    assert 10**low < 5
    assert 10**high > 100


def test_memory_is_sorted() -> None:
    bars = cost_charts.memory(
        result(
            task(
                entry("a", step_time=StepTime(1, 1, 1, 8.0)),
                entry("b", step_time=StepTime(1, 1, 1, 0.0)),
                entry("c", step_time=StepTime(1, 1, 1, 4.2)),
            )
        )
    ).data[0]
    assert list(zip(bars.y, bars.x, bars.text, strict=True)) == [
        ("b", 0, "0"), ("c", 4.2, "4.2"), ("a", 8, "8"),
    ]  # fmt: skip


def test_shares_of_each_task() -> None:
    figure = cost_charts.shares(usual())
    assert [trace.name for trace in figure.data] == ["digits", "diabetes"]
    assert len({trace.marker.symbol for trace in figure.data}) == 2
    assert list(figure.data[1].y) == ["SGD", "Adam"]
    assert all(x == 20 for trace in figure.data for x in trace.x)


def test_with_nothing_measured_the_charts_are_empty() -> None:
    nothing = result(task(diverged("a"), failed("b")), task())
    assert not cost_charts.shares(nothing).data
    assert not cost_charts.memory(result()).data[0].x
    assert not cost_charts.step_times(task()).data[0].x
