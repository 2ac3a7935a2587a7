"""What a race finds out, as plain data that JSON can hold."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One training run.

    Attributes:
        lr: learning rate.
        steps: steps made; fewer than planned if the loss stopped being finite.
        steps_to_target: steps until the test accuracy first reached the target; None if never.
        seconds_to_target: training time until then (gradients and steps, not the evaluations).
        accuracy: test accuracy after the last step.
        held: that accuracy is at the target.
        diverged: the loss became infinite or NaN, which ended the run.
    """

    lr: float
    steps: int
    steps_to_target: int | None
    seconds_to_target: float | None
    accuracy: float
    held: bool
    diverged: bool


@dataclass(frozen=True)
class StepTime:
    """What the optimizer alone costs, beside ``torch.optim``'s class of the same name.

    Attributes:
        thalweg_us: median time of a step, microseconds.
        torch_us: the same of torch's class with torch's defaults, measured in alternation.
        first_step_s: thalweg's first step, seconds: tracing, and compiling the kernel or loading
            it from the cache.
        state_bytes: bytes of state per parameter element.
    """

    thalweg_us: float
    torch_us: float
    first_step_s: float
    state_bytes: float

    @property
    def ratio(self) -> float:
        """How many of our steps fit into one of torch's."""
        return self.torch_us / self.thalweg_us


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
        thalweg_accuracy: test accuracy after the last step with thalweg's loss.
        torch_accuracy: the same with torch's.
    """

    loss: str
    optimizer: str
    steps: int
    thalweg_us: float
    torch_us: float
    saved_us: float
    thalweg_accuracy: float
    torch_accuracy: float


@dataclass(frozen=True)
class Standing:
    """One optimizer's trials, by ascending learning rate, and what its step costs."""

    name: str
    optimizer: str
    options: Mapping[str, Any]
    note: str
    trials: tuple[Trial, ...]
    step_time: StepTime

    @property
    def best(self) -> Trial:
        """The trial that reached the target in the fewest steps and held it to the end.

        If none held it, the fewest steps decide; if none reached it, the accuracy.
        """

        def rank(trial: Trial) -> tuple[bool, bool, float]:
            if trial.steps_to_target is None:
                return True, True, -trial.accuracy
            return False, not trial.held, trial.steps_to_target

        return min(self.trials, key=rank)

    @property
    def reached(self) -> bool:
        return self.best.steps_to_target is not None

    @property
    def working(self) -> tuple[Trial, ...]:
        """The trials that reached the target and are neighbours of the best one on the grid."""
        if not self.reached:
            return ()
        low = high = self.trials.index(self.best)
        while low > 0 and self.trials[low - 1].steps_to_target is not None:
            low -= 1
        while high + 1 < len(self.trials) and self.trials[high + 1].steps_to_target is not None:
            high += 1
        return self.trials[low : high + 1]


@dataclass(frozen=True)
class Result:
    """A whole race.

    Attributes:
        task: the task's name.
        target: the test accuracy to reach.
        epochs, batch_size, seed: as asked for.
        parameters: elements trained.
        tensors: parameters they are spread over.
        versions: of thalweg's surroundings: python, torch, threads.
        seconds: of the whole race, evaluation and compilation included.
        standings: best first: by steps to the target, then seconds; those that missed it follow,
            by accuracy.
        loss: the winner's training, with thalweg's loss and with torch's.
    """

    task: str
    target: float
    epochs: int
    batch_size: int
    seed: int
    parameters: int
    tensors: int
    versions: Mapping[str, str]
    seconds: float
    standings: tuple[Standing, ...]
    loss: LossTime

    def to_json(self) -> str:
        """Everything above, and for each standing its best trial and range of learning rates."""
        data = asdict(self)
        for standing, entry in zip(self.standings, data["standings"], strict=True):
            entry["best"] = asdict(standing.best)
            entry["lr_range"] = (
                [standing.working[0].lr, standing.working[-1].lr] if (standing.reached) else None
            )
            entry["step_time"]["ratio"] = standing.step_time.ratio
        return json.dumps(data, indent=2, allow_nan=False)


def ranked(standings: list[Standing]) -> tuple[Standing, ...]:
    """Best first; see :class:`Result`."""

    def rank(standing: Standing) -> tuple[float, float, float]:
        best = standing.best
        if best.steps_to_target is None or best.seconds_to_target is None:
            return float("inf"), float("inf"), -best.accuracy
        return best.steps_to_target, best.seconds_to_target, -best.accuracy

    return tuple(sorted(standings, key=rank))
