"""What ``lr_find`` suggests, beside the rates that a race found to work; as Markdown.

    python -m benchmarks.rates docs/choosing.json [--seeds 3] [--tasks digits ...]

For every task of a race that is kept as JSON, and every optimizer with rates that work there (see
``Entry.working``), the range test runs once for each seed: with the weights and batches of that
seed, as in the race. Of each task there is a table, and at the end one of all tasks, with two other
rules beside ours, on the same curves. docs/lr-find.md has these tables. It takes a minute or two,
most of it for the text tasks, and is no part of ``make bench``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from thalweg.race.racers import Racer
from thalweg.race.rates import find_rate
from thalweg.race.report.formats import format_factor, format_lr, format_range
from thalweg.race.result import Entry, Result
from thalweg.race.tasks import find_task
from thalweg.range_test import LRFound

APART = ("Rprop", "LBFGS")  # the test says nothing about their rates; docs/lr-find.md says why


def steepest(found: LRFound) -> float:
    """The rate before the smoothed loss fell most; steps between rates are alike."""
    means = found.smoothed
    return found.rates[min(range(len(means) - 1), key=lambda i: means[i + 1] - means[i])]


def tenth_of_lowest(found: LRFound) -> float:
    """A tenth of the rate at the lowest smoothed loss."""
    return found.rates[found.smoothed.index(min(found.smoothed))] / 10


Rule = Callable[[LRFound], float]
OURS: Rule = lambda found: found.suggestion  # noqa: E731
OTHERS: Mapping[str, Rule] = {
    "steepest point": steepest,
    "a tenth of the lowest": tenth_of_lowest,
}


@dataclass(frozen=True)
class Row:
    """An optimizer of a race, and its range test from each seed."""

    entry: Entry
    curves: tuple[LRFound, ...]

    def rates(self, rule: Rule = OURS) -> list[float | None]:
        """What a rule suggests for each seed; None where ``lr_find`` suggests nothing."""
        found: list[float | None] = []
        for each in self.curves:
            try:
                _ = each.suggestion
                found.append(rule(each))
            except ValueError:
                found.append(None)
        return found

    def factors(self, rule: Rule = OURS) -> list[float]:
        """Each rate over the nearest that works: 1 within their range, below 1 if too low."""
        low, high = self.entry.working[0].lr, self.entry.working[-1].lr
        return [rate / min(max(rate, low), high) for rate in self.rates(rule) if rate is not None]

    def __str__(self) -> str:
        name = f"*{self.entry.name}*" if self.entry.name in APART else self.entry.name
        shown = ", ".join("none" if rate is None else format_lr(rate) for rate in self.rates())
        return f"| {name} | {format_range(self.entry)} | {shown} |"


def summary(task: str, rows: Sequence[Row]) -> str:
    """How many suggestions lie within the rates that work, and how far off the others are."""
    rows = [row for row in rows if row.entry.name not in APART]
    made = sum(len(row.curves) for row in rows)
    factors = [factor for row in rows for factor in row.factors()]
    low, high = [1 / f for f in factors if f < 1], [f for f in factors if f > 1]
    misses = [
        f"{len(found)} too {word}, by a factor of {format_factor(max(found))} at most"
        for found, word in ((low, "low"), (high, "high"))
        if found
    ]
    if missing := made - len(factors):
        misses.append(f"{missing} without a suggestion")
    within = [sum(row.factors(rule).count(1) for row in rows) for rule in (OURS, *OTHERS.values())]
    first, *others = (f"{count} of {made}" for count in within)
    return f"| {task} | {first} | {'; '.join(misses) or 'none'} | {' | '.join(others)} |"


def show(headings: Sequence[str]) -> None:
    print("", f"| {' | '.join(headings)} |", "|---" * len(headings) + "|", sep="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each task as it is made, and one of all tasks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rates", description=main.__doc__)
    parser.add_argument("race", type=Path, help="a race's JSON")
    parser.add_argument("--seeds", type=int, default=3, help="range tests of each optimizer")
    parser.add_argument("--tasks", nargs="*", metavar="TASK", help="only these of the race's")
    parser.add_argument("--steps", type=int, default=100, help="of a range test")
    parser.add_argument("--smoothing", type=float, default=0.85, help="of its curve")
    asked = parser.parse_args(arguments)
    result = Result.from_json(asked.race.read_text(encoding="utf-8"))
    options = {"steps": asked.steps, "smoothing": asked.smoothing}
    summaries = []
    for spec, raced in zip(result.settings.tasks, result.tasks, strict=False):  # if interrupted
        if asked.tasks and spec not in asked.tasks:
            continue
        task, rows = find_task(spec), []
        show((raced.task, "rates that work", f"suggested, for {asked.seeds} seeds"))
        for entry in raced.entries:
            if entry.working:
                racer = Racer(entry.name, entry.optimizer, 1.0, entry.options)
                curves = (find_rate(task, racer, seed, **options) for seed in range(asked.seeds))
                rows.append(Row(entry, tuple(curves)))
                print(rows[-1], flush=True)
        summaries.append(summary(raced.task, rows))
    show((f"without {' and '.join(APART)}", "within", "the others", *OTHERS))
    print(*summaries, sep="\n")


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in the race
    main()
