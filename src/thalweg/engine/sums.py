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
from thalweg.engine.reduced import counts_of_several
from thalweg.engine.slots import Slot
from thalweg.rule import Program
from thalweg.rule.symbols import SEVERAL, Place, Symbol

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
    summing = [unit for unit in units if any(s.reductions for s in unit.program.stages)]
    for unit in units:
        if unit not in summing:
            unit.run(0, {})
            done(unit, {})
    waiting, totals = list(summing), _Totals(summing)
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
                    totals.add(unit, node, values)
            stage_of[unit] += 1
            if stage_of[unit] == len(unit.program.stages):
                waiting.remove(unit)
                done(unit, own[unit])
    for unit in summing:
        if unit.program.fed:
            totals.tell(unit, len(unit.program.stages), known[unit])
            unit.feed(known[unit])


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
    """The sums over several tensors of one step, by place; of groups also by the group's id.

    A sum over all tensors has one total, under the id 0.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        self._missing: dict[Place, int] = defaultdict(int)
        self._parts: dict[tuple[Place, int], list[Values]] = defaultdict(list)
        self._elements: dict[tuple[Place, int], int] = defaultdict(int)
        self._units = units
        for unit in units:
            for node in _sums_before(unit.program, len(unit.program.stages)):
                assert node.place is not None
                self._missing[node.place] += 1

    def _count_elements(self) -> None:
        for unit in self._units:
            elements = unit.elements()
            for node in _sums_before(unit.program, len(unit.program.stages)):
                for group, own in _segments(unit, node):
                    self._elements[node.place or (), group] += sum(elements[own])

    def add(self, unit: Unit, node: Symbol, values: Values) -> None:
        """Take a unit's part of a sum: its values for each tensor."""
        assert node.place is not None
        for group, own in _segments(unit, node):
            self._parts[node.place, group].append(_part(values, own))
        self._missing[node.place] -= 1

    def complete(self, program: Program, stage: int) -> bool:
        """Whether all sums are known that a stage may depend on."""
        return all(not self._missing[node.place or ()] for node in _sums_before(program, stage))

    def tell(self, unit: Unit, stage: int, known: dict[Symbol, Values]) -> None:
        """Let a unit know the totals, and how many elements they are of, where it runs.

        Of sums over groups that is a value for each of its tensors.
        """
        for node in _sums_before(unit.program, stage):
            segments = _segments(unit, node)
            totals = [_total(self._parts[node.place or (), group], unit) for group, _ in segments]
            known[node] = _for_each(totals, segments, unit) if node.detail == "group" else totals[0]
        wanted = counts_of_several(unit.program, stage)
        if wanted and not self._elements:
            self._count_elements()
        for node in wanted:
            segments = _segments(unit, node)
            counts = [float(self._elements[node.place or (), group]) for group, _ in segments]
            whole = node.detail == "all"
            known[node] = counts[0] if whole else _for_each(counts, segments, unit)


def _segments(unit: Unit, node: Symbol) -> list[tuple[int, slice]]:
    """The ids of the groups that a sum is over, and where their slots are; they are in order."""
    if node.detail == "all":
        return [(0, slice(None))]
    found: list[tuple[int, slice]] = []
    for k, slot in enumerate(unit.slots):
        if not found or found[-1][0] != id(slot.group):
            found.append((id(slot.group), slice(k, k)))
        found[-1] = (found[-1][0], slice(found[-1][1].start, k + 1))
    return found


def _part(values: Values, own: slice) -> Values:
    if own == slice(None):
        return values
    if isinstance(values, torch.Tensor):
        return values.narrow(0, own.start, own.stop - own.start)
    return values[own]


def _for_each(values: Sequence[Any], segments: Sequence[tuple[int, slice]], unit: Unit) -> Values:
    """A value for each slot, from one for each group."""
    sizes = [own.stop - own.start for _, own in segments]
    if unit.takes_floats:
        return np.repeat(np.asarray(values, dtype=np.float64), sizes)
    wide = torch.float32 if unit.device.type == "mps" else torch.float64
    tensors = [torch.as_tensor(x, dtype=wide, device=unit.device) for x in values]
    return torch.cat([x.expand(n) for x, n in zip(tensors, sizes, strict=True)])


def _sums_before(program: Program, stage: int) -> list[Symbol]:
    """The sums over several tensors that the stages before one compute."""
    return [r for s in program.stages[:stage] for r in s.reductions if r.detail in SEVERAL]


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
