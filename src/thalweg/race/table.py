"""A race's result as a table for the terminal; needs rich."""

import statistics

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from thalweg.race.result import LossTime, Result, Standing

MISSING = "–"
WIDTH = 100  # holds the table with its longest numbers


def report(result: Result) -> Group:
    """The table, what its numbers mean, and the race in one line."""
    explanations = [Text(note, style="dim") for note in notes(result)]
    last = Text(summary(result), style="bold")
    loss = Text(loss_line(result.loss))
    return Group(Text(""), table(result), Text(""), *explanations, Text(""), loss, last)


def table(result: Result) -> Table:
    """One row per optimizer, best first."""
    target = f"{100 * result.target:.0f}%"
    made = Table(
        title=f"{result.task}: {result.parameters} parameters in {result.tensors} tensors, "
        f"{result.epochs} epochs, batches of {result.batch_size}, seed {result.seed}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    made.add_column("\noptimizer", no_wrap=True)
    for header in (
        "best\nlr",
        f"steps\nto {target}",
        f"seconds\nto {target}",
        "final\n%",
        "step µs\nthalweg",
        "step µs\ntorch",
        "speed-\nup",
        "state\nB/param",
        f"learning rates\nreaching {target}",
    ):
        made.add_column(header, justify="right", no_wrap=True)
    for standing in result.standings:
        best, time = standing.best, standing.step_time
        made.add_row(
            standing.name,
            format_lr(best.lr),
            MISSING if best.steps_to_target is None else str(best.steps_to_target),
            MISSING if best.seconds_to_target is None else f"{best.seconds_to_target:.3f}",
            f"{100 * best.accuracy:.1f}",
            f"{time.thalweg_us:.1f}",
            f"{time.torch_us:.1f}",
            f"{time.ratio:.1f}×",
            f"{time.state_bytes:.1f}",
            format_range(standing),
            style=None if standing.reached else "dim",
        )
    return made


def notes(result: Result) -> list[str]:
    """What a reader needs in order not to misread the table."""
    first_steps = sum(s.step_time.first_step_s for s in result.standings)
    lines = [
        "best lr: fewest steps to the target among those that end above it. "
        "≤ ≥: end of the tried range.",
        "seconds: gradients and steps, not evaluation or compiling "
        f"(first steps: {first_steps:.1f} s in all).",
        "speed-up: torch's step time ÷ thalweg's.",
    ]
    for standing in result.standings:
        if standing.reached:
            continue
        why = f": it {standing.note}" if standing.note else ""
        lines.append(f"{standing.name} did not reach {100 * result.target:.0f}%{why}.")
    return lines


def loss_line(time: LossTime) -> str:
    """The winner's training with either library's loss, in one line or two."""
    saved = f"{abs(time.saved_us):.0f} µs {'saved' if time.saved_us >= 0 else 'lost'} per step"
    return (
        f"{time.loss} of thalweg.losses in place of torch's ({time.optimizer}, {time.steps} "
        f"steps): {100 * time.thalweg_accuracy:.1f}% and {100 * time.torch_accuracy:.1f}% "
        f"accuracy, {time.thalweg_us:.0f} and {time.torch_us:.0f} µs per training step, {saved}."
    )


def summary(result: Result) -> str:
    """The race in one line."""
    trials = sum(len(s.trials) for s in result.standings)
    winner = result.standings[0]
    best = winner.best
    if best.steps_to_target is None or best.seconds_to_target is None:
        first = f"nobody reached {100 * result.target:.0f}%"
    else:
        first = (
            f"{winner.name} first ({best.steps_to_target} steps, {best.seconds_to_target:.2f} s)"
        )
    ratio = statistics.median(s.step_time.ratio for s in result.standings)
    return (
        f"{trials} trial{'' if trials == 1 else 's'} in {result.seconds:.0f} s: {first}; "
        f"median step speed-up over torch.optim {ratio:.1f}×."
    )


def format_lr(lr: float) -> str:
    """Two significant digits in the shortest form.

    >>> format_lr(0.1), format_lr(3e-3), format_lr(0.0316), format_lr(1.0)
    ('0.1', '0.003', '0.032', '1')
    >>> format_lr(9.5e-5)
    '9.5e-5'
    """
    if lr >= 1e-3:
        return f"{lr:.2g}"
    digits, exponent = f"{lr:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def format_range(standing: Standing) -> str:
    """The learning rates that work, marked where the grid ended before they did."""
    working = standing.working
    if not working:
        return MISSING
    low, high = working[0], working[-1]
    below = "≤" if low is standing.trials[0] else ""
    above = "≥" if high is standing.trials[-1] else ""
    if low is high and not below + above:
        return format_lr(low.lr)
    return f"{below}{format_lr(low.lr)} … {above}{format_lr(high.lr)}"
