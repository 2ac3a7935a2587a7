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
    return f"; did you mean {printable(by_small[near[0]])}?" if near else ""


def printable(text: str, keep: str = "") -> str:
    """A text with escapes in place of what cannot be printed: a terminal obeys some of that.

    Args:
        text: of a file, say.
        keep: what is left as it is, such as line ends.

    >>> printable("a\\x1b[2J"), printable("a\\nb", keep="\\n")
    ('a\\\\x1b[2J', 'a\\nb')
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text
    )


def slip_for(name: str, known: Iterable[str]) -> str | None:
    """The known name that this is one slip away from, in any case; None if there is none.

    A slip is one letter too many, missing or another, or two letters exchanged. A name of two
    letters is not what another of two was to be: ``l2`` is no slip for ``lr``.

    >>> slip_for("wieght_decay", ["lr", "weight_decay"]), slip_for("weights", ["weight_decay"])
    ('weight_decay', None)
    """
    return next((each for each in known if _is_slip(name.lower(), each.lower())), None)


def _is_slip(a: str, b: str) -> bool:
    if len(b) <= 2 and len(a) == len(b):
        return a in (b, b[::-1])
    for _ in range(2):  # what both begin with, and what they end with
        same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        same = min(len(a), len(b)) if same is None else same
        a, b = a[same:][::-1], b[same:][::-1]
    return max(len(a), len(b)) <= 1 or (len(a) == 2 and a == b[::-1])


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
