"""What a race finds out, as plain data that JSON can hold."""

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from thalweg.race.decode import build
from thalweg.race.entry import WORKS, Entry, Run, StepTime

__all__ = [
    "FORMAT",
    "WORKS",
    "Entry",
    "LossTime",
    "Result",
    "Run",
    "Settings",
    "StepTime",
    "TaskResult",
]

FORMAT = 1  # of the JSON; a file of another one is refused


@dataclass(frozen=True)
class LossTime:
    """The same training with a loss of ``thalweg.losses`` and with torch's of that name.

    Attributes:
        loss: the loss's name.
        optimizer: the racer that trained, at its best learning rate.
        steps: training steps that were timed, each with the one and the other.
        thalweg_us: median time of a step with thalweg's loss, microseconds: gradients and update.
        torch_us: the same with torch's loss, in alternation.
        saved_us: median of the differences, step by step; below 0 where torch's is the faster.
        thalweg_score: the task's score, or its test loss, after the last step with thalweg's loss.
        torch_score: the same with torch's.
    """

    loss: str
    optimizer: str
    steps: int
    thalweg_us: float
    torch_us: float
    saved_us: float
    thalweg_score: float
    torch_score: float


@dataclass(frozen=True)
class TaskResult:
    """One task's race.

    Attributes:
        task: its name.
        description: what is trained on what, in one line.
        metric: the name of the score; "loss" for a task without one.
        scored: the task has a score, which should rise; otherwise the test loss decides.
        goal: the target that the task sets itself; None if it sets none.
        parameters: elements trained.
        tensors: parameters they are spread over.
        steps: gradients of a full run.
        entries: in the order in which they ran.
        loss_time: training with thalweg's loss and with torch's; None where it was not measured.
    """

    task: str
    description: str
    metric: str
    scored: bool
    goal: float | None
    parameters: int
    tensors: int
    steps: int
    entries: tuple[Entry, ...]
    loss_time: LossTime | None = None

    @property
    def target(self) -> float:
        """The task's own; without one, what the median of the optimizers ended at."""
        if self.goal is not None:
            return self.goal
        return statistics.median_low(finals) if (finals := self._finals) else math.inf

    @property
    def _finals(self) -> list[float]:
        # Without those of which half of the seeds diverged: an infinite target tells nothing.
        return sorted(e.final for e in self.entries if e.runs and math.isfinite(e.final))

    @property
    def standings(self) -> tuple[Entry, ...]:
        """Best first: by steps to the target, then seconds; those that missed it follow, by how
        far they got; at the end those that diverged at every rate or could not take part.
        """
        sign = -1 if self.scored else 1

        def rank(entry: Entry) -> tuple[bool, bool, float, float, float]:
            if not entry.runs:
                return True, entry.failed is not None, math.inf, math.inf, 0.0
            target = self.target
            steps, seconds = entry.steps_to(target), entry.seconds_to(target)
            return False, False, steps, seconds, sign * entry.final

        return tuple(sorted(self.entries, key=rank))


@dataclass(frozen=True)
class Settings:
    """What was asked for; a race goes on (``resume``) only with the same.

    Attributes:
        preset: name of the preset that the rest began from.
        tasks: their specifications, as on the command line.
        optimizers: likewise.
        learning_rates: how many are tried per optimizer, each √10 times the one before.
        seeds: full runs per optimizer.
        seed: the first of them; the others follow it.
        length: factor on the steps of every task.
    """

    preset: str
    tasks: tuple[str, ...]
    optimizers: tuple[str, ...]
    learning_rates: int
    seeds: int
    seed: int
    length: float


@dataclass(frozen=True)
class Result:
    """A whole race, or what an interrupted one got to.

    Attributes:
        settings: what was asked for.
        versions: of thalweg and its surroundings: thalweg, python, torch, llvmlite, threads,
            machine.
        seconds: of the whole race, evaluation and compilation included.
        tasks: one result each, in the order of the settings.
        complete: nothing is missing.
    """

    settings: Settings
    versions: Mapping[str, str]
    seconds: float
    tasks: tuple[TaskResult, ...]
    complete: bool

    def to_json(self) -> str:
        """All attributes, each run on a line of its own; :meth:`from_json` reads it back."""
        data = {"format": FORMAT, **asdict(self)}
        text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        for start in ('{"task":', '{"name":', '{"lr":'):  # quotes within strings are escaped
            text = text.replace(start, f"\n{start}")
        return text + "\n"

    @staticmethod
    def from_json(text: str) -> "Result":
        """The race that :meth:`to_json` wrote.

        Raises:
            ValueError: it is not such a text; the message says what is wrong with it.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from error
        if not isinstance(data, dict) or "format" not in data:
            raise ValueError("not the result of a race: there is no 'format'")
        if data.pop("format") != FORMAT:
            raise ValueError(f"written by another version of thalweg: its format is not {FORMAT}")
        return build(Result, data)
