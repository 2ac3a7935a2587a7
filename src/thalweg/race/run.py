"""The race: every optimizer on every task, one after the other, on one thread."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import torch

import thalweg
from thalweg.engine.modes import with_gradients
from thalweg.race.loss_time import measure_loss
from thalweg.race.presets import checked
from thalweg.race.probe import Probe, probe
from thalweg.race.protocol import TaskError
from thalweg.race.racers import Racer, find_all
from thalweg.race.result import Entry, Result, Settings, TaskResult
from thalweg.race.search import budget, compete
from thalweg.race.step_time import measure_steps, quiet
from thalweg.race.tasks import find_all as find_tasks
from thalweg.race.training import OptimizerError, rounded

# Layers this small gain nothing from a second thread, and lose much when it waits for a core.
THREADS = 1


@dataclass(frozen=True)
class Stage:
    """How far a race is.

    Attributes:
        fraction: of the work of this call, between 0 and 1; by the time that a gradient of each
            task takes.
        task: its name.
        racer: the optimizer's name.
        lr: the learning rate that is trained; None while steps or losses are timed.
    """

    fraction: float
    task: str
    racer: str
    lr: float | None


Save = Callable[[Result], None]
Progress = Callable[[Stage], None]


def race(
    settings: Settings,
    *,
    done: Result | None = None,
    progress: Progress | None = None,
    save: Save | None = None,
) -> Result:
    """Train every task with every optimizer; see :mod:`thalweg.race.search` for the trials.

    All runs of a task with the same seed begin with the same weights and see the same batches.
    torch's thread count and global random state are left as they were.

    Args:
        settings: what to run; see :func:`thalweg.race.settings`.
        done: an unfinished result of the same settings; the entries in it are not run again.
        progress: called before each entry and after each evaluation.
        save: called with the result so far after each entry, and once more if the race is
            interrupted or a task fails, before the exception goes on.

    Raises:
        ValueError: a wrong setting, an unknown task or optimizer, ``done`` of other settings or
            versions, a task that fails or whose loss is not finite before the first step: all of
            these before anything is trained. Also a task that fails later.
        ModuleNotFoundError: a task needs a package that is not installed.
    """
    settings = checked(settings)
    racers = find_all(settings.optimizers)
    tasks = find_tasks(settings.tasks)
    if done is not None:
        check_same(done, settings)

    @with_gradients(True)
    def run() -> Result:
        probes = [
            probe(task, settings.seed, round(task.steps * settings.length), settings.length)
            for task in tasks
        ]
        if done is not None:
            check_same_tasks(done, probes)
            if done.complete:
                return done
        return _Race(settings, racers, probes, done, progress, save).run()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(THREADS)
        with quiet():
            return run()
    finally:
        torch.set_num_threads(before)


class _Race:
    """The result so far, and what has still to be done."""

    def __init__(
        self,
        settings: Settings,
        racers: tuple[Racer, ...],
        probes: list[Probe],
        done: Result | None,
        progress: Progress | None,
        save: Save | None,
    ) -> None:
        self.settings, self.racers, self.probes = settings, racers, probes
        self.progress, self.save = progress, save
        self.start, self.before = perf_counter(), done.seconds if done else 0.0
        # Each task's part, under way: those of ``done`` as they are.
        self.parts = list(done.tasks) if done else []
        finished = {t.task: {e.name for e in t.entries} for t in self.parts}
        self.left = {
            p.task.name: [r for r in racers if r.name not in finished.get(p.task.name, ())]
            for p in probes
        }
        self.total = sum(self._cost(p) * len(self.left[p.task.name]) for p in probes)
        self.spent = 0.0

    def run(self) -> Result:
        try:
            for i, each in enumerate(self.probes):
                if i == len(self.parts):
                    self.parts.append(each.result)
                for racer in self.left[each.task.name]:
                    self._add(i, self._entry(each, racer))
                self._finish(i, each)
        except (KeyboardInterrupt, TaskError):
            self._save()
            raise
        result = self._result(complete=True)
        if self.save is not None:
            self.save(result)
        return result

    def _entry(self, each: Probe, racer: Racer) -> Entry:
        settings = self.settings
        cost, budgeted = (
            self._cost(each),
            budget(each.steps, settings.learning_rates, settings.seeds),
        )

        def listen(lr: float | None, gradients: int) -> None:
            self._tell(cost * min(1.0, gradients / budgeted), each, racer, lr)

        listen(None, 0)
        entry = compete(
            each.task,
            racer,
            steps=each.steps,
            learning_rates=settings.learning_rates,
            seed=settings.seed,
            seeds=settings.seeds,
            step_time=partial(measure_steps, each.parameters, racer),
            listen=listen,
        )
        self.spent += cost
        return entry

    def _add(self, i: int, entry: Entry) -> None:
        part = self.parts[i]
        self.parts[i] = replace(part, entries=(*part.entries, entry))
        self._save()

    def _finish(self, i: int, each: Probe) -> None:
        """Time the loss with the task's winner, if that has not been done."""
        part = self.parts[i]
        best = part.standings[0]
        if part.loss_time is not None or best.lr is None or each.task.torch_loss is None:
            return
        racer = next(r for r in self.racers if r.name == best.name)
        self._tell(0.0, each, racer, None)
        try:
            time = measure_loss(each.task, racer, best.lr, self.settings.seed, each.steps)
        except OptimizerError:
            return  # it has trained this before; with torch's loss it does not
        self.parts[i] = replace(part, loss_time=time)

    def _cost(self, each: Probe) -> float:
        """Expected seconds of an entry."""
        return each.seconds * budget(each.steps, self.settings.learning_rates, self.settings.seeds)

    def _tell(self, cost: float, each: Probe, racer: Racer, lr: float | None) -> None:
        if self.progress is not None:
            fraction = (self.spent + cost) / self.total if self.total else 1.0
            self.progress(Stage(fraction, each.task.name, racer.name, lr))

    def _save(self) -> None:
        if self.save is not None:
            self.save(self._result(complete=False))

    def _result(self, complete: bool) -> Result:
        return Result(
            settings=self.settings,
            versions=versions(),
            seconds=rounded(self.before + perf_counter() - self.start),
            tasks=tuple(self.parts),
            complete=complete,
        )


def check_same(done: Result, settings: Settings) -> None:
    """Raise ValueError unless a race can be continued with these settings, here."""
    for field in fields(Settings):
        before, now = getattr(done.settings, field.name), getattr(settings, field.name)
        if before != now:
            raise ValueError(
                f"race: {field.name} must be as in the race to go on from, {before!r}, got "
                f"{now!r}; ask for the same, or begin a new race"
            )
    here = versions()
    for name in {**done.versions, **here}:
        if done.versions.get(name) != here.get(name):
            raise ValueError(
                f"race: {name} was {done.versions.get(name)} in the race to go on from and is "
                f"{here.get(name)} now, which cannot be compared; begin a new race"
            )


def check_same_tasks(done: Result, probes: list[Probe]) -> None:
    """Raise ValueError unless the tasks are what they were."""
    for part, each in zip(done.tasks, probes, strict=False):
        before = replace(part, entries=(), loss_time=None)
        for field in fields(TaskResult):
            old, new = getattr(before, field.name), getattr(each.result, field.name)
            if old != new:
                raise ValueError(
                    f"race: {field.name} of task {part.task} was {old!r} in the race to go on from "
                    f"and is {new!r} now; begin a new race"
                )


def versions() -> Mapping[str, str]:
    """What times and results depend on, besides the settings."""
    try:
        llvmlite = version("llvmlite")
    except PackageNotFoundError:
        llvmlite = "not installed"
    return {
        "thalweg": thalweg.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "llvmlite": llvmlite,
        "threads": str(THREADS),
        "machine": _machine(),
    }


def _machine() -> str:
    """The processor's name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
