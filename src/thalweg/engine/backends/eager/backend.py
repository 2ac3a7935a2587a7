"""The eager back end: takes every parameter that torch has operations for."""

from collections.abc import Sequence

from thalweg.engine.backends.base import Subject, Unit
from thalweg.engine.backends.eager.differentiable import DifferentiableUnit
from thalweg.engine.backends.eager.rows import EagerRowsUnit
from thalweg.engine.backends.eager.unit import EagerUnit
from thalweg.engine.formats import Plain
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
        """One unit; autograd sees through it where ``differentiable`` is set.

        Raises:
            RuntimeError: a state in another format than a dtype of torch, where autograd must see
                it or single rows of it are updated.
        """
        kind = slots[0].kind
        assert kind is not None
        differentiable = slots[0].group.get("differentiable")
        for name, form in slots[0].formats.items():
            if not isinstance(form, Plain) and (differentiable or kind.rows):
                what = "differentiable=True" if differentiable else "a sparse gradient"
                raise RuntimeError(
                    f"{program.name}: {what}, but state {name!r} of {slots[0].name} is stored as "
                    f"{form.name}; store it as a plain tensor"
                )
        if differentiable:
            return [DifferentiableUnit(program, slots, scalars)]
        if kind.rows:
            return [EagerRowsUnit(program, slots, scalars)]
        return [EagerUnit(program, slots, scalars)]
