"""The optimizer's ``state``: ordinary dicts that tell the engine when an entry was replaced.

The engine keeps the addresses of state tensors. A user may replace one
(``optimizer.state[p]["exp_avg"] = x``), drop one, or load a checkpoint; comparing all entries at
each step would cost more than the step. So each dict counts its changes, and the engine looks again
when the count moved. Copies and pickles are plain dicts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any


class Changes:
    """A count that all dicts of one optimizer share."""

    def __init__(self) -> None:
        self.count = 0


def _counting(method: Callable[..., Any]) -> Callable[..., Any]:
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.changes.count += 1
        return method(self, *args, **kwargs)

    counted.__name__ = method.__name__
    counted.__doc__ = method.__doc__
    return counted


class ParameterState(dict[str, Any]):
    """The states of one parameter by name."""

    def __init__(self, changes: Changes, items: dict[str, Any] | None = None) -> None:
        super().__init__(items or {})
        self.changes = changes

    __setitem__ = _counting(dict.__setitem__)
    __delitem__ = _counting(dict.__delitem__)
    __ior__ = _counting(dict.__ior__)
    clear = _counting(dict.clear)
    pop = _counting(dict.pop)
    popitem = _counting(dict.popitem)
    setdefault = _counting(dict.setdefault)
    update = _counting(dict.update)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def put(self, name: str, value: Any) -> None:
        """Set an entry without counting: for the engine itself."""
        super().__setitem__(name, value)


class OptimizerState(defaultdict[Any, Any]):
    """The state of every parameter; a missing one is created empty, as torch does."""

    def __init__(self, items: dict[Any, Any] | None = None) -> None:
        super().__init__(dict)
        self.changes = Changes()
        for key, value in (items or {}).items():
            self[key] = value

    def __missing__(self, key: Any) -> ParameterState:
        value = ParameterState(self.changes)
        super().__setitem__(key, value)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes.count += 1
        if type(value) in (dict, ParameterState):
            value = ParameterState(self.changes, value)
        super().__setitem__(key, value)

    __delitem__ = _counting(defaultdict.__delitem__)
    clear = _counting(defaultdict.clear)
    pop = _counting(defaultdict.pop)
    popitem = _counting(defaultdict.popitem)

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
        self.entries[id(param)] = param, None if entry is None else dict(entry)

    def forget(self, params: Iterable[Any]) -> None:
        """These are updated: what was created for them is in use."""
        for param in params:
            self.entries.pop(id(param), None)

    def put_back(self, state: OptimizerState) -> None:
        """Let the entries of all others hold what they did when they were noted."""
        for param, before in self.entries.values():
            if before is None:
                state.pop(param, None)
            elif (entry := state.get(param)) is not None and entry.keys() != before.keys():
                entry.clear()
                entry.update(before)
        self.entries.clear()
