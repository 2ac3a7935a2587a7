"""What the optimizers did over all tasks of a race: each beside the best of its task."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from thalweg.race.result import Entry, Result, TaskResult


@dataclass(frozen=True)
class Overall:
    """One optimizer over the tasks that it took part in.

    Attributes:
        name: the racer's.
        tasks: how many tasks it could be run on.
        reached: in how many of them it reached the target.
        broad: it ran on more than half of the tasks, and so may be called the best of a race.
        steps: steps to the target over the fewest that any optimizer needed for this task; the
            median over its tasks. A task whose target was missed counts as inf; one that nobody
            finished does not count. inf where there is nothing to count.
        seconds: training time to the target over the shortest, likewise.
        state_bytes: bytes of state per parameter element, the median over its tasks; None if it
            was not measured.
        step_ratio: how many of its steps fit into one of torch's, the median over its tasks; None
            if it was not measured beside torch.
        decades: decades of learning rates that work, the median over its tasks; None if at most
            one rate was tried, or none worked.
        bounded: the grids of learning rates went beyond what works at both ends in every task;
            otherwise ``decades`` is a lower bound.
    """

    name: str
    tasks: int
    reached: int
    broad: bool
    steps: float
    seconds: float
    state_bytes: float | None
    step_ratio: float | None
    decades: float | None
    bounded: bool

    @property
    def most(self) -> bool:
        """It reached more than half of the targets of its tasks, whoever else did."""
        return 2 * self.reached > self.tasks


def overall(result: Result) -> tuple[Overall, ...]:
    """Every optimizer that could be run on a task; best first, by steps, then time.

    Those that ran on half of the tasks or fewer come last: they were not asked the same.
    """
    names = dict.fromkeys(entry.name for task in result.tasks for entry in task.entries)
    made = [_overall(name, result.tasks) for name in names]
    taking_part = [one for one in made if one.tasks]
    return tuple(
        sorted(taking_part, key=lambda one: (not one.broad, one.steps, one.seconds, -one.reached))
    )


def width(entry: Entry) -> tuple[float, bool] | None:
    """Decades from the lowest to the highest rate that works, and whether both ends were seen.

    None if fewer than two rates were tried or none works. An end was not seen where the grid
    ended before the range did.
    """
    working = entry.working
    if not working or len(entry.search) < 2:
        return None
    seen = working[0] is not entry.search[0] and working[-1] is not entry.search[-1]
    return math.log10(working[-1].lr / working[0].lr), seen


def _overall(name: str, tasks: tuple[TaskResult, ...]) -> Overall:
    steps, seconds, reached = [], [], 0
    entries: list[Entry] = []
    for task in tasks:
        entry = next((e for e in task.entries if e.name == name and e.failed is None), None)
        if entry is None:
            continue
        entries.append(entry)
        reached += entry.steps_to(task.target) < math.inf
        fewest = min(e.steps_to(task.target) for e in task.entries)
        shortest = min(e.seconds_to(task.target) for e in task.entries)
        if fewest < math.inf:
            # A target that is reached before the first step costs nobody anything.
            steps.append(over(entry.steps_to(task.target), fewest))
            seconds.append(over(entry.seconds_to(task.target), shortest))
    widths = [found for entry in entries if (found := width(entry)) is not None]
    times = [entry.step_time for entry in entries if entry.step_time is not None]
    return Overall(
        name=name,
        tasks=len(entries),
        reached=reached,
        broad=2 * len(entries) > len(tasks),
        steps=middle(steps),
        seconds=middle(seconds),
        state_bytes=statistics.median(t.state_bytes for t in times) if times else None,
        step_ratio=middle(r) if (r := [t.ratio for t in times if t.ratio is not None]) else None,
        decades=statistics.median(w for w, _ in widths) if widths else None,
        bounded=all(seen for _, seen in widths),
    )


def over(value: float, best: float) -> float:
    """The one over the other; 1 if both are 0, and inf if the other alone is."""
    return value / best if best else 1.0 if value == best else math.inf


def middle(ratios: Iterable[float]) -> float:
    """Median of ratios; of two middle ones, their geometric mean. inf if there are none.

    >>> middle([1, 4]), middle([1, 2, 8]), middle([1, float("inf")])
    (2.0, 2.0, inf)
    """
    found = sorted(ratios)
    if not found:
        return math.inf
    half = len(found) // 2
    return float(found[half]) if len(found) % 2 else math.sqrt(found[half - 1] * found[half])
