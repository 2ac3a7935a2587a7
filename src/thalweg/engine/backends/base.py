"""What the engine asks of a back end, and what all of them share.

A back end answers three questions: what stands in the way of a parameter, which units update some
parameters, and how a stage of a unit runs. It knows neither the plan nor other back ends.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from thalweg.engine.formats import Format
from thalweg.engine.layout import Integers
from thalweg.engine.overlaps import Ranges
from thalweg.engine.reduced import values_between
from thalweg.engine.scalars import ConstantTable, ScalarStates
from thalweg.engine.slots import Slot
from thalweg.rule import Program
from thalweg.rule.symbols import Symbol

# A reduction's values: one for each slot, or one for all of them. Float64 in NumPy where the unit
# takes floats, in a tensor on the unit's device elsewhere.
Values = Any
Known = Mapping[Symbol, Values]


@dataclass(frozen=True)
class Subject:
    """One parameter whose back end is looked for.

    Attributes:
        slot: the parameter.
        gradient: its gradient, or the value that stands for it.
        states: the state tensors that there are, by name.
        formats: how each operand of an update is stored; None where no format knows its dtype.
        rows: the gradient is sparse, and only the rows that it holds are updated.
        program: the program of its next update, traced when it is asked for.
    """

    slot: Slot
    gradient: torch.Tensor
    states: Mapping[str, torch.Tensor]
    formats: Mapping[str, Format | None]
    rows: bool
    program: Callable[[], Program]

    def operands(self) -> dict[str, torch.Tensor]:
        """The tensors of an update by name: ``p``, ``g`` and the states that there are."""
        return {"p": self.slot.param, "g": self.gradient, **self.states}


class Unit(ABC):
    """Parameters that one program updates together, in one back end.

    A step goes through the same calls for all units: :meth:`prepare`, :meth:`look`, :meth:`run` for
    each stage, :meth:`finish`. Nothing that a user can see is changed before ``run`` of the last. A
    step that ends earlier ends with :meth:`let_go`.

    Args:
        program: the program of all of them.
        slots: the parameters; they agree in device, dtypes and kind of gradient.
        scalars: the scalar states of all parameters of the optimizer.

    Attributes:
        device: where the parameters are, and the values of reductions that are tensors.
        takes_floats: the values of reductions are NumPy arrays, and totals floats; else tensors.
        numbers: how many numbers each parameter has, two for each complex one.
        constants: the values of ``program.constants`` for this step.
        absent: the places in ``slots`` of the parameters without a gradient at this step. They are
            left as they are.
        moved: whether since :meth:`avoid` the memory of an operand is another one.
        updated: where the last stage raised, the places of the parameters that were updated, and
            counted, before.
    """

    updated: Sequence[int] = ()
    moved: bool = False
    device = torch.device("cpu")
    takes_floats = True

    def __init__(self, program: Program, slots: Sequence[Slot], scalars: ScalarStates) -> None:
        self.program = program
        self.slots = slots
        self.numbers = [slot.numbers for slot in slots]
        self.constants = ConstantTable(program, slots, scalars)
        self.absent: Sequence[int] = ()

    def prepare(self, exposed: bool) -> bool:
        """Compute the constants; False if the program is not that of these options any more.

        Args:
            exposed: somebody else has had the states in hand, and may have changed them.
        """
        return self.constants.prepare(exposed)

    @abstractmethod
    def look(self, exposed: bool) -> bool:
        """Find the operands of this step; False if they are not what the unit was made for.

        Sets ``absent``.

        Args:
            exposed: as for :meth:`prepare`.
        """

    @abstractmethod
    def run(self, stage: int, known: Known) -> Sequence[Values]:
        """Run one stage.

        Args:
            stage: its number.
            known: the values of the reductions of earlier stages; of a sum over all tensors the
                total.

        Returns:
            For each of the stage's reductions its values, a sum for each slot: 0 where the
            gradient is absent.
        """

    @cached_property
    def sizes(self) -> dict[str, npt.NDArray[np.float64]]:
        """The counts that a rule may ask for of each tensor, by scope."""
        ranks = [slot.param.ndim for slot in self.slots]
        found = {"tensor": self.numbers, "dimensions": ranks}
        return {scope: np.asarray(each, dtype=np.float64) for scope, each in found.items()}

    def feed(self, known: Known) -> None:
        """Take in the scalar states that depend on sums, once all sums of the step are known.

        Values on another device are waited for.
        """
        values = np.asarray(self.constants.values, dtype=np.float64)
        by_slot = values.reshape(len(values), -1)[self.constants.case_of]
        found = values_between(
            self.program,
            len(self.program.stages),
            list(by_slot.T),
            {node: _in_numpy(value) for node, value in known.items()},
            {**self.sizes, "tensor": np.asarray(self.elements(), dtype=np.float64)},
        )
        self.constants.feed(found)

    def finish(self) -> None:
        """Count the step and let go of what only this step needed."""
        self.constants.finish(self.absent)
        self.let_go()

    @abstractmethod
    def let_go(self) -> None:
        """Let go of what only this step needed: the gradients, whose memory may be wanted."""

    def ranges(self) -> Ranges | None:
        """Where the operands lie that a kernel reads and writes; None: no kernel does."""
        return None

    def avoid(self, starts: Integers, stops: Integers) -> None:
        """Take note of what the kernels of all units write: ranges of memory, sorted and apart."""
        self.moved = False

    @property
    def idle(self) -> bool:
        """Whether no parameter has a gradient at this step."""
        return len(self.absent) == len(self.slots)

    def elements(self) -> list[int]:
        """How many numbers each parameter has, two for each complex one; 0 without a gradient."""
        counts = list(self.numbers)
        for place in self.absent:
            counts[place] = 0
        return counts


def _in_numpy(value: Values) -> Any:
    return value.detach().double().cpu().numpy() if isinstance(value, torch.Tensor) else value


class Backend(Protocol):
    """One way of running programs."""

    @property
    def name(self) -> str:
        """How :func:`thalweg.explain` calls it."""

    @property
    def reason(self) -> str:
        """Why a parameter without an obstacle is updated by it."""

    def obstacle(self, subject: Subject) -> str | None:
        """Say what keeps it from updating a parameter; None if nothing does."""

    def units(
        self, program: Program, slots: Sequence[Slot], scalars: ScalarStates
    ) -> Sequence[Unit]:
        """Make units for parameters that agree in program, device, dtypes and kind of gradient."""
