"""The eager back end: takes every parameter that torch has operations for."""

from collections.abc import Sequence

from thalweg.engine.backends.base import Subject, Unit
from thalweg.engine.backends.eager.differentiable import DifferentiableUnit
from thalweg.engine.backends.eager.rows import EagerRowsUnit
from thalweg.engine.backends.eager.unit import EagerUnit
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import Slot
from thalweg.rule import Program


class EagerBackend:
    """Updates one parameter after the other: of any device, type and layout, and under autograd."""

    name = "eager"
    reason = "asked for"

    def obstacle(self, subject: Subject) -> str | None:
        """Nothing stands in the way: torch itself raises where it has no operation."""
        return None

    def units(
        self, program: Program, slots: Sequence[Slot], scalars: ScalarStates
    ) -> Sequence[Unit]:
        """One unit; autograd sees through it where ``differentiable`` is set."""
        kind = slots[0].kind
        assert kind is not None
        if slots[0].group.get("differentiable"):
            return [DifferentiableUnit(program, slots, scalars)]
        if kind.rows:
            return [EagerRowsUnit(program, slots, scalars)]
        return [EagerUnit(program, slots, scalars)]
