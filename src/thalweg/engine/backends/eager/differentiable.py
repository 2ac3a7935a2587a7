"""Updates that autograd sees: out of place, from options that may be tensors."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from thalweg.engine.backends.base import Known
from thalweg.engine.backends.eager.apply import EagerHyperparameters, stored_like
from thalweg.engine.backends.lowering.operands import real_parts
from thalweg.engine.backends.lowering.unit import LoweredUnit, of_place
from thalweg.engine.modes import with_gradients
from thalweg.engine.reduced import counts_in
from thalweg.engine.scalars import ScalarStates, is_seen
from thalweg.engine.slots import Slot
from thalweg.rule import Program
from thalweg.rule.functions import unit_sum
from thalweg.rule.operations import OPERATIONS, eager_dtype
from thalweg.rule.program import ordered
from thalweg.rule.symbols import Symbol

Results = dict[Symbol, Any]
Operands = dict[str, torch.Tensor]
Rows = tuple[torch.Tensor, ...] | None


class DifferentiableUnit(LoweredUnit):
    """Parameters whose update is part of a graph: autograd differentiates through it.

    The program's nodes are evaluated one by one, in torch. An option that is a tensor gets a
    gradient, and so does what a scalar state has of it.
    """

    def __init__(self, program: Program, slots: Sequence[Slot], scalars: ScalarStates) -> None:
        super().__init__(program, slots, scalars)
        self._states = scalars
        self.takes_floats = False  # autograd sees through sums, too

    @with_gradients(True)
    def run(self, stage: int, known: Known) -> Sequence[Any]:
        """Run one stage; the values of its reductions are tensors on every device."""
        reductions = self.program.stages[stage].reductions
        found: list[list[Any]] = [[None] * len(self.slots) for _ in reductions]
        absent = set(self.absent)
        before = eager_dtype.get()
        try:
            eager_dtype.set(self.compute)
            for place in range(len(self.slots)):
                if place in absent:
                    continue
                operands, rows = self._operands(place)
                results = self._known(place, operands, known)
                for values, node in zip(found, reductions, strict=True):
                    (value,) = evaluate([node.args[0]], results)
                    values[place] = self._sum(value, operands["g"], node.detail == "unit")
                self._store(stage, place, results, operands, rows)
        finally:
            eager_dtype.set(before)
        return self.totals(stage, found)

    def _operands(self, place: int) -> tuple[Operands, Rows]:
        """A parameter's tensors; of a sparse gradient's rows, if only those are updated."""
        gradient = self.gradients[place]
        assert gradient is not None
        operands = {name: column[place] for name, column in self.columns.items()}
        if self._kind.rows:
            gradient = gradient.coalesce()
            rows = tuple(gradient.indices())
            own = {name: tensor[rows] for name, tensor in operands.items()}
            return {**own, "g": gradient.values()}, rows
        # Autograd may keep the parameter, and it is overwritten in the end.
        operands["p"] = operands["p"].clone()
        operands["g"] = gradient.to_dense() if self.sparse else gradient
        return operands, None

    def _known(self, place: int, operands: Operands, known: Known) -> Results:
        """What is known before a stage: operands, options, scalar states, sums and counts."""
        slot = self.slots[place]
        row = dict(zip(self._states.names, self._states.table[slot.index].tolist(), strict=True))
        h = EagerHyperparameters(self.program.name, slot.group, row["step"] + 1)
        results: Results = {}
        counts = counts_in(operands["g"].shape, real_parts(operands["g"]).numel())
        for node in ordered(self._wanted()):
            kind, _, name = str(node.detail).partition(".")
            if node.op == "load":
                results[node] = real_parts(operands[node.detail]).to(self.compute)
            elif node.op == "input":
                results[node] = getattr(h, name) if kind == "h" else self._scalar(slot, name, row)
            elif node.op == "count" and node.detail in counts:
                results[node] = counts[node.detail]
        results.update((node, of_place(values, place)) for node, values in known.items())
        return results

    def _scalar(self, slot: Slot, name: str, row: dict[str, float]) -> Any:
        """A scalar state: what is in the parameter's entry if autograd sees it, else a number."""
        entry = None if slot.state is None else slot.state.peek(name)
        return entry if is_seen(slot, entry) else row[name]

    def _wanted(self) -> list[Symbol]:
        """Everything that the program computes."""
        stages = self.program.stages
        return [
            *(node for s in stages for _, node in s.stores),
            *(r for s in stages for r in s.reductions),
            *(node for _, node in self.program.scalar_outputs),
        ]

    def _sum(self, value: Any, like: torch.Tensor, of_units: bool) -> torch.Tensor:
        numbers = torch.as_tensor(value, device=self.device).expand_as(real_parts(like))
        if of_units:
            return unit_sum(numbers, self.accumulate, self.inner)
        return torch.sum(numbers, dtype=self.accumulate)

    def _store(
        self, stage: int, place: int, results: Results, operands: Operands, rows: Rows
    ) -> None:
        stores = self.program.stages[stage].stores
        loaded = [value for node, value in results.items() if node.op == "load"]
        slot, own = self.slots[place], {}
        for name, node in stores:
            (value,) = evaluate([node], results)
            if any(value is x for x in loaded):
                value = value.clone()  # what is handed on must not change with its source
            value = torch.as_tensor(value, dtype=self.compute, device=self.device)
            value = stored_like(value, operands[name])
            if rows is not None:
                value = self.columns[name][place].index_put(rows, value)
            own[name] = value
        if stage == len(self.program.stages) - 1:
            for name, node in self.program.scalar_outputs:
                (value,) = evaluate([node], results)
                if is_seen(slot, value):
                    own[name] = value
        for name, value in own.items():
            if name == "p":
                slot.param.copy_(value)
            else:
                assert slot.state is not None
                slot.state.put(name, value)
                if name in self.columns:
                    self.columns[name][place] = value


def evaluate(nodes: Iterable[Symbol], results: Results) -> list[Any]:
    """The values of nodes, in torch where they depend on tensors, else in Python.

    Args:
        nodes: what is wanted.
        results: the values of loads, inputs, counts and sums; what is computed is added.
    """
    wanted = list(nodes)
    for node in ordered(wanted, stop=results):
        if node in results:
            continue
        if node.op == "literal":
            results[node] = node.value
            continue
        args = [results[a] for a in node.args]
        operation = OPERATIONS[node.op]
        in_torch = any(isinstance(a, torch.Tensor) for a in args)
        results[node] = (operation.tensor if in_torch else operation.scalar)(*args)
    return [results[node] for node in wanted]
