"""Names: what is said of one that is not known, and which stand there twice."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A hint to the known name that is most like it, in any case; empty if none is.

    Args:
        name: what was asked for.
        known: what there is.
        cutoff: how alike they must be, from 0 (not at all) to 1 (equal).

    >>> nearest("Lr_", ["lr", "betas"])
    '; did you mean lr?'
    >>> nearest("momentum", ["lr", "betas"])
    ''
    """
    by_small = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_small, n=1, cutoff=cutoff)
    return f"; did you mean {by_small[near[0]]}?" if near else ""


def slip(name: str, known: Iterable[str]) -> str | None:
    """The known name that becomes this one by one letter added, left out, changed or exchanged.

    >>> slip("weigth_decay", ["lr", "weight_decay"])
    'weight_decay'
    >>> slip("lr_decay", ["lr", "weight_decay"])
    """
    return next((each for each in known if name != each and _one_letter_apart(name, each)), None)


def _one_letter_apart(a: str, b: str) -> bool:
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    if start is None:
        return abs(len(a) - len(b)) == 1
    x, y = a[start:], b[start:]
    exchanged = x[:2] == y[1::-1] and x[2:] == y[2:]
    return exchanged or x[1:] == y[1:] or x[1:] == y or x == y[1:]


def unknown(owner: str, what: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is none of those known.

    >>> unknown("race", "task", "digit", ["digits", "text"])
    ValueError("race: unknown task 'digit'; did you mean digits? There are: digits, text.")
    """
    names = list(known)
    hint = nearest(name, names) or "."
    return ValueError(f"{owner}: unknown {what} {name!r}{hint} There are: {', '.join(names)}.")


def repeated(names: Iterable[str]) -> list[str]:
    """The names that stand there more than once."""
    seen: set[str] = set()
    return list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
