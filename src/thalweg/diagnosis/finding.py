"""One finding, and all of them as text."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or worth a look.

    Attributes:
        check: what was looked at, in one word.
        text: what was found, and what to do.
        wrong: whether it is a mistake; False: it may be meant.
    """

    check: str
    text: str
    wrong: bool = True

    def __str__(self) -> str:
        return f"{'wrong' if self.wrong else 'note'}: {self.text}"


class Diagnosis(tuple[Finding, ...]):
    """All findings, in the order of the checks."""

    @property
    def healthy(self) -> bool:
        """Whether none of them is a mistake."""
        return not any(finding.wrong for finding in self)

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "nothing to complain of"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list, in parentheses."""
    shown = ", ".join(names[:most])
    return f"({shown}{', ...' if len(names) > most else ''})"


def parameters(count: int) -> str:
    """So many parameters, in words.

    >>> parameters(1), parameters(2)
    ('1 parameter', '2 parameters')
    """
    return f"{count} parameter{'' if count == 1 else 's'}"
