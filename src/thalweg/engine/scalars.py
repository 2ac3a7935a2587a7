"""The scalars of a step: scalar states of all parameters, and the constants made from them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from thalweg.engine.layout import PLAIN_TENSORS, Integers
from thalweg.engine.modes import with_real_tensors
from thalweg.engine.slots import Slot
from thalweg.engine.torch_internals import missing_memory
from thalweg.rule import Program, Rule
from thalweg.rule.program import number

Floats = npt.NDArray[np.float64]
Options = Mapping[str, Any]
Watch = Callable[[Sequence[torch.Tensor]], Callable[[], Integers]]
"""Takes float64 scalars; what it returns tells their addresses, 0 of one that is another now."""


class ScalarStates:
    """``step`` and the rule's other scalar states, in float64: a row for each parameter.

    ``optimizer.state[p]["step"]`` is a 0-d view of the tensor, so that what a user reads, saves or
    sets there is what the engine uses. Float64 counts on where float32 stands still, at 2^24.

    Args:
        rule: the rule.
        slots: the parameters.
        watch: how views are asked where they are; from Python, one by one, if None.
        given: the values of the rule's scalars that are given, where they are not as at first.

    Attributes:
        names: of the columns, ``step`` first.
        tensor, table: the same memory as a tensor and as an array, ``[parameters, names]``.
        cells: the same memory, flat.
        writes: how often values were set from outside of a step.
    """

    def __init__(
        self,
        rule: Rule,
        slots: Sequence[Slot],
        watch: "Watch | None" = None,
        given: Mapping[str, float] | None = None,
    ) -> None:
        self.rule = rule
        self._watch = watch or watched_one_by_one
        self._find: Callable[[], Integers] | None = None
        self.names = ("step", *rule.scalar_states)
        # Kept, as a view's ``share_memory_`` would free a tensor's own memory at once, while the
        # engine still has its address.
        self._kept = np.zeros((len(slots), len(self.names)))
        self.tensor = _tensor_of(self._kept)
        self._look_at_tensor()
        self.writes = 0
        self._views: dict[int, list[torch.Tensor]] = {}
        self._elsewhere: dict[tuple[int, int], torch.Tensor] = {}
        self._given = {
            name: (given or {}).get(name, rule.states[name].initial_value({}))
            for name in rule.scalar_states
            if rule.states[name].given
        }
        for name, value in self._given.items():
            self.give(name, value)

    def give(self, name: str, value: float) -> None:
        """Set a scalar that is the same for all parameters, and given for each step."""
        column = self.names.index(name)
        self._given[name] = value
        if (self.table[:, column] != value).any():
            self.table[:, column] = value
            self.writes += 1

    def begin(self, slot: Slot) -> None:
        """Set a parameter's row to the values before its first update."""
        initial = {
            name: self.rule.states[name].initial_value(slot.group) for name in self.names[1:]
        }
        self.table[slot.index] = [0.0, *(initial | self._given).values()]
        self.writes += 1

    def adopt(self, slot: Slot) -> None:
        """Take over the values in the parameter's state, and put views of the row in their place.

        A tensor in memory that processes share stays where it is: others count in it, too. So does
        one that autograd sees, in a group whose steps it is to see.
        """
        assert slot.state is not None
        views = self._views.get(slot.index)
        if views is None:
            views = self._renew(slot.index)
        counted = ("step",) if self.rule.counted else ()
        for name in (*counted, *self.rule.kept_scalars):
            column = self.names.index(name)
            entry = slot.state.peek(name)
            if entry is views[column]:
                continue
            if entry is not None:
                self.table[slot.index, column] = number(entry)
            elif name != "step" and len(slot.state):
                # Of a transform that was added after the parameter's first update.
                initial = self.rule.states[name].initial_value(slot.group)
                self.table[slot.index, column] = initial
            if _is_shared(entry) or is_seen(slot, entry):
                self._elsewhere[slot.index, column] = entry
                continue
            if (slot.index, column) in self._elsewhere:  # the view was moved away
                views = self._renew(slot.index)
                del self._elsewhere[slot.index, column]
            if entry is not None:
                slot.state.access.changes += 1  # it may be another engine's view
            slot.state.put(name, views[column])
        self.writes += 1

    def _renew(self, index: int) -> list[torch.Tensor]:
        self._find = None
        views = self._views[index] = _cells_of(self.tensor, index)
        return views

    def share_memory(self) -> None:
        """Move the values into shared memory."""
        self.tensor.share_memory_()  # type: ignore[no-untyped-call]
        self._look_at_tensor()

    def hold(self) -> None:
        """Look where the values are: whoever has a view may have moved it, or all of them."""
        if self.tensor.data_ptr() != self._address:
            self.writes += 1
            self._look_at_tensor()
        if self._find is None:
            self._cells = [(i, column) for i in self._views for column in range(len(self.names))]
            self._offsets = 8 * np.asarray([i * len(self.names) + k for i, k in self._cells])
            self._find = self._watch([view for views in self._views.values() for view in views])
        for place in np.flatnonzero(self._find() != self._address + self._offsets).tolist():
            index, column = self._cells[place]
            self._elsewhere.setdefault((index, column), self._views[index][column])
        for cell, tensor in self._elsewhere.items():
            value = number(tensor)
            if value != self.table[cell]:
                self.table[cell] = value
                self.writes += 1

    def hand_on(self, indices: Iterable[int]) -> None:
        """Let the tensors that lie elsewhere have the values of these parameters."""
        if self._elsewhere:
            wanted = set(indices)
            for cell, tensor in self._elsewhere.items():
                if cell[0] in wanted and not tensor.requires_grad:
                    tensor.detach().fill_(self.table[cell].item())

    def _look_at_tensor(self) -> None:
        self.table: Floats = self.tensor.numpy()
        self.cells: Any = self.table.reshape(-1).data
        # Last: an interrupt before that leaves all of it to be done again, and not to memory that
        # is another's by now.
        self._address = self.tensor.data_ptr()


def watched_one_by_one(views: Sequence[torch.Tensor]) -> Callable[[], Integers]:
    """See :data:`Watch`."""

    def find() -> Integers:
        places = [v.data_ptr() if v.dtype is torch.float64 else 0 for v in views]
        return np.asarray(places, dtype=np.int64)

    return find


@with_real_tensors
def _tensor_of(array: Floats) -> torch.Tensor:
    return torch.from_numpy(array)


@with_real_tensors
def _cells_of(tensor: torch.Tensor, index: int) -> list[torch.Tensor]:
    return list(tensor[index].unbind())


def is_seen(slot: Slot, entry: Any) -> bool:
    """Whether a scalar state is part of a graph that the parameter's steps are to continue."""
    wanted = bool(slot.group.get("differentiable"))
    return wanted and isinstance(entry, torch.Tensor) and entry.requires_grad


def _is_shared(entry: Any) -> bool:
    if type(entry) not in PLAIN_TENSORS or missing_memory(entry):
        return False
    return bool(entry.device.type == "cpu" and entry.is_shared())


class ConstantTable:
    """The values of a program's constants for some parameters: a row for each distinct case.

    A case is a group with values of ``step`` and the other scalar states; parameters of one case
    have the same constants. Cases advance together from step to step, so they are looked for anew
    only when values were set from outside or a parameter had no gradient.

    Attributes:
        values: ``[cases, constants]``, as computed by the program's prologue.
        case_of: the case of each slot.
    """

    def __init__(self, program: Program, slots: Sequence[Slot], states: ScalarStates) -> None:
        self._program = program
        self._states = states
        self._segments = _segments(slots)
        self._places = _places(slots)
        self._first = slots[0].index
        self._indices = [slot.index for slot in slots]
        self._columns = [states.names.index(name) for name, _ in program.scalar_outputs]
        self._fed_columns = [states.names.index(name) for name, _ in program.fed]
        self._fed: Sequence[Any] = ()
        self.case_of: Integers = np.zeros(len(slots), dtype=np.int64)
        self.values: Sequence[Sequence[float]] = ()
        self._options: list[Options] = []  # of each case
        self._cases: list[list[float]] = []
        self._next: list[list[float]] = []
        self._known_at = -1  # the count of outside writes at which the cases were found

    def prepare(self, exposed: bool = False) -> bool:
        """Compute the values for the next step; False if a switch is not as it was traced.

        Args:
            exposed: the states' tensors are in other hands, which may have written to them.
        """
        if exposed:
            self._states.hold()
        if exposed or self._known_at != self._states.writes:
            self._find_cases()
        scalars, columns = self._program.scalars, self._columns
        values, following = [], []
        for options, case in zip(self._options, self._cases, strict=True):
            after = [case[0] + 1.0, *case[1:]]
            found = scalars(options, after)
            if found is None:
                return False
            values.append(found[0])
            for column, value in zip(columns, found[1], strict=True):
                after[column] = float(value)
            following.append(after)
        self.values, self._next = values, following
        return True

    def feed(self, values: Sequence[Any]) -> None:
        """Take the values of the program's ``fed`` states: each a number, or one for each slot."""
        self._fed = values

    def finish(self, absent: Sequence[int] = ()) -> None:
        """Let the scalar states be those after the step, but for the absent slots' ones."""
        following, table = self._next, self._states.table
        if absent:
            self._stay_behind(absent)
            following = self._next
        if len(self.case_of) == 1:  # faster than NumPy for so few
            cells, begin = self._states.cells, self._first * len(following[0])
            for k, value in enumerate(following[0]):
                cells[begin + k] = value
        elif len(following) == 1:
            table[self._places] = following[0]
        else:
            table[self._places] = np.asarray(following)[self.case_of]
        self._cases = following
        if self._fed:
            self._store_fed(absent)
        self._states.hand_on(self._indices)

    def _store_fed(self, absent: Sequence[int]) -> None:
        """Store what was fed, from which the slots' cases come to differ."""
        present = np.setdiff1d(np.arange(len(self._indices)), np.asarray(absent, dtype=np.int64))
        rows = np.asarray(self._indices)[present]
        for column, value in zip(self._fed_columns, self._fed, strict=True):
            each = np.broadcast_to(value, (len(self._indices),))
            self._states.table[rows, column] = each[present]
        self._fed = ()
        self._states.writes += 1

    def steps(self) -> list[float]:
        """The number of this update of each slot."""
        steps = [case[0] for case in self._next]
        return [steps[case] for case in self.case_of.tolist()]

    def _stay_behind(self, absent: Sequence[int]) -> None:
        """Let slots keep the values that they have, which are another case now than the others'."""
        before, after = self._cases, self._next
        numbers = {
            (id(o), *a): n for n, (o, a) in enumerate(zip(self._options, after, strict=True))
        }
        case_of = self.case_of.tolist()
        for slot in absent:
            old = case_of[slot]
            options, case = self._options[old], before[old]
            number = numbers.setdefault((id(options), *case), len(after))
            if number == len(after):
                after.append(case)
                self._options.append(options)
            case_of[slot] = number
        used = dict.fromkeys(case_of)
        if len(used) < len(after):  # those that nobody is in any more
            place = {number: k for k, number in enumerate(used)}
            case_of = [place[number] for number in case_of]
            self._next = [after[number] for number in used]
            self._options = [self._options[number] for number in used]
        self.case_of[:] = case_of

    def _find_cases(self) -> None:
        rows = self._states.table[self._places]
        self._options, self._cases = [], []
        for options, start, stop in self._segments:
            block = rows[start:stop]
            if len(block) == 1 or (block == block[0]).all():
                distinct, case = block[:1], np.zeros(1, dtype=np.int64)
            else:
                distinct, case = _distinct(block)
            self.case_of[start:stop] = case + len(self._cases)
            self._options += [options] * len(distinct)
            self._cases += distinct.tolist()
        self._known_at = self._states.writes


def _distinct(rows: Floats) -> tuple[Floats, Integers]:
    """The distinct rows, and the number of each row among them.

    As ``np.unique`` with an axis, which takes several times as long, and makes a ``TypeError`` of a
    Ctrl-C that comes while it compares.
    """
    order = np.lexsort(rows.T)
    ordered = rows[order]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    case = np.empty(len(rows), dtype=np.int64)
    case[order] = np.cumsum(first) - 1
    return ordered[first], case


def _places(slots: Sequence[Slot]) -> Any:
    """The slots' rows: a slice (a view, no copy) where they follow each other."""
    indices = [s.index for s in slots]
    if indices == list(range(indices[0], indices[0] + len(indices))):
        return slice(indices[0], indices[-1] + 1)
    return np.asarray(indices)


def _segments(slots: Sequence[Slot]) -> list[tuple[Options, int, int]]:
    """(options, start, stop) of each run of slots of one group; slots come in group order."""
    found: list[tuple[Options, int, int]] = []
    for k, slot in enumerate(slots):
        if found and found[-1][0] is slot.group:
            options, start, _ = found[-1]
            found[-1] = (options, start, k + 1)
        else:
            found.append((slot.group, k, k + 1))
    return found
