"""Numbers and ranges of a race as they are printed everywhere: table, page and sentences."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from thalweg.race.result import Entry, TaskResult

MISSING = "–"
SAME = 1.05  # ratios below this are called about equal
NO_BREAK = "\u00a0"


def format_lr(lr: float) -> str:
    """Two significant digits in the shortest form.

    >>> format_lr(0.1), format_lr(3e-3), format_lr(0.0316), format_lr(1.0), format_lr(31.6)
    ('0.1', '0.003', '0.032', '1', '32')
    >>> format_lr(9.5e-5), format_lr(316.2)
    ('9.5e-5', '320')
    """
    if lr >= 1e-3:
        return format_factor(lr)
    digits, exponent = f"{lr:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def format_factor(factor: float) -> str:
    """Two significant digits, without an exponent.

    >>> format_factor(1.0), format_factor(3.162), format_factor(316.2), format_factor(12345)
    ('1', '3.2', '320', '12000')
    """
    if math.isinf(factor):
        return "∞"
    rounded = float(f"{factor:.2g}")
    return f"{rounded:.0f}" if rounded >= 100 else f"{rounded:g}"


def format_multiple(factor: float | None) -> str:
    """A factor with its sign; a dash for None, and ∞ alone.

    >>> format_multiple(1.25), format_multiple(float("inf")), format_multiple(None)
    ('1.2×', '∞', '–')
    """
    if factor is None:
        return MISSING
    return "∞" if math.isinf(factor) else f"{format_factor(factor)}×"


def format_count(count: float) -> str:
    """A whole number, its thousands apart; ∞ stands for never.

    >>> format_count(8314).replace(chr(0xA0), " "), format_count(120), format_count(float("inf"))
    ('8 314', '120', '∞')
    """
    return "∞" if math.isinf(count) else f"{count:,.0f}".replace(",", NO_BREAK)


def counted(count: int, what: str) -> str:
    """So many of something.

    >>> counted(1, "task"), counted(2, "task")
    ('1 task', '2 tasks')
    """
    return f"{format_count(count)} {what}{'' if count == 1 else 's'}"


def format_seconds(seconds: float) -> str:
    """Two significant digits, three from 10 on, at most three places; ∞ stands for never.

    >>> [format_seconds(s) for s in (0.00432, 0.0432, 0.432, 1.23, 98.76, 1234.5)]
    ['0.004', '0.043', '0.43', '1.2', '98.8', '1234']
    """
    if math.isinf(seconds):
        return "∞"
    exponent = math.floor(math.log10(seconds)) if seconds > 0 else 0
    return f"{seconds:.{min(3, max(0, 1 + (exponent > 0) - exponent))}f}"


def format_bytes(count: float) -> str:
    """Bytes with their unit; a fraction comes from states that are kept once per tensor.

    >>> format_bytes(8.0), format_bytes(4.2), format_bytes(1)
    ('8 bytes', '4.2 bytes', '1 byte')
    """
    shown = f"{count:.1f}".removesuffix(".0")
    return f"{shown} byte{'' if shown == '1' else 's'}"


def is_share(task: TaskResult) -> bool:
    """The score is an accuracy, which is printed in percent."""
    return task.scored and "accuracy" in task.metric.lower()


def format_value(task: TaskResult, value: float) -> str:
    """The score, or the test loss where it decides; "diverged" where it is not finite."""
    if not math.isfinite(value):
        return "diverged"
    return f"{100 * value:.1f}%" if is_share(task) else f"{value:.3g}"


def format_target(task: TaskResult) -> str:
    """The target without the name of what is measured."""
    return f"{float(f'{100 * task.target:.1f}'):g}%" if is_share(task) else f"{task.target:.3g}"


def format_goal(task: TaskResult) -> str:
    """The target in words, as in "95% accuracy" or "a test loss of 0.52"."""
    if not task.scored:
        return f"a test loss of {format_target(task)}"
    if is_share(task):
        return f"{format_target(task)} {task.metric}"
    return f"{task.metric} {format_target(task)}"


def format_range(entry: Entry) -> str:
    """The learning rates that work, marked where the grid ended before they did."""
    working = entry.working
    if not working:
        return MISSING
    low, high = working[0], working[-1]
    below = "≤" if low is entry.search[0] else ""
    above = "≥" if high is entry.search[-1] else ""
    if low is high:
        return format_lr(low.lr) if below and above else f"{below}{above}{format_lr(low.lr)}"
    return f"{below}{format_lr(low.lr)} … {above}{format_lr(high.lr)}"


def join(names: Sequence[str], limit: int = 4) -> str:
    """Names as a sentence has them.

    >>> join(["a"]), join(["a", "b", "c"]), join(list("abcdef"))
    ('a', 'a, b and c', 'a, b, c and 3 others')
    """
    if len(names) > limit:
        names = [*names[: limit - 1], f"{len(names) - limit + 1} others"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def times(ratio: float, what: str) -> str:
    """A ratio in words.

    >>> times(1.32, "as many"), times(1.02, "as many")
    ('1.3 times as many', 'about as many')
    """
    return f"about {what}" if 1 / SAME < ratio < SAME else f"{format_factor(ratio)} times {what}"


@dataclass(frozen=True)
class Spread:
    """The median of a few values and how far they spread.

    Attributes:
        median: of an even number the higher one of the middle two, as in all results.
        low: the lowest.
        high: the highest.
    """

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Iterable[float]) -> "Spread":
        """Of at least one value."""
        found = sorted(values)
        return Spread(statistics.median_high(found), found[0], found[-1])

    def __format__(self, kind: str) -> str:
        """``steps`` or ``seconds``, the spread in parentheses if there is one.

        >>> f"{Spread(120, 110, 140):steps}", f"{Spread(0.5, 0.5, 0.5):seconds}"
        ('120 (110–140)', '0.50')
        """
        show = {"steps": format_count, "seconds": format_seconds}[kind]
        median, low, high = map(show, (self.median, self.low, self.high))
        if math.isinf(self.low):
            return MISSING
        return median if low == high else f"{median} ({low}–{high})"


def steps_spread(entry: Entry, target: float) -> Spread:
    """Steps to the target over the seeds; inf for one that missed it."""
    return Spread.of(one.steps_to(target) for one in seeds_of(entry))


def seconds_spread(entry: Entry, target: float) -> Spread:
    """Training time to the target over the seeds; inf for one that missed it."""
    return Spread.of(one.seconds_to(target) for one in seeds_of(entry))


def seeds_of(entry: Entry) -> list[Entry]:
    """The entry with each of its runs alone; itself if it has none."""
    return [replace(entry, runs=(run,)) for run in entry.runs] or [entry]
