"""What a library's state dicts look like, and how the states and options in them are taken over.

A library is a table of layouts, one for each optimizer that it shares with ``thalweg.optim``. A
layout says what is called what, what has no effect, and when the rule is another than ours; it is
data, so that each library's file can be read beside its documentation.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from thalweg.engine.readable import unreadable
from thalweg.names import printable

Options = Mapping[str, Any]
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """One parameter group as it was saved.

    Attributes:
        place: which one, for messages.
        options: all but ``params``; asking for one that is missing says so.
        params: the names or numbers of its parameters.
        entries: the states of each parameter that has some, under their names in the library, flat.
    """

    place: str
    options: Options
    params: tuple[Any, ...]
    entries: Mapping[Any, Entry]

    def decays(self) -> bool:
        return bool(self.options.get("weight_decay"))


class Named(dict[str, Any]):
    """Options whose absence is an error that a reader of the message can act on."""

    def __init__(self, options: Options, place: str) -> None:
        super().__init__(options)
        self.place = place

    def __missing__(self, key: str) -> Any:
        raise ValueError(
            f"{self.place} lacks the option {key!r}; it has "
            f"{printable(', '.join(map(str, self)))}. Is it "
            "another optimizer's?"
        )


# In place of a value that the saved options do not tell: the optimizer's own is kept.
ABSENT: Any = object()

# Why a group cannot be converted, or None.
Refusal = Callable[[Group], str | None]


@dataclass(frozen=True)
class Layout:
    """Where an optimizer of a library keeps what ours of the same rule keeps.

    Attributes:
        options: for each option of ours the value, from the options there.
        idle: options there that are none of ours and change nothing, or nothing unless a refusal
            says so.
        states: names there -> names here.
        unused: states there that the rule does without, in the groups for which it is true.
        debiased: names here of means that are kept divided by 1 - beta^step, and their beta.
        refusals: what is asked of a group before anything else.
    """

    options: Mapping[str, Callable[[Options], Any]]
    states: Mapping[str, str]
    idle: tuple[str, ...] = ()
    unused: Callable[[Group, str], bool] = lambda group, name: False
    debiased: Mapping[str, Callable[[Options], float]] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()


def _as_saved(entry: Entry, place: str) -> Entry:
    return entry


def _own_step(group: Group, entry: Entry) -> Any:
    return entry.get("step")


@dataclass(frozen=True)
class Library:
    """A library's layouts, by the name of our class.

    Attributes:
        name: as in ``source``.
        layouts: by the name of the class in ``thalweg.optim``.
        marked: whether a state dict, to be read as an optimizer of that name, shows marks of this
            library.
        flat: a parameter's states as one dict from those as saved; the second argument is the
            place, for messages.
        step: the number of updates that a parameter has had, if it is counted.
        refused: optimizers of the same name whose rule is another, and why.
    """

    name: str
    layouts: Mapping[str, Layout]
    marked: Callable[["Saved", str], bool]
    flat: Callable[[Entry, str], Entry] = _as_saved
    step: Callable[[Group, Entry], Any] = _own_step
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """A state dict of an optimizer, as far as all libraries agree on it."""

    whole: Mapping[str, Any]
    groups: tuple[Mapping[str, Any], ...]
    state: Mapping[Any, Any]

    @classmethod
    def checked(cls, state_dict: Any) -> "Saved":
        """Raises ``TypeError`` or ``ValueError`` for what is no optimizer's state dict."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"convert: a state dict must be a dict, got {type(state_dict).__name__}; pass what "
                "the library's optimizer.state_dict() gave"
            )
        for key, kind in (("state", Mapping), ("param_groups", (list, tuple))):
            if not isinstance(state_dict.get(key), kind):
                raise ValueError(
                    f"convert: the state dict has no {key!r}; it has "
                    f"{', '.join(map(repr, state_dict)) or 'nothing'}. Pass the state dict of the "
                    "optimizer itself, without what wraps it"
                )
        groups, state = state_dict["param_groups"], state_dict["state"]
        for k, group in enumerate(groups):
            if not isinstance(group, Mapping) or not isinstance(group.get("params"), (list, tuple)):
                raise ValueError(
                    f"convert: group {k} must be a dict that lists its 'params', got {group!r:.200}"
                )
        held = {key for group in groups for key in group["params"]}
        for key, entry in state.items():
            if key not in held:
                raise ValueError(
                    f"convert: the state dict has a state for {parameter(key)}, which no group "
                    "holds; only states of parameters can be converted"
                )
            if not isinstance(entry, Mapping):
                raise TypeError(
                    f"convert: the state of {parameter(key)} must be a dict, got "
                    f"{type(entry).__name__}"
                )
        return cls(state_dict, tuple(groups), state)

    def options(self) -> set[str]:
        """The names of all options in any group."""
        return {str(key) for group in self.groups for key in group} - {"params"}

    def states(self) -> set[Any]:
        """The names of all states of any parameter, as saved."""
        return {name for entry in self.state.values() for name in entry}


def parameter(key: Any) -> str:
    """A parameter's name in messages."""
    return repr(key) if isinstance(key, str) else f"parameter {key}"


def state_value(place: str, name: str, value: Any) -> torch.Tensor:
    """A state that is a tensor, as it is; raises ``ValueError`` for a quantized one."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(
            f"convert: {place}: the state {name!r} must be a tensor, got {type(value).__name__}"
        )
    if problem := unreadable(value):
        raise ValueError(f"convert: {place}: the state {name!r} must hold numbers; it {problem}")
    wrapped = type(value).__module__.split(".")[0] != "torch"
    wide = (value.is_floating_point() or value.is_complex()) and value.element_size() > 1
    if wrapped or not wide:
        kind = type(value).__name__ if wrapped else str(value.dtype)
        raise ValueError(
            f"convert: {place}: the state {name!r} is {kind}, a quantized or packed form, which is "
            "not read; convert float32 states"
        )
    return value


def one_number(place: str, name: str, value: Any) -> float:
    """A state that is one number, in a tensor or not."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"convert: {place}: the state {name!r} must be one number, got {value!r:.200}"
        ) from None


def count(place: str, value: Any) -> float:
    """A number of updates; raises ``ValueError`` for anything else."""
    steps = one_number(place, "step", value)
    if not (math.isfinite(steps) and steps >= 0 and steps == int(steps)):
        raise ValueError(
            f"convert: {place}: the state 'step' must be a number of updates, got {value!r}"
        )
    return steps


def same(*names: str) -> dict[str, Callable[[Options], Any]]:
    """Options that are called here what they are called there."""
    return {name: _option(name) for name in names}


def _option(name: str) -> Callable[[Options], Any]:
    return lambda options: options[name]


def always(**values: Any) -> dict[str, Callable[[Options], Any]]:
    """Options here that the rule there has without an option of its own."""
    return {name: _constant(value) for name, value in values.items()}


def _constant(value: Any) -> Callable[[Options], Any]:
    return lambda options: value


def unless_off(name: str, why: str) -> Refusal:
    """Refuse a group in which the option is set."""

    def refusal(group: Group) -> str | None:
        value = group.options.get(name)
        return f"{name}={value!r}: {why}" if value else None

    return refusal


def if_decayed(why: str) -> Refusal:
    """Refuse a group with weight decay."""
    return unless_off("weight_decay", why)
