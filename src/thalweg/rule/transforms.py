"""Transforms: functions from rule to rule, with the states, options and ranges that they bring.

>>> from thalweg.rule import Rule, Transform, transformed
>>> def scaled(update):
...     def rule(p, g, s, h):
...         return update(p, h.scale * g, s, h)
...     return rule
>>> scale = Transform(scaled, options={"scale": 2.0})
>>> rule = transformed(Rule(lambda p, g, s, h: p - h.lr * g, name="sgd"), [scale])
>>> rule.update(1.0, 0.5, None, type("h", (), {"lr": 0.1, "scale": 2.0}))
0.9

A transformed rule is still one rule, traced and compiled as one kernel. A switch that a transform
reads from ``h`` is an ordinary ``if``: a transform without effect leaves no trace in the kernel.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from thalweg.forks import in_child
from thalweg.ranges import Ranges
from thalweg.rule.rule import RESERVED, Initial, Rule, State, Update, declared

_one_at_a_time = threading.RLock()


@in_child
def _renew_lock() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class Transform:
    """A function from rule to rule, with what it brings to an optimizer.

    Args:
        wrap: takes ``update(p, g, s, h)`` and returns another such function, which calls it.
            Defined at the top of a module, it can be pickled, and equal transforms of one rule
            share their kernels.
        states: each state's name and :class:`State`, or its initial value.
        options: the options that ``h`` then has, with their defaults. They stand in the parameter
            groups like the optimizer's own.
        ranges: what the numeric options may be. An option whose default is True or False is
            checked to be one.
        name: for messages; the name of ``wrap`` by default.
        check: raises for options that are wrong together, or in another way than by their range;
            called with the optimizer's name and a group's options.
        every_row: it changes elements whatever their gradient is, so that no row can be left out
            where a sparse gradient holds none: True, False, or the name of the option that makes
            it so where it is not 0.
        innermost: it stands directly around the rule, inside of all that are not: it sees the
            rule's own update, without the optimizer's weight decay.

    Raises:
        TypeError: ``wrap`` is not a function.
        ValueError: a state of a name that every rule has; a range of no option.
    """

    wrap: Callable[[Update], Update]
    states: Mapping[str, State | Initial] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    ranges: Ranges = field(default_factory=dict)
    name: str = ""
    check: Callable[[str, Mapping[str, Any]], None] | None = None
    every_row: bool | str = False
    innermost: bool = False
    # What of it is in a transformed rule; the values of options are not.
    effect: tuple[Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not callable(self.wrap):
            raise TypeError(
                f"Transform: wrap must be a function from update to update, got {self.wrap!r:.200}"
            )
        change = object.__setattr__  # once, before anybody has seen it
        change(self, "name", self.name or str(getattr(self.wrap, "__name__", "transform")))
        change(self, "options", dict(self.options))
        change(self, "ranges", dict(self.ranges))
        change(self, "states", dict(self.states))
        for state in self.states:
            if state in RESERVED:
                raise ValueError(
                    f"{self.name}: every rule has `{state}` already; call the state something else"
                )
        effect = self.wrap, tuple(declared(self.states).items()), self.every_row is True
        change(self, "effect", effect)
        for option in self.ranges:
            if option not in self.options:
                raise ValueError(
                    f"{self.name}: there is a range for {option!r}, which is none of its options "
                    f"({', '.join(self.options) or 'it has none'}); add it to options"
                )

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={v!r}' for key, v in self.options.items())})"

    def changes_every_row(self, options: Mapping[str, Any]) -> bool:
        """Whether it changes every element with these options, whatever the gradient."""
        if isinstance(self.every_row, str):
            return bool(options.get(self.every_row))
        return self.every_row


def checked_transforms(owner: str, transforms: Any) -> tuple[Transform, ...]:
    """The transforms as a tuple; raises ``TypeError`` for anything else."""
    if isinstance(transforms, (Transform, str, Mapping)) or not isinstance(transforms, Iterable):
        one = f"; write [{transforms!r}]" if isinstance(transforms, Transform) else ""
        raise TypeError(
            f"{owner}: transforms must be a list of transforms, got {transforms!r:.200}{one}"
        )
    found = tuple(transforms)
    for k, each in enumerate(found):
        if not isinstance(each, Transform):
            name = getattr(each, "__name__", "")
            call = f"; call it: {name}(...)" if callable(each) and name else ""
            raise TypeError(
                f"{owner}: transforms[{k}] must be a Transform, got {each!r:.200}{call}. There are "
                "those of thalweg.transforms, and your own, Transform(wrap, ...)"
            )
    return found


def transformed(rule: Rule, transforms: Iterable[Transform]) -> Rule:
    """The rule with transforms around it, in their order: each wraps what stands before it.

    So the last sees the new ``p`` last, and ``g`` first; those that are ``innermost`` stand before
    all others. Asked for again, it is the same rule, with the programs traced so far, whatever the
    defaults of the options.

    Args:
        rule: the rule.
        transforms: may be none.

    Raises:
        TypeError: something among them is no :class:`Transform`.
        ValueError: a transform has a state of a name that the rule or another transform has.
    """
    found = sorted(checked_transforms(rule.name, transforms), key=lambda each: not each.innermost)
    if not found:
        return rule
    key = tuple(each.effect for each in found)
    with _one_at_a_time:
        result = rule._transformed.get(key)
        if result is None:
            result = rule._transformed[key] = _transformed(rule, found)
    return result


def _transformed(rule: Rule, transforms: Iterable[Transform]) -> Rule:
    update, states, every_row = rule.update, dict(rule.states), rule.every_row
    owners = dict.fromkeys(states, f"the rule {rule.name}")
    for each in transforms:
        for state in each.states:
            if state in owners:
                raise ValueError(
                    f"{rule.name}: the transform {each.name} needs the state {state!r} for itself, "
                    f"which {owners[state]} has already; rename one of them, or leave one out"
                )
            owners[state] = f"the transform {each.name}"
        update = each.wrap(update)
        states |= declared(each.states)
        every_row = every_row or each.every_row is True
    return Rule(update, states, counted=rule.counted, every_row=every_row, name=rule.name)
