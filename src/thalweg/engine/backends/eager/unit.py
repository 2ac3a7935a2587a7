"""Parameters updated one after the other, by torch's operations."""

from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint
from typing import Any

import torch

from thalweg.engine.backends.base import Known
from thalweg.engine.backends.eager.printer import compiled
from thalweg.engine.backends.lowering import variables
from thalweg.engine.backends.lowering.operands import Encoded, real_parts
from thalweg.engine.backends.lowering.unit import Case, LoweredUnit
from thalweg.engine.formats import salt, seeds_of
from thalweg.engine.modes import with_gradients


class EagerUnit(LoweredUnit):
    """Parameters updated in place, one after the other."""

    @with_gradients(False)
    def run(self, stage: int, known: Known) -> Sequence[Any]:
        """Run one stage. If the last one raises, the parameters that are updated are counted."""
        reductions = self.program.stages[stage].reductions
        found: list[list[Any]] = [[None] * len(self.slots) for _ in reductions]
        done: list[int] = []
        self.updated = ()
        for case in self.cases(stage):
            places = iter(case.places)
            sums: list[list[Any]] = [[] for _ in reductions]
            run = compiled(case.lowered, self.kinds)
            try:
                run(self._tensors(stage, case, known, places), case.scalars, sums)
            except BaseException:
                if stage == len(self.program.stages) - 1:
                    begun = len(case.places) - length_hint(places)
                    self._finish_only([*done, *case.places[: max(begun - 1, 0)]])
                raise
            done += case.places
            for values, own in zip(found, sums, strict=True):
                for place, value in zip(case.places, own, strict=True):
                    values[place] = value
        return self.totals(stage, found)

    def _finish_only(self, done: Sequence[int]) -> None:
        self.absent = sorted({*range(len(self.slots))}.difference(done))
        self.updated = done
        self.finish()

    def _tensors(
        self, stage: int, case: Case, known: Known, places: Iterator[int]
    ) -> Iterable[tuple[Any, ...]]:
        """The place of each parameter of a case, and what the printed function's variables hold."""
        reduced = self.reduced(stage, case, known)
        columns = [self._column(name, case, reduced) for name in variables(case.lowered)]
        return zip(places, *columns, strict=True)

    def _column(self, variable: str, case: Case, reduced: Sequence[Any]) -> Iterable[Any]:
        """The tensors of one variable for the parameters of a case."""
        if variable.startswith("r"):
            values = reduced[int(variable[1:])]
            return values if isinstance(values, list) else [values] * len(case.places)
        kind, _, operand = variable.partition("_")
        if operand in self.encoded:
            return self._encoded(operand, case.places)
        column: Sequence[Any] = self.gradients if operand == "g" else self.columns[operand]
        if len(case.places) < len(column):
            column = [column[place] for place in case.places]
        if operand == "g" and self.sparse:
            return map(_dense_numbers, column)  # each when it is needed
        if kind == "x" and column[0].is_complex():
            return map(real_parts, column)
        return column

    def _encoded(self, operand: str, places: Sequence[int]) -> list[Encoded]:
        form = self.slots[0].formats[operand]
        slots = [self.slots[place] for place in places]
        seeds = [0] * len(slots)
        if form.seeded:
            steps = self.constants.steps()
            own = seeds_of(slots, [steps[place] for place in places])
            seeds = [int(seed) ^ salt(operand) for seed in own]
        buffers = (slot.buffers(operand) for slot in slots)
        return [Encoded(form, b, seed) for b, seed in zip(buffers, seeds, strict=True)]


def _dense_numbers(gradient: torch.Tensor) -> torch.Tensor:
    return real_parts(gradient.to_dense())
