"""The eager back end: parameters updated by calling the rule with tensors, one by one."""

from typing import Any

import torch

from thalweg.engine.backends.eager import apply as eager
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import Slot
from thalweg.rule import Program, Rule
from thalweg.rule.functions import AllTensors
from thalweg.rule.program import number


class EagerUnit:
    """Parameters updated by calling the rule with tensors, one by one."""

    def __init__(
        self, rule: Rule, program: Program, slot: Slot, states: ScalarStates, sparse_rows: bool
    ) -> None:
        self.rule = rule
        self._sparse_rows = sparse_rows
        self._planned_for = self._signature(slot)
        self.program = program
        self.slots = [slot]
        self.states = states
        self._gradient: torch.Tensor | None = None

    @staticmethod
    def _signature(slot: Slot) -> tuple[Any, ...]:
        p, g = slot.param, slot.gradient
        return (p.dtype, p.device, p.shape) + (
            () if g is None else (g.dtype, g.device, g.shape, g.layout)
        )

    def holds(self) -> bool:
        (slot,) = self.slots
        self._gradient = slot.gradient
        return self._signature(slot) == self._planned_for

    def prepare(self) -> bool:
        (slot,) = self.slots
        row = self.states.rows[slot.index].copy()
        row[0] += 1
        self._row = dict(zip(self.states.names, row.tolist(), strict=True))
        return self.program.scalars(slot.group, row.tolist()) is not None

    def update(self, totals: list[torch.Tensor]) -> torch.Tensor | None:
        """Update the parameter, or return its part of a sum over all tensors that is not known."""
        (slot,) = self.slots
        assert slot.state is not None
        assert self._gradient is not None
        differentiable = bool(slot.group.get("differentiable"))
        with torch.set_grad_enabled(differentiable), AllTensors(totals):
            p, g = slot.param, self._gradient
            rows: tuple[torch.Tensor, ...] | None = None
            states = {name: slot.state[name] for name in self.program.states}
            if g.is_sparse and not self._sparse_rows:
                g = g.to_dense()
            if g.is_sparse:
                g = g.coalesce()
                rows = tuple(g.indices())
                p, g = p[rows], g.values()
                states = {name: tensor[rows] for name, tensor in states.items()}
            elif differentiable:
                p = p.clone()  # autograd may keep it, and the copy_ below would invalidate that
            try:
                new, tensors, scalars = eager.apply(self.rule, p, g, states, slot.group, self._row)
            except AllTensors.Incomplete as incomplete:
                return incomplete.part
            self._store(slot.param, new, rows)
            for name, tensor in tensors.items():
                if differentiable:
                    slot.state.put(name, tensor)
                else:
                    self._store(slot.state[name], tensor, rows)
            for name, value in scalars.items():
                self._row[name] = number(value)
        return None

    @staticmethod
    def _store(
        target: torch.Tensor, value: torch.Tensor, rows: tuple[torch.Tensor, ...] | None
    ) -> None:
        if rows is None:
            target.copy_(value)
        else:
            target.index_put_(rows, value)

    def finish(self) -> None:
        (slot,) = self.slots
        self.states.rows[slot.index] = [self._row[name] for name in self.states.names]
        self._gradient = None  # its memory may be wanted
