"""The scalars of a step: scalar states of all parameters, and the constants made from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from thalweg.engine.layout import Integers
from thalweg.engine.slots import Slot
from thalweg.rule import Program, Rule

Floats = npt.NDArray[np.float64]

_FIRST: Integers = np.zeros(1, dtype=np.int64)


class ScalarStates:
    """``step`` and the rule's other scalar states of all parameters, one row each, in float64.

    ``optimizer.state[p]["step"]`` is a 0-d view of the tensor, so that what a user reads, saves or
    sets there is what the engine uses. Float64 counts on where float32 stands still, at 2^24.
    """

    def __init__(self, rule: Rule, slots: Sequence[Slot]) -> None:
        self.rule = rule
        self.names = ("step", *rule.scalar_states)
        self.tensor = torch.zeros(len(slots), len(self.names), dtype=torch.float64)
        self.rows: npt.NDArray[np.float64] = self.tensor.numpy()
        self._views: dict[int, list[torch.Tensor]] = {}

    def begin(self, slot: Slot) -> None:
        """Set a parameter's row to the values before its first update."""
        initial = [self.rule.states[name].initial_value(slot.group) for name in self.names[1:]]
        self.rows[slot.index] = [0.0, *initial]

    def adopt(self, slot: Slot) -> None:
        """Take over the values that its state holds, and put views of the row in their place."""
        assert slot.state is not None
        views = self._views.get(slot.index)
        if views is None:
            views = self._views[slot.index] = list(self.tensor[slot.index].unbind())
        shown = self.names if self.rule.counted else self.names[1:]
        for name in shown:
            column = self.names.index(name)
            entry = slot.state.get(name)
            if entry is not views[column]:
                if entry is not None:
                    self.rows[slot.index, column] = float(entry)
                slot.state.put(name, views[column])


class Scalars:
    """The scalars of one program for some parameters: one row of constants for each distinct case.

    Parameters of the same group with the same step and scalar states share a row.
    """

    def __init__(self, program: Program, slots: Sequence[Slot], states: ScalarStates) -> None:
        self._program = program
        self._states = states
        self._segments = _by_group(slots)
        self._indices = _indices(slots)
        self._columns = [states.names.index(name) for name, _ in program.scalar_outputs]
        self._one_step = np.eye(1, len(states.names))  # adds one to the count, which comes first
        self.rows: Integers = np.zeros(len(slots), dtype=np.int64)
        self.values: Floats = np.zeros((1, len(program.constants)))
        self._next: Floats = np.zeros((0, 0))

    def prepare(self) -> bool:
        """Evaluate the prologue for each row; False if a switch is no longer as it was traced."""
        program, columns = self._program, self._columns
        after = self._states.rows[self._indices] + self._one_step
        inputs = after.copy() if columns else after
        values: list[Sequence[float]] = []
        for options, start, stop in self._segments:
            block = inputs[start:stop]
            if len(block) == 1 or (block == block[0]).all():
                cases, case = block[:1], _FIRST
            else:
                cases, case = _distinct(block)
            self.rows[start:stop] = case + len(values)
            results = []
            for row in cases.tolist():
                found = program.scalars(options, row)
                if found is None:
                    return False
                values.append(found[0])
                results.append(found[1])
            if columns:
                after[start:stop, columns] = np.asarray(results)[case]
        self.values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
        self._next = after
        return True

    def finish(self) -> None:
        self._states.rows[self._indices] = self._next


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


def _indices(slots: Sequence[Slot]) -> Any:
    """The slots' rows: a slice (a view, no copy) where they follow each other."""
    indices = [s.index for s in slots]
    if indices == list(range(indices[0], indices[0] + len(indices))):
        return slice(indices[0], indices[-1] + 1)
    return np.asarray(indices)


def _by_group(slots: Sequence[Slot]) -> list[tuple[Mapping[str, Any], int, int]]:
    """(options, start, stop) of each run of slots of one group; slots come in group order."""
    segments: list[tuple[Mapping[str, Any], int, int]] = []
    for k, slot in enumerate(slots):
        if segments and segments[-1][0] is slot.group:
            options, start, _ = segments[-1]
            segments[-1] = (options, start, k + 1)
        else:
            segments.append((slot.group, k, k + 1))
    return segments
