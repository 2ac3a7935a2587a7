"""What of a state dict fitted an optimizer, and what did not."""

from collections.abc import Sequence
from dataclasses import dataclass

from thalweg.names import printable

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Misshaped:
    """A parameter, or a state of it, that has another shape in the state dict.

    Attributes:
        name: the parameter's.
        state: of the state; empty for the parameter itself.
        saved: the shape in the state dict.
        own: the shape here.

    >>> print(Misshaped("fc.weight", "exp_avg", (10, 8), (12, 8)))
    fc.weight: exp_avg is (10, 8) in it, (12, 8) here
    """

    name: str
    state: str
    saved: Shape
    own: Shape

    def __str__(self) -> str:
        what = f"{self.name}: {self.state}" if self.state else self.name
        return f"{what} is {self.saved} in it, {self.own} here"


@dataclass(frozen=True)
class LoadReport:
    """What of a state dict fitted an optimizer.

    A parameter is called by its name; where there are no names, by its number.

    Attributes:
        loaded: parameters whose states were taken over (one that was never updated has none).
        missing: parameters of the optimizer that the state dict does not know: they start fresh.
        unexpected: parameters of the state dict that the optimizer does not have.
        misshaped: parameters of another shape: they start fresh.
        kept: options of groups that stay as they are, as the state dict has several values for one.
        other: anything else that does not fit, and what was done about it.

    >>> report = LoadReport(loaded=("fc.weight",), missing=("head.weight", "head.bias"))
    >>> report.complete
    False
    >>> print(report)
    loaded: fc.weight
    missing (here, not in it): head.weight, head.bias
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshaped: tuple[Misshaped, ...] = ()
    kept: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything fitted."""
        return not self.misfits

    @property
    def misfits(self) -> tuple[str, ...]:
        """A line for each kind of thing that did not fit."""
        lines = [
            ("missing (here, not in it)", self.missing),
            ("unexpected (in it, not here)", self.unexpected),
            ("of another shape", [str(each) for each in self.misshaped]),
            ("options with several values in it", self.kept),
        ]
        present = [_line(label, what) for label, what in lines if what]
        return (*present, *self.other)

    def __str__(self) -> str:
        return "\n".join([_line("loaded", self.loaded or ["nothing"]), *self.misfits])


def _line(label: str, what: Sequence[str]) -> str:
    # A comma would not separate entries that contain one.
    separator = "; " if any(", " in each for each in what) else ", "
    return printable(f"{label}: {separator.join(what)}")
