"""What the units of back ends have in common that run lowered stages on torch's tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from thalweg.engine.backends.base import Known, Unit
from thalweg.engine.backends.lowering import Lowered, conditions, lower
from thalweg.engine.backends.lowering.printed import Kinds
from thalweg.engine.formats import Plain
from thalweg.engine.reduced import counts_in, reduced_constants, values_between
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import Slot
from thalweg.rule import Program
from thalweg.rule.program import compile_function
from thalweg.rule.scalars import divide, inf, nan


@dataclass(frozen=True)
class Case:
    """Parameters with the same constants at this step.

    Attributes:
        places: of the parameters among the unit's slots; all have a gradient.
        lowered: the stage, for the conditions as they are.
        scalars: the values of ``lowered.scalars``.
        constants: the values of ``program.constants``.
    """

    places: Sequence[int]
    lowered: Lowered
    scalars: tuple[float, ...]
    constants: Sequence[float]


class LoweredUnit(Unit):
    """Parameters of the same dtypes on one device.

    Arithmetic is in float64 if any operand is stored in 64 bits, else in float32. An operand of
    another dtype is *converted*: loaded into a temporary and rounded once, when it is stored.

    Attributes:
        compute: the dtype of arithmetic.
        accumulate: the dtype of sums.
        converted: the operands that are converted.
        encoded: those of them that are stored in no plain format.
        inner: how many dimensions of their numbers are none of the parameters'.
        kinds: what printed functions are made for.
        sparse: the gradients are sparse.
        columns: the tensors of each operand but the gradient, one for each slot.
        gradients: those of this step, None where there is none.
    """

    def __init__(self, program: Program, slots: Sequence[Slot], scalars: ScalarStates) -> None:
        super().__init__(program, slots, scalars)
        kind = slots[0].kind
        assert kind is not None
        self._kind = kind
        self.sparse = kind.sparse
        self._layout = torch.sparse_coo if kind.sparse else torch.strided
        self.device = slots[0].param.device
        self.takes_floats = self.device.type == "cpu"
        self.columns = {
            name: [slot.tensor(name) for slot in slots] for name in program.operands if name != "g"
        }
        dtypes = {name: column[0].dtype for name, column in self.columns.items()}
        self._dtypes = {"p": dtypes.pop("p"), "g": kind.dtype, **dtypes}
        real = {name: dtype.to_real() for name, dtype in self._dtypes.items()}
        wide = torch.float64 in real.values()
        self.compute = torch.float64 if wide else torch.float32
        # MPS has no float64.
        self.accumulate = torch.float32 if self.device.type == "mps" else torch.float64
        self.converted = frozenset(
            name for name, dtype in real.items() if dtype is not self.compute
        ) | {name for name, column in self.columns.items() if any(map(torch.is_conj, column))}
        formats = slots[0].formats
        self.encoded = frozenset(n for n, f in formats.items() if not isinstance(f, Plain))
        self.converted |= self.encoded.intersection(self.columns)
        self.inner = int(slots[0].param.is_complex())
        as_stored = self.compute if "p" in self.encoded else real["p"]
        self.kinds = Kinds(self.compute, self.accumulate, as_stored, self.inner)
        self._shapes = [slot.param.shape for slot in slots]
        self._counts: Any = None
        self.gradients: list[torch.Tensor | None] = []
        self._given = slots[0].value is not None

    # ---- looking ----------------------------------------------------------------------------

    def look(self, exposed: bool) -> bool:
        """Note the gradients; False if a tensor has changed its dtype, shape, layout or device."""
        params = self.columns["p"]
        if self._given:
            self.gradients = [slot.gradient for slot in self.slots]
        else:
            self.gradients = [p.grad for p in params]
        dtype, layout, device = self._kind.dtype, self._layout, self.device
        stored = self._dtypes["p"]
        any_absent = False
        for p, g, shape in zip(params, self.gradients, self._shapes, strict=True):
            if p.dtype is not stored or p.shape != shape or p.device != device:
                return False
            if g is None:
                any_absent = True
            elif (
                g.dtype is not dtype
                or g.shape != shape
                or g.device != device
                or g.layout is not layout
            ):
                return False
        gradients = self.gradients if any_absent else ()
        self.absent = [place for place, g in enumerate(gradients) if g is None]
        return not exposed or self._states_hold()

    def _states_hold(self) -> bool:
        return all(
            tensor.dtype is self._dtypes[name]
            and tensor.shape == shape
            and tensor.device == self.device
            for name, column in self.columns.items()
            for tensor, shape in zip(column, self._shapes, strict=True)
        )

    def let_go(self) -> None:
        self.gradients = []

    # ---- the constants of a stage -----------------------------------------------------------

    def cases(self, stage: int) -> list[Case]:
        """The parameters that have a gradient, by their constants."""
        table, case_of = self.constants.values, self.constants.case_of
        members: list[Sequence[int]]
        if len(table) == 1 and not self.absent:
            members = [range(len(self.slots))]
        else:
            absent = set(self.absent)
            lists: list[list[int]] = [[] for _ in table]
            for place, case in enumerate(case_of.tolist()):
                if place not in absent:
                    lists[case].append(place)
            members = list(lists)
        return [
            self._case(stage, places, constants)
            for places, constants in zip(members, table, strict=True)
            if places
        ]

    def _case(self, stage: int, places: Sequence[int], constants: Sequence[float]) -> Case:
        truths = tuple(bool(constants[k]) for k in conditions(self.program, stage))
        lowered = lower(self.program, stage, truths, self.converted)
        scalars = _scalars_of(lowered)(constants)
        if self.compute is torch.float32:
            # As torch rounds them; but it raises where one is too large, and here it is infinite.
            with np.errstate(over="ignore"):
                scalars = tuple(np.asarray(scalars, dtype=np.float32).tolist())
        return Case(places, lowered, scalars, constants)

    def reduced(self, stage: int, case: Case, known: Known) -> list[Any]:
        """The constants made from sums: for each a 0-d tensor, or a list of one per parameter."""
        if not reduced_constants(self.program, stage):
            return []
        if self.program.sliced:
            return self._reduced_by_units(stage, case, known)
        whole = len(case.places) == len(self.slots)
        if self._counts is None:
            on_cpu = {
                scope: torch.tensor(each, dtype=self.accumulate, device="cpu")
                for scope, each in {**self.sizes, "tensor": self.numbers}.items()
            }
            self._counts = {
                scope: x.numpy() if self.takes_floats else x.to(self.device)
                for scope, x in on_cpu.items()
            }

        def of_case(values: Any) -> Any:
            if whole or not getattr(values, "ndim", 0):
                return values
            if self.takes_floats:
                return values[list(case.places)]
            each = values.unbind()  # an index would have to be copied to the device
            return torch.stack([each[place] for place in case.places])

        found = values_between(
            self.program,
            stage,
            case.constants,
            {node: of_case(values) for node, values in known.items()},
            {scope: of_case(x) for scope, x in self._counts.items()},
            "numpy" if self.takes_floats else "torch",
        )
        return [self._constant(value) for value in found]

    def _reduced_by_units(self, stage: int, case: Case, known: Known) -> list[Any]:
        """As :meth:`reduced`, one parameter after the other, as each has other units."""
        found: list[list[Any]] = []
        for place in case.places:
            own = {node: of_place(values, place) for node, values in known.items()}
            counts = self.counts_of(place)
            library = "numpy" if self.takes_floats else "torch"
            if self.takes_floats:
                own = {n: x.numpy() if isinstance(x, torch.Tensor) else x for n, x in own.items()}
            found.append(values_between(self.program, stage, case.constants, own, counts, library))
        return [[self._narrow(value) for value in values] for values in zip(*found, strict=True)]

    def counts_of(self, place: int) -> dict[str, float]:
        """What a rule may ask of a parameter's size, by scope."""
        return counts_in(self._shapes[place], self.numbers[place])

    def _narrow(self, value: Any) -> torch.Tensor:
        """A constant of one parameter: 0-d, or with a number for each unit."""
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value, device="cpu")
        if tensor.dtype is not torch.bool:
            tensor = tensor.to(self.compute)
        return tensor.to(self.device)

    def _constant(self, value: Any) -> Any:
        """A constant made from sums, as tensors on the device, in the dtype of arithmetic."""
        tensor = self._narrow(value)
        return list(tensor.unbind()) if tensor.dim() else tensor

    def totals(self, stage: int, found: Sequence[Sequence[Any]]) -> list[Any]:
        """The values of a stage's reductions: for each one number per slot.

        Of those over units it is a list of a tensor for each slot.
        """
        results: list[Any] = []
        for node, values in zip(self.program.stages[stage].reductions, found, strict=True):
            if node.detail == "unit":
                results.append(values)
                continue
            zero = self.columns["p"][0].new_zeros((), dtype=self.accumulate)
            stacked = torch.stack([zero if value is None else value for value in values])
            results.append(stacked.numpy() if self.takes_floats else stacked)
        return results


def of_place(values: Any, place: int) -> Any:
    """What is known of one parameter: a list has it at its place, an array too."""
    if isinstance(values, list):
        return values[place]
    return values[place] if getattr(values, "ndim", 0) else values


@cache
def _scalars_of(lowered: Lowered) -> Any:
    """The function from the values of ``program.constants`` to those of the stage's scalars."""
    source = f"def scalars(c):\n    return ({''.join(f'{text}, ' for text in lowered.scalars)})\n"
    return compile_function(source, "scalars", {"divide": divide, "inf": inf, "nan": nan})
