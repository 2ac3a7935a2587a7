"""A back end of NumPy: as little as one can be, and slow. It shows what the engine asks of one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from thalweg.engine.backends.base import Known, Subject, Unit
from thalweg.engine.reduced import reduced_constants, values_between
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import Slot
from thalweg.rule import Program

FUNCTIONS: dict[str, Any] = {
    **{name: getattr(np, name) for name in ("add", "subtract", "multiply", "divide", "power")},
    **{name: getattr(np, name) for name in ("negative", "abs", "sqrt", "exp", "log", "log1p")},
    **{name: getattr(np, name) for name in ("expm1", "tanh", "maximum", "minimum", "where")},
    **{name: getattr(np, name) for name in ("less", "less_equal", "equal", "not_equal")},
    **{"and": np.logical_and, "or": np.logical_or, "not": np.logical_not, "atan": np.arctan},
    **{"held": np.asarray, "sigmoid": lambda x: 1 / (1 + np.exp(-x))},
    "sign": lambda x: np.subtract(x > 0, x < 0, dtype=x.dtype),
}


class NumpyBackend:
    """Runs programs in NumPy, in float64."""

    name, reason = "numpy", "a test"

    def obstacle(self, subject: Subject) -> str | None:
        wrong = [n for n, t in subject.operands().items() if not t.is_cpu or t.is_sparse]
        return f"{', '.join(wrong)}: no dense tensor in CPU memory" if wrong else None

    def units(
        self, program: Program, slots: Sequence[Slot], scalars: ScalarStates
    ) -> Sequence[Unit]:
        return [NumpyUnit(program, slots, scalars)]


class NumpyUnit(Unit):
    """Parameters that are updated one after the other."""

    def look(self, exposed: bool) -> bool:
        self.absent = [k for k, slot in enumerate(self.slots) if slot.gradient is None]
        return all(s.gradient is None or s.gradient.shape == s.param.shape for s in self.slots)

    def let_go(self) -> None:
        """Nothing is held."""

    def run(self, stage: int, known: Known) -> Sequence[Any]:
        what, rows = self.program.stages[stage], np.asarray(self.constants.values, dtype=float)
        columns = list(rows.reshape(len(rows), -1)[self.constants.case_of].T)
        counts = np.asarray([slot.numbers for slot in self.slots], dtype=float)
        between = values_between(self.program, stage, columns, known, self.sizes)
        given = dict(zip(self.program.constants, columns, strict=True))
        given |= dict(zip(reduced_constants(self.program, stage), between, strict=True))
        sums = np.zeros((len(what.reductions), len(self.slots)))
        for k in sorted({*range(len(self.slots))}.difference(self.absent)):
            values = {node: np.broadcast_to(x, counts.shape)[k] for node, x in given.items()}
            self._update(k, what, values, sums)
        return list(sums)

    @torch.no_grad()
    def _update(self, k: int, what: Any, values: dict[Any, Any], sums: Any) -> None:
        slot = self.slots[k]

        def value(node: Any) -> Any:
            if node not in values and node.op == "load":
                stored = slot.gradient if node.detail == "g" else slot.tensor(node.detail)
                real = torch.view_as_real(stored.resolve_conj()) if stored.is_complex() else stored
                values[node] = real.double().numpy().copy()
            return node.value if node.op == "literal" else values[node]

        with np.errstate(all="ignore"):
            for node in what.body:
                values[node] = FUNCTIONS[node.op](*map(value, node.args))
            for number, node in enumerate(what.reductions):
                sums[number, k] = np.sum(value(node.args[0]))
            for operand, new in [(o, torch.as_tensor(value(n))) for o, n in what.stores]:
                target = slot.tensor(operand)
                (torch.view_as_real(target) if target.is_complex() else target).copy_(new)
