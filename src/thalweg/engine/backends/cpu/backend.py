"""The CPU back end: rules as compiled kernels over all parameters at once."""

from collections.abc import Sequence

from thalweg.engine.backends.base import Subject, Unit
from thalweg.engine.backends.cpu.sliced import SlicedUnit, are_in_order
from thalweg.engine.backends.cpu.sparse_rows import SparseRowsUnit
from thalweg.engine.backends.cpu.unit import KernelUnit
from thalweg.engine.formats import Plain
from thalweg.engine.layout import PLAIN_TENSORS, is_dense
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import Slot
from thalweg.engine.torch_internals import missing_memory
from thalweg.rule import Program


class CpuBackend:
    """Updates dense parameters in CPU memory, and the rows that a sparse gradient holds."""

    name = "cpu"
    reason = "a kernel for every operand"

    def obstacle(self, subject: Subject) -> str | None:
        """Say why no kernel can update a parameter; None if one can."""
        if subject.slot.group.get("differentiable"):
            return "differentiable=True needs operations that autograd sees"
        for name, tensor in subject.operands().items():
            if type(tensor) not in PLAIN_TENSORS:
                return f"{name} is a {type(tensor).__name__}"
            if tensor.device.type != "cpu":
                return f"{name} is on {tensor.device}, and kernels run on cpu"
            if missing := missing_memory(tensor):
                return f"{name} is {missing}"
            if tensor.is_inference():
                return f"{name} is an inference tensor"
            if subject.formats[name] is None:
                return f"{name} is {tensor.dtype}, for which there is no format"
            if name != "g" and (tensor.is_conj() or tensor.is_neg()):
                return f"{name} is a view that conjugates or negates what lies in memory"
        p = subject.slot.param
        if not is_dense(p):
            return f"p has strides {p.stride()} and is not dense in memory"
        if subject.program().sliced and (problem := self._in_the_way_of_units(subject)):
            return problem
        if subject.rows:
            if not p.is_contiguous():
                return "the gradient is sparse and p is not contiguous"
            if any(stage.reductions for stage in subject.program().stages):
                return "a reduction over a sparse gradient"
            for name, form in subject.formats.items():
                if not isinstance(form, Plain):
                    return f"the gradient is sparse and {name} is not stored row by row"
        return None

    def _in_the_way_of_units(self, subject: Subject) -> str | None:
        if not are_in_order(subject.slot.param):
            return "sums over units, and those of p do not lie one behind the other"
        for name, form in subject.formats.items():
            if not isinstance(form, Plain):
                return f"sums over units, and {name} is not stored number by number"
        return None

    def units(
        self, program: Program, slots: Sequence[Slot], scalars: ScalarStates
    ) -> Sequence[Unit]:
        """One unit for dense gradients, one for each parameter whose rows are updated."""
        kind = slots[0].kind
        if kind is not None and kind.rows:
            return [SparseRowsUnit(program, [slot], scalars) for slot in slots]
        return [(SlicedUnit if program.sliced else KernelUnit)(program, slots, scalars)]
