"""Parameters updated together, by torch's functions on lists of tensors."""

from collections.abc import Sequence
from typing import Any

import torch

from thalweg.engine.backends.base import Known
from thalweg.engine.backends.foreach.pieces import cut, portions
from thalweg.engine.backends.foreach.printer import compiled
from thalweg.engine.backends.lowering import variables
from thalweg.engine.backends.lowering.operands import real_parts
from thalweg.engine.backends.lowering.unit import Case, LoweredUnit
from thalweg.engine.modes import with_gradients
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import Slot
from thalweg.rule import Program


class ForeachUnit(LoweredUnit):
    """Parameters updated in place, those with the same constants by the same calls.

    Args:
        program, slots, scalars: see :class:`Unit`.
        temporary_bytes: the memory for temporaries.
    """

    def __init__(
        self, program: Program, slots: Sequence[Slot], scalars: ScalarStates, temporary_bytes: int
    ) -> None:
        super().__init__(program, slots, scalars)
        self._temporary_bytes = temporary_bytes

    @with_gradients(False)
    def run(self, stage: int, known: Known) -> Sequence[Any]:
        """Run one stage; nothing waits for the device."""
        reductions = self.program.stages[stage].reductions
        found: list[list[Any]] = [[None] * len(self.slots) for _ in reductions]
        for case in self.cases(stage):
            names = variables(case.lowered)
            reduced = self.reduced(stage, case, known)
            at = {place: k for k, place in enumerate(case.places)}
            most = self._most_numbers(case)
            for places in portions(case.places, self.numbers, most):
                lists = [self._list(name, places, at, reduced) for name in names]
                if self.numbers[places[0]] > most:
                    sums = self._run_in_pieces(case, names, lists, most, len(reductions))
                else:
                    sums = self._run_lists(case, lists, len(reductions))
                for values, own in zip(found, sums, strict=True):
                    for place, value in zip(places, own, strict=True):
                        values[place] = value
        return self.totals(stage, found)

    def _most_numbers(self, case: Case) -> int:
        """How many numbers may be updated at once, for temporaries to stay within their limit."""
        # A sparse gradient is made dense first, a complex one may have to be conjugated.
        copied = self.sparse or self._kind.dtype.is_complex
        temporaries = case.lowered.temporaries + copied
        if not temporaries or self.program.sliced:  # of a piece the units would be others
            return sum(self.numbers)
        return max(1, self._temporary_bytes // (temporaries * self.compute.itemsize))

    def _run_lists(self, case: Case, lists: Sequence[Any], reductions: int) -> list[list[Any]]:
        sums: list[list[Any]] = [[] for _ in range(reductions)]
        run = compiled(case.lowered, self.kinds)
        run(*lists, case.scalars, sums)
        return sums

    def _run_in_pieces(
        self,
        case: Case,
        names: Sequence[str],
        lists: Sequence[Any],
        most: int,
        reductions: int,
    ) -> list[list[Any]]:
        """One large parameter, a piece after the other."""
        wide = [k for k, name in enumerate(names) if not name.startswith("r")]
        parts: list[list[Any]] = [[] for _ in range(reductions)]
        for piece in cut([lists[k][0] for k in wide], most):
            arguments = list(lists)
            for k, tensor in zip(wide, piece, strict=True):
                arguments[k] = [tensor]
            for own, new in zip(parts, self._run_lists(case, arguments, reductions), strict=True):
                own += new
        return [[torch.stack(own).sum()] for own in parts]

    def _list(
        self, variable: str, places: Sequence[int], at: dict[int, int], reduced: Sequence[Any]
    ) -> Any:
        """What a variable holds for these places: a list, or one tensor for all of them."""
        if variable.startswith("r"):
            values = reduced[int(variable[1:])]
            return [values[at[place]] for place in places] if isinstance(values, list) else values
        operand = variable.partition("_")[2]
        column: Any = self.gradients if operand == "g" else self.columns[operand]
        if len(places) < len(column):
            column = [column[place] for place in places]
        if operand == "g" and self.sparse:
            column = [gradient.to_dense() for gradient in column]
        return [real_parts(x) for x in column] if column[0].is_complex() else column
