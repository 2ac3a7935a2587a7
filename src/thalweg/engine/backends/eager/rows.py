"""The rows that a sparse gradient holds: gathered, updated like a parameter, and put back."""

from collections.abc import Iterable, Iterator
from typing import Any

from thalweg.engine.backends.base import Known
from thalweg.engine.backends.eager.unit import EagerUnit
from thalweg.engine.backends.lowering import variables
from thalweg.engine.backends.lowering.operands import real_parts
from thalweg.engine.backends.lowering.unit import Case
from thalweg.engine.reduced import counts_in


class EagerRowsUnit(EagerUnit):
    """Parameters with sparse gradients of which only the rows present are updated."""

    def look(self, exposed: bool) -> bool:
        """As for dense gradients; sums are over the rows present, so their size is theirs."""
        if not super().look(exposed):
            return False
        self.gradients = [None if g is None else g.coalesce() for g in self.gradients]
        self._counts = None
        self.numbers = [0 if g is None else real_parts(g.values()).numel() for g in self.gradients]
        return True

    def counts_of(self, place: int) -> dict[str, float]:
        """Units are those that the rows hold."""
        gradient = self.gradients[place]
        assert gradient is not None
        present = counts_in(gradient.values().shape, self.numbers[place])
        return super().counts_of(place) | {"unit": present["unit"]}

    def _tensors(
        self, stage: int, case: Case, known: Known, places: Iterator[int]
    ) -> Iterable[tuple[Any, ...]]:
        reduced = self.reduced(stage, case, known)
        names = variables(case.lowered)
        written = [name for name, _ in self.program.stages[stage].stores if name != "g"]
        for number, place in enumerate(places):
            gradient = self.gradients[place]
            assert gradient is not None
            rows = tuple(gradient.indices())
            gathered = {name: column[place][rows] for name, column in self.columns.items()}
            gathered["g"] = gradient.values()

            def held(variable: str, number: int = number, gathered: Any = gathered) -> Any:
                kind, _, operand = variable.partition("_")
                if kind == "x":
                    return real_parts(gathered[operand])
                if kind == "at":
                    return gathered[operand]
                values = reduced[int(variable[1:])]
                return values[number] if isinstance(values, list) else values

            yield place, *map(held, names)
            for name in written:
                self.columns[name][place].index_put_(rows, gathered[name])
