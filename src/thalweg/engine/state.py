"""The optimizer's ``state``: ordinary dicts that tell the engine what others did with them.

The engine keeps the addresses of state tensors. A user may replace one
(``optimizer.state[p]["exp_avg"] = x``), drop one, or load a checkpoint; comparing all entries at
each step would cost more than the step. So each dict counts its changes, and the engine looks again
when the count moved. A tensor that was read from a dict may be written, resized or moved from then
on, without a trace in the dict: the engine asks such states at each step where they are. Copies and
pickles are plain dicts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class Access:
    """What others did with the dicts of one optimizer.

    Attributes:
        changes: how often an entry was replaced, added or removed.
        exposed: whether an entry was read.
    """

    def __init__(self) -> None:
        self.changes = 0
        self.exposed = False


def _changing(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.access.changes += 1
        self.access.exposed = True  # whoever gives or takes a tensor has it
        return method(self, *args, **kwargs)

    call.__name__ = method.__name__
    call.__doc__ = method.__doc__
    return call


def _exposing(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.access.exposed = True
        return method(self, *args, **kwargs)

    call.__name__ = method.__name__
    call.__doc__ = method.__doc__
    return call


class ParameterState(dict[str, Any]):
    """The states of one parameter by name."""

    def __init__(self, access: Access, items: dict[str, Any] | None = None) -> None:
        super().__init__(items or {})
        self.access = access

    __setitem__ = _changing(dict.__setitem__)
    __delitem__ = _changing(dict.__delitem__)
    __ior__ = _changing(dict.__ior__)
    clear = _changing(dict.clear)
    pop = _changing(dict.pop)
    popitem = _changing(dict.popitem)
    setdefault = _changing(dict.setdefault)
    update = _changing(dict.update)

    __getitem__ = _exposing(dict.__getitem__)
    get = _exposing(dict.get)
    values = _exposing(dict.values)
    items = _exposing(dict.items)
    copy = _exposing(dict.copy)
    __or__ = _exposing(dict.__or__)
    __ror__ = _exposing(dict.__ror__)
    __eq__ = _exposing(dict.__eq__)
    __ne__ = _exposing(dict.__ne__)
    __hash__ = None

    def __iter__(self) -> Iterator[str]:
        # Without a method of its own, dict(self) would copy the entries without asking for them.
        return super().__iter__()

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def peek(self, name: str) -> Any:
        """Read an entry, None if there is none, without handing it out: for the engine itself."""
        return super().get(name)

    def snapshot(self) -> dict[str, Any]:
        """A copy of the entries that does not count as handing them out."""
        return dict(super().items())

    def restore(self, entries: dict[str, Any]) -> None:
        """Let the entries be those of a snapshot."""
        super().clear()
        super().update(entries)

    def put(self, name: str, value: Any) -> None:
        """Set an entry without counting it: for the engine itself."""
        super().__setitem__(name, value)


class OptimizerState(defaultdict[Any, Any]):
    """The state of every parameter; a missing one is created empty, as torch does."""

    def __init__(self, items: dict[Any, Any] | None = None) -> None:
        super().__init__(dict)
        self.access = Access()
        for key, value in (items or {}).items():
            self[key] = value

    def __missing__(self, key: Any) -> ParameterState:
        value = ParameterState(self.access)
        super().__setitem__(key, value)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        self.access.changes += 1
        self.access.exposed = True
        if type(value) in (dict, ParameterState):
            value = ParameterState(self.access, value)
        super().__setitem__(key, value)

    __delitem__ = _changing(defaultdict.__delitem__)
    clear = _changing(defaultdict.clear)
    pop = _changing(defaultdict.pop)
    popitem = _changing(defaultdict.popitem)

    def discard(self, key: Any) -> None:
        """Remove a parameter's states without counting it: for the engine itself."""
        super().pop(key, None)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def copy(self) -> Any:
        return defaultdict(dict, self)

    __copy__ = copy

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __reduce__(self) -> Any:
        return defaultdict, (dict, dict(self))


class FormerEntries:
    """What a plan found of parameters' states, so that those it creates can be taken away again.

    Attributes:
        entries: of each parameter, by its id: the parameter and a copy of its entry, None if it had
            none. Empty once all of them are updated.
    """

    def __init__(self) -> None:
        self.entries: dict[int, tuple[Any, dict[str, Any] | None]] = {}

    def note(self, state: OptimizerState, param: Any) -> None:
        """Remember a parameter's entry as it is now."""
        entry = state.get(param)
        self.entries[id(param)] = param, None if entry is None else entry.snapshot()

    def forget_unchanged(self, state: OptimizerState) -> None:
        """Nothing was created for these: what their owner does to them later stays done."""
        for key, (param, before) in list(self.entries.items()):
            entry = state.get(param)
            if entry is not None and before is not None and entry.keys() == before.keys():
                del self.entries[key]

    def forget(self, params: Iterable[Any]) -> None:
        """These are updated: what was created for them is in use."""
        for param in params:
            self.entries.pop(id(param), None)

    def put_back(self, state: OptimizerState) -> None:
        """Let the entries of all others hold what they did when they were noted."""
        for param, before in self.entries.values():
            entry = state.get(param)
            if entry is None or (before is not None and entry.keys() == before.keys()):
                continue
            state.access.changes += 1
            if before is None:
                state.discard(param)
            else:
                entry.restore(before)
        self.entries.clear()
