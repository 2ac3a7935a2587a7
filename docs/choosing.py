"""The page on choosing an optimizer, written from a race that is kept beside it.

    python docs/choosing.py

reads ``docs/choosing.json`` and writes ``docs/choosing.md``. The race is made again by the command
that the page names; its ``race.json`` then replaces ``docs/choosing.json``. No sentence of the page
has a number, or the name of a winner, that is not computed from that file.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thalweg.race.presets import EVERYONE
from thalweg.race.report.formats import (
    MISSING,
    counted,
    format_bytes,
    format_count,
    format_factor,
    format_goal,
    format_seconds,
    join,
    times,
)
from thalweg.race.report.overall import Overall, overall
from thalweg.race.report.table import OVERALL_HEADERS, OVERALL_MEANING, overall_row
from thalweg.race.report.words import command, sentences
from thalweg.race.result import Result, TaskResult

FOLDER = Path(__file__).parent

# The words of the folklore as numbers. Steps are multiples of the best optimizer's, bytes are of
# state per parameter, decades are those of learning rates that work.
FAST, MEDIUM = 1.5, 3.0
NO_STATE, TWO_STATES = 1.0, 8.5
TOLERANT, FAIR = 1.49, 0.99  # four, and three neighbouring rates of the grid, √10 apart
AFFORDABLE = 2.0  # times the fewest steps, for the advice to those who cannot tune


@dataclass(frozen=True)
class Said:
    """What is commonly said of an optimizer; "" where nothing is.

    Attributes:
        speed: of convergence: fast, medium or slow.
        memory: low, medium or high.
        sensitivity: to the learning rate: low, medium or high.
        advice: what it is said to be for.
    """

    speed: str
    memory: str
    sensitivity: str
    advice: str


FOLKLORE = {
    "SGD": Said("slow", "low", "high", "where memory is short and there is time to tune"),
    "SGD+momentum": Said("medium", "medium", "high", "wherever SGD is; it gets there sooner"),
    "Adagrad": Said("medium", "medium", "medium", "sparse data; its steps shrink towards nothing"),
    "Adadelta": Said("medium", "medium", "low", "as Adagrad, without the steps that vanish"),
    "RMSprop": Said("fast", "medium", "medium", "recurrent nets and objectives that drift"),
    "Adam": Said("fast", "medium", "low", "the default"),
    "AdamW": Said("fast", "medium", "low", "where weight decay matters, as in transformers"),
    "NAdam": Said("fast", "medium", "low", "as Adam, a little faster"),
    "Rprop": Said("", "medium", "low", "full batches only"),
    "LBFGS": Said("fast", "high", "low", "small problems with full batches"),
    "SparseAdam": Said("fast", "medium", "low", "large embeddings"),
    "ASGD": Said("slow", "medium", "high", "long runs, near the end of convergence"),
}


def speed(one: Overall) -> str:
    """The folklore's word for the measured number of steps."""
    return "fast" if one.steps <= FAST else "medium" if one.steps <= MEDIUM else "slow"


def memory(one: Overall) -> str:
    """The folklore's word for the measured bytes of state; "" if they were not measured."""
    if one.state_bytes is None:
        return ""
    if one.state_bytes < NO_STATE:
        return "low"
    return "medium" if one.state_bytes <= TWO_STATES else "high"


def sensitivity(one: Overall) -> str:
    """The folklore's word for the measured width; "" if the grid ended before it was known."""
    if one.decades is None:
        return ""
    if one.decades >= TOLERANT:
        return "low"
    if not one.bounded:
        return ""
    return "medium" if one.decades >= FAIR else "high"


MEASURES = {"speed": speed, "memory": memory, "sensitivity": sensitivity}


def text(result: Result) -> str:
    """The whole page."""
    everyone = overall(result)
    again = replace(result.settings, optimizers=EVERYONE)  # with those that came since
    parts = [
        "<!-- Written by docs/choosing.py from docs/choosing.json; change those. -->",
        "# Choosing an optimizer",
        "What is said of optimizers (Adam: fast, medium memory, little tuning), beside what a "
        f"[race](race.md) of {counted(len(everyone), 'optimizer')} on "
        f"{counted(len(result.tasks), 'task')} measured. In three sentences:",
        *sentences(result),
        "## Choose",
        "\n".join(f"- {line}" for line in advice(result)),
        "## Measured",
        markdown(OVERALL_HEADERS, map(overall_row, everyone)),
        OVERALL_MEANING,
        "## By task",
        by_task(result.tasks),
        "## What is said, and what was measured",
        f"As numbers, the words mean: *fast* is at most {FAST:g} times the fewest steps, *medium* "
        f"at most {MEDIUM:g} times, *slow* more, or the target missed. *Low* memory is none, "
        "*medium* up to two numbers of four bytes per parameter, *high* more. *Low* sensitivity is "
        "a range of rates of a factor of 32 or more, *medium* of 10 or more, *high* less.",
        compared(everyone),
        "\n".join(f"- {line}" for line in verdicts(everyone)),
        "## What this does not show",
        "\n".join(f"- {line}" for line in limits(result)),
        "## Make it again",
        f"```console\n$ {command(again)}\n"
        f"$ cp race-{result.settings.preset}/race.json docs/choosing.json\n"
        "$ python docs/choosing.py\n```",
    ]
    return "\n\n".join(parts) + "\n"


def advice(result: Result) -> Iterator[str]:
    """Who to choose when, each by a rule that the sentence states."""
    everyone = [one for one in overall(result) if one.broad and one.most]
    if not everyone:
        yield "No optimizer reached more than half of the targets: this race gives no advice."
        return
    first = everyone[0]
    yield (
        f"**{first.name}** for the fewest steps: {times(first.steps, 'as many')} as the best of "
        "each task in the median, the lowest of all; it reached "
        f"{first.reached} of {first.tasks} targets."
    )
    quick = min(everyone, key=lambda one: one.seconds)
    yield (
        f"**{quick.name}** for the shortest training, where a step costs what it costs here: "
        f"{times(quick.seconds, 'as long')} as the best of each task in the median."
    )
    near = [one for one in everyone if one.steps <= AFFORDABLE * first.steps and one.decades]
    if near:
        easy = max(near, key=lambda one: (one.decades or 0, -one.steps))
        least = "" if easy.bounded else "at least "
        yield (
            f"**{easy.name}** where the learning rate cannot be searched for: rates within "
            f"{least}a factor of {format_factor(10 ** (easy.decades or 0))} work, the widest range "
            f"of those that need at most {AFFORDABLE:g} times the steps of {first.name}."
        )
    kept = [one for one in everyone if one.state_bytes is not None]
    if kept:
        lean = min(kept, key=lambda one: (one.state_bytes, one.steps))
        beside = times(lean.steps / first.steps, "the steps")
        yield (
            f"**{lean.name}** where memory is short: {format_bytes(lean.state_bytes or 0)} of "
            "state per parameter, the least of those that reached more than half of the targets"
            + ("." if lean is first else f", at {beside} of {first.name}.")
        )
    for task in result.tasks:
        refused = [entry.name for entry in task.entries if entry.failed is not None]
        # Where most cannot take part, gradients are sparse, and it is a choice of its own.
        if 2 * len(refused) > len(task.entries) and (best := first_on(task)) is not None:
            able = len(task.entries) - len(refused)
            yield (
                f"**{best}** for sparse gradients, as on {task.task}, which "
                f"{counted(len(refused), 'optimizer')} cannot take: first by steps of "
                f"the {able} that can."
            )
    poor = [one.name for one in overall(result) if one.broad and not one.most]
    if poor:
        said = f"Not {join(poor, len(poor))}: the target was missed on half of the tasks or more"
        for name in poor:
            won = [task.task for task in result.tasks if first_on(task) == name]
            said += f", though {name} was first on {join(won, len(won))}" if won else ""
        yield f"{said}."


def first_on(task: TaskResult) -> str | None:
    """Who reached the target first, by steps; None if nobody did."""
    best = next(iter(task.standings), None)
    return best.name if best and best.steps_to(task.target) < math.inf else None


def by_task(tasks: Iterable[TaskResult]) -> str:
    """Who was first where."""
    rows = []
    for task in tasks:
        reached = [e for e in task.standings if e.runs and e.steps_to(task.target) < math.inf]
        if reached:
            quick = min(reached, key=lambda entry: entry.seconds_to(task.target))
            steps = format_count(reached[0].steps_to(task.target))
            firsts = (
                f"{reached[0].name}, {steps}",
                f"{quick.name}, {format_seconds(quick.seconds_to(task.target))} s",
            )
        else:
            firsts = (MISSING, MISSING)
        raced = sum(bool(entry.runs) for entry in task.entries)
        goal = format_goal(task) if raced else MISSING
        size = format_count(task.parameters)
        count = f"{len(reached)} of {raced}"
        rows.append((task.task, task.description, size, goal, *firsts, count))
    head = ("task", "what is trained", "parameters", "target", "first by steps", "first by time")
    return markdown((*head, "reached it"), rows)


def compared(everyone: Iterable[Overall]) -> str:
    """The folklore's words, and in parentheses the measured ones where they differ."""
    rows = []
    for one in everyone:
        said = FOLKLORE.get(one.name)
        if said is not None:
            cells = []
            for what, measure in MEASURES.items():
                word, found = getattr(said, what), measure(one)
                cells.append(f"{word or MISSING} / {found or MISSING}")
            rows.append((one.name, *cells, said.advice))
    head = ("said / measured", "speed", "memory", "sensitivity", "said to be for")
    return markdown(head, rows)


def verdicts(everyone: Sequence[Overall]) -> Iterator[str]:
    """Of each measure, for whom it agrees with what is said and for whom it does not."""
    for what, measure in MEASURES.items():
        agree, differ = [], []
        for one in everyone:
            word = getattr(FOLKLORE.get(one.name), what, "")
            found = measure(one)
            if word and found:
                (agree if word == found else differ).append((one.name, word, found))
        if agree or differ:
            said = f"{what.capitalize()}: measured as said for {len(agree)} of "
            said += f"{len(agree) + len(differ)}"
            if differ:
                others = [f"{name} ({found}, not {word})" for name, word, found in differ]
                said += f"; otherwise for {join(others, len(others))}"
            yield f"{said}."


def limits(result: Result) -> Iterator[str]:
    """What a reader must not conclude."""
    asked = result.settings
    sizes = [task.parameters for task in result.tasks]
    if sizes:
        yield (
            f"The networks are small ({format_count(min(sizes))} to {format_count(max(sizes))} "
            "parameters), and so are the data. Large models may rank optimizers otherwise."
        )
    yield (
        f"One machine ({result.versions.get('machine', 'unknown')}), on one thread; times are its "
        "own. Steps are not."
    )
    yield (
        f"A budget of {counted(asked.learning_rates, 'learning rate')}, √10 apart, around a common "
        f"one, and {counted(asked.seeds, 'seed')} for the best of them. Other options keep their "
        "defaults; no rate is scheduled."
    )
    few = [one.name for one in overall(result) if not one.broad]
    if few:
        yield (
            f"{join(few, len(few))} took part in half of the tasks or fewer: medians over so few "
            "are not comparable with the others'."
        )
    yield (
        "Speed is that of reaching one target. Where training ends is another question, and how "
        "well the model generalises a third: the test data here choose the rate as well."
    )
    yield (
        "What is said of recurrent nets, objectives that drift, weight decay and averaging over "
        "long runs is not tested by these tasks."
    )


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, in which a bar within a cell does no harm."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(
        f"| {' | '.join(c.replace('|', chr(92) + '|') for c in line)} |" for line in lines
    )


def main(folder: Path = FOLDER) -> None:
    """Read the race in the folder and write the page beside it."""
    result = Result.from_json((folder / "choosing.json").read_text(encoding="utf-8"))
    (folder / "choosing.md").write_text(text(result), encoding="utf-8")


if __name__ == "__main__":
    main()
