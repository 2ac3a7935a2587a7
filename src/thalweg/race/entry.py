"""What a race finds out about one optimizer on one task."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WORKS = 0.9  # share of the best rate's progress that a rate must make to count as working


@dataclass(frozen=True)
class Run:
    """One training run: what was measured at each evaluation, the first one before any step.

    Attributes:
        lr: learning rate.
        seed: of the initial weights and the order of the batches.
        steps: gradients evaluated up to each evaluation, ascending from 0.
        seconds: training time until then: gradients and updates, not evaluations.
        train_loss: mean of the training losses since the evaluation before; one entry fewer than
            ``steps``, as there is none at 0.
        test_loss: mean loss over the test batches.
        score: mean score over the test batches; empty if the task has none.
        diverged_at: gradients evaluated when the loss stopped being finite, which ended the run.
        optimizer_seconds: the optimizer's share of the last of ``seconds``.
    """

    lr: float
    seed: int
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    train_loss: tuple[float, ...]
    test_loss: tuple[float, ...]
    score: tuple[float, ...] = ()
    diverged_at: int | None = None
    optimizer_seconds: float = 0.0

    @property
    def diverged(self) -> bool:
        return self.diverged_at is not None

    @property
    def measured(self) -> tuple[float, ...]:
        """What the race is decided by: the score, or the test loss of a task without one."""
        return self.score or self.test_loss

    @property
    def optimizer_share(self) -> float:
        """The optimizer's share of the training time, between 0 and 1."""
        return self.optimizer_seconds / self.seconds[-1] if self.seconds[-1] else 0.0

    def reached(self, target: float) -> int | None:
        """Index of the first evaluation at the target; None if there is none.

        A score reaches it from below, a loss from above.
        """
        for index, value in enumerate(self.measured):
            if value >= target if self.score else value <= target:
                return index
        return None

    def holds(self, target: float) -> bool:
        """The run ended at the target, without diverging."""
        last = self.measured[-1]
        return not self.diverged and (last >= target if self.score else last <= target)


@dataclass(frozen=True)
class StepTime:
    """What the optimizer alone costs, beside ``torch.optim``'s class of the same name.

    Attributes:
        own_us: median time of a step, microseconds.
        torch_us: the same of torch's class of that name with the same options, measured in
            alternation; None if torch has none, or the optimizer is torch's.
        first_step_s: the first step, seconds: with thalweg's, tracing, and compiling the kernel or
            loading it from the cache.
        state_bytes: bytes of state per parameter element.
    """

    own_us: float
    torch_us: float | None
    first_step_s: float
    state_bytes: float

    @property
    def ratio(self) -> float | None:
        """How many of its steps fit into one of torch's."""
        return None if self.torch_us is None else self.torch_us / self.own_us


@dataclass(frozen=True)
class Entry:
    """One optimizer on one task.

    Attributes:
        name: the racer's.
        optimizer: its class, as a dotted path.
        options: keyword arguments besides ``lr``.
        note: what a reader must know to judge its result.
        search: a run for each learning rate that was tried, by ascending rate, each as long as it
            stayed in the race; all with the first seed.
        runs: with the best of these rates one full run for each seed; empty if every rate
            diverged.
        step_time: what a step costs.
        failed: why it does not take part: the message of what it raised. The rest is then empty.
    """

    name: str
    optimizer: str
    options: Mapping[str, Any]
    note: str
    search: tuple[Run, ...]
    runs: tuple[Run, ...]
    step_time: StepTime | None
    failed: str | None = None

    @property
    def lr(self) -> float | None:
        """The best learning rate; None if there is none."""
        return self.runs[0].lr if self.runs else None

    @property
    def working(self) -> tuple[Run, ...]:
        """The rates that work: neighbours, on the grid, of the one that got furthest.

        A rate works if, in as many steps as every rate got, it lowered the test loss by at least
        :data:`WORKS` of what the best rate lowered it by.
        """
        progress = [_progress(run, self.first_round) for run in self.search]
        if not progress or max(progress) <= 0:
            return ()
        low = high = progress.index(max(progress))
        enough = WORKS * max(progress)
        while low > 0 and progress[low - 1] >= enough:
            low -= 1
        while high + 1 < len(progress) and progress[high + 1] >= enough:
            high += 1
        return self.search[low : high + 1]

    @property
    def first_round(self) -> int:
        """The steps that every rate got, unless it diverged."""
        return min((run.steps[-1] for run in self.search if not run.diverged), default=0)

    def steps_to(self, target: float) -> float:
        """Median over the seeds of the steps to the target; inf if half miss it or diverge."""
        return _median(_at(run, run.steps, target) for run in self.runs)

    def seconds_to(self, target: float) -> float:
        """Median over the seeds of the seconds to the target; inf if half miss it or diverge."""
        return _median(_at(run, run.seconds, target) for run in self.runs)

    @property
    def final(self) -> float:
        """Median over the seeds of what the race is decided by, after the last step.

        A run that diverged counts as the worst there can be: inf, or -inf for a score.
        """
        sign = -1 if any(run.score for run in self.runs) else 1
        last = (math.inf if run.diverged else sign * run.measured[-1] for run in self.runs)
        return sign * _median(last)

    @property
    def optimizer_share(self) -> float:
        """Median over the seeds of the optimizer's share of the training time."""
        return _median(run.optimizer_share for run in self.runs)


def _progress(run: Run, steps: int) -> float:
    """By how much the test loss fell in so many steps; below 0 for a run that diverged."""
    if run.diverged:
        return -math.inf
    # One that evaluates several gradients per step is measured a little earlier or later.
    index = min(range(len(run.steps)), key=lambda i: abs(run.steps[i] - steps))
    return run.test_loss[0] - run.test_loss[index]


def _at(run: Run, values: tuple[float, ...] | tuple[int, ...], target: float) -> float:
    index = None if run.diverged else run.reached(target)
    return math.inf if index is None else values[index]


def _median(values: Iterable[float]) -> float:
    """The median where smaller is better; of two in the middle the worse."""
    found = sorted(values)
    # Their mean would be inf where one of them is.
    return statistics.median_high(found) if found else math.inf
