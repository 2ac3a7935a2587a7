"""The foreach back end: takes dense parameters on every device."""

from collections.abc import Sequence

from thalweg.engine.backends.base import Subject, Unit
from thalweg.engine.backends.foreach.unit import ForeachUnit
from thalweg.engine.formats import Plain
from thalweg.engine.layout import PLAIN_TENSORS
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import Slot
from thalweg.engine.torch_internals import is_fake
from thalweg.rule import Program


class ForeachBackend:
    """Updates lists of parameters by one call of torch for each operation.

    Args:
        temporary_bytes: the memory for temporaries. Parameters are updated in portions, and large
            ones in pieces, that need no more.
    """

    def __init__(self, temporary_bytes: int = 64 * 2**20) -> None:
        self._temporary_bytes = temporary_bytes

    name = "foreach"
    reason = "one call for all tensors"

    def obstacle(self, subject: Subject) -> str | None:
        """Say why a parameter has to be updated by itself; None if it need not."""
        group, p = subject.slot.group, subject.slot.param
        if group.get("differentiable"):
            return "differentiable=True needs operations that autograd sees"
        if subject.rows:
            return "the gradient is sparse, and only the rows that it holds are updated"
        if not group.get("foreach"):
            if subject.slot.fused is False:
                return "fused=False without foreach=True asks for one tensor after another"
            if p.device.type == "cpu":
                return "p is on the CPU, where a call for many tensors goes from one to the next"
        for name, tensor in subject.operands().items():
            if type(tensor) not in PLAIN_TENSORS and not is_fake(tensor):
                return f"{name} is a {type(tensor).__name__}"
            if tensor.device != p.device:
                return f"{name} is on {tensor.device}, p on {p.device}"
            if tensor.is_inference():
                return f"{name} is an inference tensor"
            form = subject.formats[name]
            if form is None:
                return f"{name} is {tensor.dtype}, for which there is no format"
            if not isinstance(form, Plain):
                return f"{name} is stored as {form.name}, which is read tensor by tensor"
            if name != "g" and (tensor.is_conj() or tensor.is_neg()):
                return f"{name} is a view that conjugates or negates what lies in memory"
        return None

    def units(
        self, program: Program, slots: Sequence[Slot], scalars: ScalarStates
    ) -> Sequence[Unit]:
        """One unit for all of them."""
        return [ForeachUnit(program, slots, scalars, self._temporary_bytes)]
