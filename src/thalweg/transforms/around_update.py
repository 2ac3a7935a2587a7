"""Transforms of what a rule adds to the parameter."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from thalweg.rule import Update
from thalweg.rule.update import followed, update_of


@dataclass(frozen=True)
class AroundUpdate:
    """A transform's function from update to update, given by what becomes of the rule's own.

    A class, not a closure: it can be pickled, and two of the same content are equal, so that their
    transformed rules share kernels.

    Attributes:
        option: the transform has no effect, and leaves no trace, where this option is 0 or False.
        changed: ``changed(p, u, g, s, h)``, the new p, where the rule would make it p + u.
    """

    option: str
    changed: Callable[[Any, Any, Any, Any, Any], Any]

    def __call__(self, update: Update) -> Update:
        @wraps(update)
        def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
            if not getattr(h, self.option):
                return update(p, g, s, h)
            p = followed(p)
            return self.changed(p, update_of(update(p, g, s, h), p), g, s, h)

        return rule
