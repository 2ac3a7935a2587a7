"""What a race means, in three sentences computed from its numbers."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from thalweg.race.presets import PRESETS
from thalweg.race.report.formats import (
    counted,
    format_bytes,
    format_count,
    format_factor,
    format_goal,
    format_seconds,
    format_value,
    join,
    times,
)
from thalweg.race.report.overall import Overall, middle, over, overall, width
from thalweg.race.result import Entry, Result, Settings, TaskResult

NOTHING = "Nothing has been trained yet."
NARROW = 1e-6  # decades that are none
OPTIONS = {
    "tasks": "--task",
    "optimizers": "--optimizers",
    "learning_rates": "--lrs",
    "seeds": "--seeds",
    "seed": "--seed",
    "length": "--length",
}


@dataclass(frozen=True)
class _Rates:
    """The width of the working learning rates: decades, and whether both ends were seen."""

    name: str
    decades: float
    bounded: bool


@dataclass(frozen=True)
class _Cost:
    """Steps to the target (or their ratio to the fewest) and what they cost."""

    name: str
    steps: float
    state_bytes: float
    step_ratio: float | None


def sentences(result: Result) -> tuple[str, ...]:
    """A race in three sentences: who was first, whose rate matters, what memory buys.

    Fewer where there is nothing to say. With several tasks, each optimizer counts by its median
    over them; see :class:`thalweg.race.report.overall.Overall`.
    """
    if len(result.tasks) == 1:
        return task_sentences(result.tasks[0])
    entries = [entry for task in result.tasks for entry in task.entries]
    if not any(entry.runs for entry in entries):
        return (_nobody_trained(entries),)
    everyone = [one for one in overall(result) if one.broad]
    rates = [_Rates(o.name, o.decades, o.bounded) for o in everyone if o.decades is not None]
    costs = [
        _Cost(o.name, o.steps, o.state_bytes, o.step_ratio)
        for o in everyone
        if o.state_bytes is not None
    ]
    first = _first_overall(everyone, result.tasks)
    return tuple(filter(None, (first, _sensitivity(rates, " in the median task"), _memory(costs))))


def task_sentences(task: TaskResult) -> tuple[str, ...]:
    """One task's race in three sentences; fewer where there is nothing to say."""
    raced = [entry for entry in task.standings if entry.runs]
    if not raced:
        return (_nobody_trained(task.entries),)
    rates = [_Rates(e.name, *found) for e in raced if (found := width(e)) is not None]
    costs = [
        _Cost(e.name, e.steps_to(task.target), e.step_time.state_bytes, e.step_time.ratio)
        for e in raced
        if e.step_time is not None
    ]
    return tuple(filter(None, (_first(task, raced), _sensitivity(rates), _memory(costs))))


def outcome(entry: Entry) -> str | None:
    """Why an entry has no full runs; None if it has."""
    if entry.failed is not None:
        return f"could not take part: {entry.failed}"
    return None if entry.runs else "diverged at every learning rate that was tried"


def incomplete(result: Result) -> str | None:
    """That the race is not complete, and how far it got; None if it is."""
    if result.complete:
        return None
    done = sum(len(task.entries) for task in result.tasks)
    planned = len(result.settings.tasks) * len(result.settings.optimizers)
    return (
        f"This race is not complete: {done} of {planned} entries are done. What is said here is of "
        "these alone. --resume goes on from there."
    )


def command(settings: Settings) -> str:
    """The command that runs the same race again."""
    words = ["thalweg", "race", "--preset", settings.preset]
    preset = PRESETS.get(settings.preset)
    for name, option in OPTIONS.items():
        value = getattr(settings, name)
        if preset is None or value != getattr(preset, name):
            words += [option, _as_option(value)]
    return shlex.join(words)


def _as_option(value: tuple[str, ...] | float) -> str:
    """An option's value, every digit of it."""
    if isinstance(value, tuple):
        return ",".join(value)
    return repr(value).removesuffix(".0")


def _nobody_trained(entries: Sequence[Entry]) -> str:
    if not entries:
        return NOTHING
    failed = list(dict.fromkeys(entry.name for entry in entries if entry.failed is not None))
    diverged = list(dict.fromkeys(entry.name for entry in entries if entry.failed is None))
    said = [f"{join(diverged)} diverged at every learning rate that was tried"] if diverged else []
    said += [f"{join(failed)} could not take part"] if failed else []
    return f"Nothing could be trained: {', and '.join(said)}."


def _first(task: TaskResult, raced: Sequence[Entry]) -> str:
    """Who was first on one task."""
    if not math.isfinite(task.target):
        return (
            f"The task sets no target, and {join([entry.name for entry in raced])} diverged with "
            "half of the seeds or more: none can be called first."
        )
    target, goal = task.target, format_goal(task)
    reached = [entry for entry in raced if entry.steps_to(target) < math.inf]
    if not reached:
        best, steps = raced[0], format_count(task.steps)
        ended = f"{goal} within {steps} steps; {best.name} came"
        value = format_value(task, best.final)
        if len(raced) == 1:
            return f"{best.name} did not reach {goal} within {steps} steps: it ended at {value}."
        return f"None of the {len(raced)} reached {ended} nearest, with {value}."
    fewest = reached[0].steps_to(target)
    if fewest == 0:
        alone = raced[0].name if len(raced) == 1 else "the optimizers"
        return f"The target, {goal}, is met before the first step, and so says nothing of {alone}."
    quick = min(reached, key=lambda entry: entry.seconds_to(target))
    seconds = f"{format_seconds(quick.seconds_to(target))} s"
    if len(raced) == 1:
        return f"{quick.name} reached {goal} after {counted(int(fewest), 'step')}, in {seconds}."
    ties = [entry for entry in reached if entry.steps_to(target) == fewest]
    said = (
        f"{join([e.name for e in ties])} reached {goal} first, after {counted(int(fewest), 'step')}"
    )
    if len(ties) < len(reached):
        second = reached[len(ties)]
        ratio = over(second.steps_to(target), fewest)
        said += f" (next: {second.name}, {times(ratio, 'as many')})"
    if quick in ties:
        said += f"; {quick.name} was also first by time, in {seconds}"
    else:
        late = over(ties[0].seconds_to(target), quick.seconds_to(target))
        said += f"; by time {quick.name} was first, in {seconds} ({ties[0].name}: "
        said += f"{times(late, 'as long')})"
    missed = len(raced) - len(reached)
    return f"{said}; {missed} of {len(raced)} missed it." if missed else f"{said}."


def _first_overall(everyone: Sequence[Overall], tasks: Sequence[TaskResult]) -> str:
    """Who was first over all tasks; the best first."""
    most = [one for one in everyone if one.most]
    if not most:
        return f"No optimizer reached the target of more than half of the {len(tasks)} tasks."
    best = most[0]
    ties = [one.name for one in most if one.steps == best.steps]
    quick = min(most, key=lambda one: one.seconds)
    missed = sum(all(e.steps_to(t.target) == math.inf for e in t.entries) for t in tasks)
    among = f", of which nobody reached the target of {missed}," if missed else ""
    said = (
        f"Over {len(tasks)} tasks{among} {join(ties)} needed the fewest steps to the target: in "
        f"the median task {times(best.steps, 'as many')} as the best of that task"
    )
    if quick is best:
        alone = "the least time, too" if len(ties) == 1 else f"{best.name} the least time, too"
        return f"{said}, and {alone}."
    return (
        f"{said}; the least time took {quick.name}, {times(quick.seconds, 'as long')} as the best "
        f"({best.name}: {times(best.seconds, 'as long')})."
    )


def _sensitivity(rates: Sequence[_Rates], where: str = "") -> str:
    """Whose learning rate matters least, and whose most."""
    if not rates:
        return (
            "The race does not tell how much the learning rate matters: that takes two or more "
            "rates, one of which lowers the test loss in the first round."
        )
    widest = max(r.decades for r in rates)
    wide = [r for r in rates if r.decades > widest - NARROW]
    if len(wide) == len(rates):
        whom = join([r.name for r in rates])
        return f"The learning rates that work for {whom} span {_span(wide)}{where}."
    # A range that the grid cut off may be the widest, all the same.
    cut = any(not r.bounded for r in rates if r not in wide)
    said = "As far as the rates tried tell, the" if cut else "The"
    said += f" learning rate matters least to {join([r.name for r in wide])} (the rates that work "
    said += f"span {_span(wide)}{where})"
    # Where the grid ended first, the range may be wider than it looks.
    seen = [r for r in rates if r.bounded and r not in wide]
    if not seen:
        return f"{said}; to whom it matters most the rates tried do not tell: they end too soon."
    narrowest = min(r.decades for r in seen)
    narrow = [r for r in seen if r.decades < narrowest + NARROW]
    unsure = any(r.decades < narrowest - NARROW for r in rates)
    among = ", among those whose range ends within the rates tried," if unsure else ""
    return f"{said}, and most{among} to {join([r.name for r in narrow])} ({_span(narrow)})."


def _span(rates: Sequence[_Rates]) -> str:
    """The width of the first, which is that of all."""
    if rates[0].decades < NARROW:
        return "no more than one of those tried"
    least = "" if all(r.bounded for r in rates) else "at least "
    return f"{least}a factor of {format_factor(10 ** rates[0].decades)}"


def _memory(costs: Sequence[_Cost]) -> str:
    """What memory buys, and how long a step takes beside torch's; costs are best first."""
    if not costs:
        return ""
    reached = [cost for cost in costs if cost.steps < math.inf]
    ratios = [cost.step_ratio for cost in costs if cost.step_ratio is not None]
    lean, rich = (end(costs, key=lambda c: c.state_bytes) for end in (min, max))
    if len(costs) == 1:
        said = f"{lean.name} keeps {format_bytes(lean.state_bytes)} of state per parameter"
    elif not reached and lean.state_bytes == rich.state_bytes:
        said = f"All keep {format_bytes(lean.state_bytes)} of state per parameter"
    elif not reached:
        said = (
            f"States take from {format_bytes(lean.state_bytes)} per parameter ({lean.name}) to "
            f"{format_bytes(rich.state_bytes)} ({rich.name})"
        )
    else:
        # Of those that came in together, the one that kept least; as far as it is printed, since
        # counters, one per tensor, are of 4 or 8 bytes.
        first = min(reached, key=lambda c: (c.steps, round(c.state_bytes, 1)))
        lean = min(reached, key=lambda c: (round(c.state_bytes, 1), c.steps))
        kept = format_bytes(first.state_bytes)
        said = f"{first.name} keeps {kept} of state per parameter"
        if lean is not first and format_bytes(lean.state_bytes) != kept:
            said += (
                f"; {lean.name}, which keeps {format_bytes(lean.state_bytes)}, took "
                f"{times(over(lean.steps, first.steps), 'as many steps')}"
            )
        else:
            said += ", no more than any other that reached the target"
    if not ratios:
        return f"{said}."
    ratio = middle(ratios)
    speed = times(ratio, "as fast as") if ratio >= 1 else times(1 / ratio, "as slow as")
    return f"{said}; the median step is {speed} torch's."
