"""How far a command is, on stderr: a bar in a terminal, elsewhere a line now and then."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from thalweg.names import printable

Tell = Callable[[float, str], None]

# Seconds until there is something to read where there is no bar, and between two lines.
FIRST, NEXT = 2.0, 15.0
# Of the whole, before which no time is estimated: kernels that are compiled would be all of it.
LEAST = 0.01


@contextmanager
def progress(what: str) -> Iterator[Tell]:
    """Tell the user how far it is and how long it will take.

    Args:
        what: is being done, for the lines where there is no terminal.

    Yields:
        A function to call with the fraction done, 0 to 1, and what is being worked on.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(what)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
    )
    clock = Clock()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=1.0, left="")

        def tell(fraction: float, doing: str) -> None:
            bar.update(
                task,
                completed=fraction,
                description=printable(doing or what),
                left=clock.left(fraction),
            )

        yield tell


class Clock:
    """Estimates the time left: what is left takes as long, for its size, as what is done.

    Args:
        now: the seconds now.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self.now, self.start = now, now()

    @property
    def gone(self) -> float:
        return self.now() - self.start

    def left(self, fraction: float) -> str:
        """In words; nothing where it is too early to tell.

        >>> times = iter([0.0, 30.0, 30.0])
        >>> Clock(lambda: next(times)).left(0.25)
        '1 min 30 s left'
        """
        if fraction < LEAST or (gone := self.gone) < 1:
            return ""
        return f"{spelled(gone * max(0.0, 1 - fraction) / fraction)} left"


class Lines:
    """Prints a line after some seconds, and then from time to time.

    Args:
        what: begins each line.
        clock: measures the time.
        out: where to print (default: stderr).
    """

    def __init__(self, what: str, clock: Clock | None = None, out: TextIO | None = None) -> None:
        self.what, self.clock = what, clock or Clock()
        self.out = out if out is not None else sys.stderr
        self.due = FIRST

    def __call__(self, fraction: float, doing: str) -> None:
        """Say how far it is, if it is time to."""
        if self.clock.gone < self.due:
            return
        self.due = self.clock.gone + NEXT
        parts = [f"{100 * fraction:.0f}%", doing, self.clock.left(fraction)]
        line = printable(f"{self.what}: {', '.join(filter(None, parts))}")
        print(line, file=self.out, flush=True)


def spelled(seconds: float) -> str:
    """A duration in words.

    >>> spelled(4.2), spelled(75), spelled(7300)
    ('4 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
