"""Running the stages of several units, and the sums over all tensors that they have in common.

Each unit's program has its own stages. A sum over all tensors is put together from the parts of all
units whose program asks for it; a program asks for the same sum as another if it is the same call
in the rule that does (see :meth:`thalweg.rule.symbols.Graph.reduce`). So units of groups with other
switches may compute their parts in other stages and from other expressions, beside sums of which
the others know nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from thalweg.engine.backends.base import Unit, Values
from thalweg.engine.reduced import all_counts
from thalweg.engine.slots import Slot
from thalweg.rule import Program
from thalweg.rule.symbols import Place, Symbol

Sums = Mapping[Symbol, Values]


class VetoedError(Exception):
    """A step was left out: a sum over all tensors is not 0 that has to be (``rule.veto``).

    Attributes:
        parts: the parameters' parts of it that are not 0.
    """

    def __init__(self, parts: Sequence[tuple[Slot, float]]) -> None:
        super().__init__(f"{len(parts)} parameters veto the step")
        self.parts = parts


def run_stages(units: Sequence[Unit], done: Callable[[Unit, Sums], Any]) -> None:
    """Run all stages of all units, each as soon as the sums are known that it depends on.

    Args:
        units: those with something to do.
        done: called with each unit and all its sums when its last stage has run.

    Raises:
        VetoedError: a sum vetoes the step. No unit's last stage, which stores, has run then.
        RuntimeError: two programs each need a sum over all tensors of which the other computes its
            part only later.
    """
    waiting = [unit for unit in units if len(unit.program.stages) > 1]
    for unit in units:
        if len(unit.program.stages) == 1:
            found = unit.run(0, {})
            done(unit, dict(zip(unit.program.stages[0].reductions, found, strict=True)))
    totals = _Totals(waiting)
    stage_of = dict.fromkeys(waiting, 0)
    known: dict[Unit, dict[Symbol, Values]] = {unit: {} for unit in waiting}
    own: dict[Unit, dict[Symbol, Values]] = {unit: {} for unit in waiting}
    while waiting:
        ready = [unit for unit in waiting if totals.complete(unit.program, stage_of[unit])]
        if not ready:
            raise RuntimeError(
                f"{waiting[0].program.name}: the programs of two parameter groups need sums over "
                "all tensors in opposite orders, so that neither can be computed first; ask for "
                "them in the same order"
            )
        for unit in ready:
            stage = stage_of[unit]
            totals.tell(unit, stage, known[unit])
            if stage == len(unit.program.stages) - 1:
                _check_vetoes(unit, known[unit], own)
            reductions = unit.program.stages[stage].reductions
            for node, values in zip(reductions, unit.run(stage, known[unit]), strict=True):
                known[unit][node] = own[unit][node] = values
                if node.place is not None:
                    totals.add(node.place, values)
            stage_of[unit] += 1
            if stage_of[unit] == len(unit.program.stages):
                waiting.remove(unit)
                done(unit, own[unit])


def _check_vetoes(
    unit: Unit, known: Mapping[Symbol, Values], own: Mapping[Unit, Mapping[Symbol, Values]]
) -> None:
    """Raise VetoedError where a total that a unit knows is not 0; it may wait for the device."""
    for node in unit.program.vetoes:
        if float(known[node]) == 0:
            continue
        parts: list[tuple[Slot, float]] = []
        for other, sums in own.items():
            for same in (each for each in sums if each.place == node.place):
                parts += zip(other.slots, map(float, sums[same]), strict=True)
        raise VetoedError([(slot, part) for slot, part in parts if part != 0])


class _Totals:
    """The sums over all tensors of one step."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._missing: dict[Place, int] = defaultdict(int)
        self._parts: dict[Place, list[Values]] = defaultdict(list)
        self._elements: dict[Place, int] = defaultdict(int)
        for unit in units:
            for node in _sums_before(unit.program, len(unit.program.stages)):
                assert node.place is not None
                self._missing[node.place] += 1
                self._elements[node.place] += unit.elements()

    def add(self, place: Place, values: Values) -> None:
        """Take a unit's part of a sum: its values for each tensor."""
        self._parts[place].append(values)
        self._missing[place] -= 1

    def complete(self, program: Program, stage: int) -> bool:
        """Whether all sums are known that a stage may depend on."""
        return all(not self._missing[node.place or ()] for node in _sums_before(program, stage))

    def tell(self, unit: Unit, stage: int, known: dict[Symbol, Values]) -> None:
        """Let a unit know the totals, and how many elements they are of, where it runs."""
        for node in _sums_before(unit.program, stage):
            assert node.place is not None
            known[node] = _total(self._parts[node.place], unit)
        for node in all_counts(unit.program, stage):
            assert node.place is not None
            known[node] = float(self._elements[node.place])


def _sums_before(program: Program, stage: int) -> list[Symbol]:
    """The sums over all tensors that the stages before one compute."""
    return [r for s in program.stages[:stage] for r in s.reductions if r.detail == "all"]


def _total(parts: Sequence[Values], unit: Unit) -> Values:
    """All parts added up, in their order, as the unit takes it: a float or a 0-d tensor."""
    if unit.takes_floats:
        sums = (p.detach().sum() if isinstance(p, torch.Tensor) else p.sum() for p in parts)
        return float(np.sum([float(x) for x in sums]))
    total: Any = None
    for part in parts:
        own = part if isinstance(part, torch.Tensor) else torch.as_tensor(part, device="cpu")
        own = own.sum().to(unit.device)
        total = own if total is None else total + own
    return total
