"""The engine: decides for each parameter how its update runs, and runs them all.

A step has three phases, and only the last writes anything a user can see:

1. look: has a parameter, state or gradient moved since the plan was made? If so, plan again.
2. prepare: evaluate the scalars of every group; a switch that changed also means to plan again.
3. run: what runs eagerly, then the kernels, stage by stage; then count the step. Ctrl-C waits.

A step that ends before the third takes the states that it has created away again: a first update is
told by them.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import torch

from thalweg.engine.backends.cpu.addresses import Identities
from thalweg.engine.backends.cpu.sparse_rows import SparseUnit
from thalweg.engine.backends.cpu.unit import KernelUnit
from thalweg.engine.backends.eager.unit import EagerUnit
from thalweg.engine.formats import Format, format_of
from thalweg.engine.interrupts import uninterrupted
from thalweg.engine.layout import PLAIN_TENSORS, is_dense
from thalweg.engine.scalars import Floats, ScalarStates
from thalweg.engine.slots import (
    Group,
    Slot,
    Values,
    prepare_state,
    slots_of,
    state_dtype,
)
from thalweg.engine.state import FormerEntries, OptimizerState
from thalweg.engine.torch_internals import not_traced
from thalweg.rule import Program, Rule

Unit = KernelUnit | EagerUnit

_PARAMS = itemgetter("params")


class Owner(Protocol):
    """What the engine needs of an optimizer."""

    param_groups: list[dict[str, Any]]
    state: OptimizerState

    def sparse_gradient(self, options: Group) -> str:
        """``"rows"`` to update the rows present, ``"dense"`` to fill the others with zeros."""

    def dense_gradient(self, options: Group) -> None:
        """Raise where a dense gradient is not supported."""

    def check_options(self, options: Group) -> None:
        """Raise where an option is missing or out of its range."""

    def before_plan(self) -> None:
        """Bring groups and values up to date, or raise; called before each plan."""


@dataclass(frozen=True)
class Choice:
    """How one parameter is updated, and why."""

    backend: str  # "cpu" or "eager"
    reason: str


class Engine:
    """Runs one rule for one owner.

    Args:
        rule: the rule.
        owner: whose groups and state it runs over.
        values: the rule's second operand for each parameter, group by group, where that is not the
            parameter's gradient. May be replaced between steps.

    Attributes:
        choices: for each slot that had a gradient when last planned, how it is updated and why.
    """

    def __init__(self, rule: Rule, owner: Owner, values: Values | None = None) -> None:
        self.rule = rule
        self.owner = owner
        self.values = values
        self.slots: list[Slot] = []
        self.scalars = ScalarStates(rule, [])
        self.units: list[Unit] = []
        self._kernels: list[KernelUnit] = []
        self._eager: list[EagerUnit] = []
        self._one_stage = True
        self.choices: dict[int, Choice] = {}
        self._planned_for: tuple[Any, ...] = ()
        self._planned_tensors: Identities | None = None
        self._absent: list[Slot] = []
        self._programs: dict[tuple[float, ...], Program] = {}  # found during one plan
        self._former = FormerEntries()
        # Two threads in one plan would free the tables under each other's kernels.
        self._one_at_a_time = threading.RLock()

    @not_traced
    def step(self, count: Callable[[], None] | None = None) -> None:
        """Update every parameter that has a gradient.

        Args:
            count: called when all of them are updated, before Ctrl-C is heard again.
        """
        with torch.no_grad(), self._one_at_a_time:
            try:
                self._look()
                if not all(unit.prepare() for unit in self.units):
                    self._plan()
                    _require(all(unit.prepare() for unit in self.units))
                with uninterrupted():
                    self._run()
                    if count is not None:
                        count()
            except BaseException:
                with uninterrupted():
                    self._former.put_back(self.owner.state)
                raise

    def look_at_slots(self) -> list[Slot]:
        """The parameters as they are now, without planning a step."""
        with self._one_at_a_time:
            self._take_slots()
            self.plan_anew()
            return self.slots

    def plan_anew(self) -> None:
        """Make another plan at the next step."""
        self._planned_for = ()

    def foresee(self, slot: Slot) -> tuple[Program, dict[str, Format | None], Choice]:
        """The program, formats and back end of a parameter's next update, changing nothing.

        A parameter without a gradient is taken to get one of its own dtype.
        """
        p = slot.param
        state = self.owner.state.get(p, {})
        g = slot.gradient if slot.gradient is not None else p.detach()
        program = self._program(slot)
        dtypes = {"p": p.dtype, "g": g.dtype}
        dtypes |= {
            n: state[n].dtype if n in state else state_dtype(self.rule, n, slot)
            for n in program.states
        }
        formats: dict[str, Format | None] = {n: format_of(dtype) for n, dtype in dtypes.items()}
        return program, formats, self._choose(slot, g)

    @property
    def shown_scalars(self) -> list[str]:
        """The scalar states that appear in ``optimizer.state``."""
        return [*(["step"] if self.rule.counted else []), *self.rule.scalar_states]

    def create_states(self) -> None:
        """Create the states of all parameters now, not when each is first updated."""
        with self._one_at_a_time:
            self._take_slots()
            for slot in self.slots:
                prepare_state(self.rule, self._program(slot), slot, self.owner.state, self.scalars)

    def share_memory(self) -> None:
        """Move all states into shared memory."""
        with self._one_at_a_time, uninterrupted():
            self._share_memory()

    def _share_memory(self) -> None:
        self.create_states()
        self.scalars.tensor.share_memory_()  # type: ignore[no-untyped-call]
        self.scalars.rows = self.scalars.tensor.numpy()
        for slot in self.slots:
            assert slot.state is not None
            for name in self.rule.tensor_states:
                if name in slot.state:
                    slot.state[name].share_memory_()
        self.plan_anew()

    def _look(self) -> None:
        if (
            self._signature() != self._planned_for
            or self._planned_tensors is None
            or not self._planned_tensors.hold(self._tensors())
            or any(slot.gradient is not None for slot in self._absent)
            or not all(unit.holds() for unit in self.units)
        ):
            self._plan()

    def _tensors(self) -> Iterator[Sequence[torch.Tensor]]:
        return chain(map(_PARAMS, self.owner.param_groups), self.values or ())

    def _signature(self) -> tuple[Any, ...]:
        """What a plan depends on besides tensors: changes when groups or states are replaced."""
        owner = self.owner
        groups = owner.param_groups
        return (
            [(id(g), len(g["params"]), g.get("fused"), g.get("differentiable")) for g in groups],
            owner.state.changes,  # the object, not its id: that could be another's by now
            owner.state.changes.count,
        )

    def _plan(self) -> None:
        owner = self.owner
        self.plan_anew()  # whatever raises below, the next step plans again
        self._former.put_back(owner.state)
        owner.before_plan()
        self._take_slots()
        gradients = [slot.gradient for slot in self.slots]
        active = [(s, g) for s, g in zip(self.slots, gradients, strict=True) if g is not None]
        for slot, g in active:
            self._check(slot, g)

        self.choices = {s.index: self._choose(s, g) for s, g in active}
        self._keep_sums_together()
        buckets: dict[tuple[Any, ...], list[Slot]] = defaultdict(list)
        units: list[Unit] = []
        for slot, g in active:
            self._former.note(owner.state, slot.param)
            prepare_state(self.rule, self._program(slot), slot, owner.state, self.scalars)
            program = self._program(slot)  # the state may have brought another step count
            assert slot.state is not None
            rows = g.is_sparse and owner.sparse_gradient(slot.group) == "rows"
            if self.choices[slot.index].backend == "eager":
                units.append(EagerUnit(self.rule, program, slot, self.scalars, rows))
            elif rows:
                units.append(SparseUnit(program, [slot], self.scalars, g.dtype, True))
            else:
                dtypes = tuple(slot.state[name].dtype for name in program.states)
                kind = (program, slot.param.dtype, g.dtype, g.is_sparse, dtypes)
                buckets[kind].append(slot)
        units += [
            KernelUnit(program, slots, self.scalars, gradient, sparse)
            for (program, _, gradient, sparse, _), slots in buckets.items()
        ]
        self.units = units
        self._kernels = [u for u in units if isinstance(u, KernelUnit)]
        self._eager = [u for u in units if isinstance(u, EagerUnit)]
        self._one_stage = all(len(u.program.stages) == 1 for u in self._kernels)
        self._absent = [s for s, g in zip(self.slots, gradients, strict=True) if g is None]
        _require(all(unit.holds() for unit in units))
        self._planned_tensors = Identities(self._tensors())
        self._planned_for = self._signature()

    def _take_slots(self) -> None:
        """Number the parameters anew, keeping the scalar states of those that stay."""
        self._programs.clear()  # options may have changed
        before = {id(s.param): s for s in self.slots}
        rows = self.scalars.rows
        slots = slots_of(self.owner.param_groups, self.values)
        scalars = self.scalars
        if [id(s.param) for s in slots] == list(before):
            for slot in slots:
                slot.state = before[id(slot.param)].state
        else:
            scalars = ScalarStates(self.rule, slots)
            for slot in slots:
                old = before.get(id(slot.param))
                if old is not None:
                    scalars.rows[slot.index] = rows[old.index]
        with uninterrupted():  # the numbers of the one are those of the other
            self.slots, self.scalars = slots, scalars

    def _program(self, slot: Slot) -> Program:
        """The program of a parameter's next update, which counts one step more."""
        if slot.param not in self.owner.state:
            self.scalars.begin(slot)
        row: list[float] = self.scalars.rows[slot.index].tolist()
        row[0] += 1
        case = (id(slot.group), *row)
        if case not in self._programs:
            try:
                self._programs[case] = self.rule.program(slot.group, row)
            except (AttributeError, TypeError):
                self.owner.check_options(slot.group)  # an option may be missing or of another kind
                raise
        return self._programs[case]

    def _check(self, slot: Slot, g: torch.Tensor) -> None:
        """Refuse what cannot be updated, before anything is changed."""
        p, rule, what = slot.param, self.rule.name, slot.gradient_name
        if not (p.is_floating_point() or p.is_complex()):
            raise RuntimeError(
                f"{rule}: {slot.name} is {p.dtype}; only floating-point and complex parameters "
                "can be updated. Convert it, or leave it out of the optimizer"
            )
        if g.device != p.device:
            raise RuntimeError(
                f"{rule}: {what} is on {g.device}, the parameter on {p.device}; move one of them"
            )
        if g.shape != p.shape:
            raise RuntimeError(
                f"{rule}: {what} has shape {tuple(g.shape)}; it must be the parameter's. "
                + ("Set it to None and run backward again" if slot.value is None else "Replace it")
            )
        if g.is_sparse:
            rows = self.owner.sparse_gradient(slot.group) == "rows"
            if rows and self.rule.every_row:
                raise RuntimeError(
                    f"{rule}: {what} is sparse, and would leave out the rows that it does not "
                    "hold, which the rule changes too (a carried average does). Use dense "
                    "gradients, or no carried average"
                )
        elif g.layout is torch.strided:
            self.owner.dense_gradient(slot.group)
        else:
            raise RuntimeError(
                f"{rule}: {what} has layout {g.layout}; only dense and sparse COO tensors can be "
                "used. Call .to_dense() on it"
            )

    def _choose(self, slot: Slot, g: torch.Tensor) -> Choice:
        if slot.group.get("fused") is False:
            return Choice("eager", "fused=False")
        obstacle = self._obstacle(slot, g)
        if obstacle is None:
            return Choice("cpu", "a kernel for every operand")
        if slot.group.get("fused"):
            raise RuntimeError(
                f"{self.rule.name}: fused=True, but {slot.name} has no kernel: {obstacle}. Use "
                "fused=None to let it run eagerly"
            )
        return Choice("eager", obstacle)

    def _keep_sums_together(self) -> None:
        """Let everything run eagerly where a sum over all tensors needs parts of both back ends."""
        choices = self.choices
        summed = {
            index: [
                [r.detail for r in stage.reductions].count("all")
                for stage in self._program(self.slots[index]).stages
            ]
            for index in choices
        }
        if not any(map(any, summed.values())):
            return
        counts = {tuple(c) for c in summed.values()}
        if len(counts) == 1 and len({c.backend for c in choices.values()}) == 1:
            return
        for index in choices:
            if self.slots[index].group.get("fused"):
                raise RuntimeError(
                    f"{self.rule.name}: fused=True, but a sum over all tensors includes some that "
                    "have no kernel. Use fused=None to let all run eagerly"
                )
            if choices[index].backend != "eager":
                reason = "a sum over all tensors includes some that have no kernel"
                choices[index] = Choice("eager", reason)

    def _obstacle(self, slot: Slot, g: torch.Tensor) -> str | None:
        """Why no kernel can update this parameter, or None."""
        if slot.group.get("differentiable"):
            return "differentiable=True needs operations that autograd sees"
        p, state = slot.param, self.owner.state.get(slot.param, {})
        tensors = {"p": p, "g": g}
        tensors |= {name: state[name] for name in self.rule.tensor_states if name in state}
        for name, tensor in tensors.items():
            if type(tensor) not in PLAIN_TENSORS:
                return f"{name} is a {type(tensor).__name__}"
            if tensor.device.type != "cpu":
                return f"{name} is on {tensor.device}, and kernels run on cpu"
            if tensor.is_inference():
                return f"{name} is an inference tensor"
            if format_of(tensor.dtype) is None:
                return f"{name} is {tensor.dtype}, for which there is no format"
            if name != "g" and (tensor.is_conj() or tensor.is_neg()):
                return f"{name} is a view that conjugates or negates what lies in memory"
        if not is_dense(p):
            return f"p has strides {p.stride()} and is not dense in memory"
        if g.is_sparse and self.owner.sparse_gradient(slot.group) == "rows":
            if not p.is_contiguous():
                return "the gradient is sparse and p is not contiguous"
            if len(self._program(slot).stages) > 1:
                return "a reduction over a sparse gradient"
        return None

    def _run(self) -> None:
        """Run all units and finish them; if one raises, those that are done."""
        done: list[Unit] = []
        try:
            if self._eager:  # first: a rule called with tensors may raise, or want memory
                self._run_eager(self._eager, done)
            if self._one_stage:
                for unit in self._kernels:
                    unit.run(0, [], [])
                    done.append(unit)
            else:
                self._run_kernels(self._kernels)
                done += self._kernels
        finally:
            for each in done:
                each.finish()
                if self._former.entries:
                    self._former.forget(slot.param for slot in each.slots)

    def _run_kernels(self, units: Sequence[KernelUnit]) -> None:
        """All units in step, so that a sum over all tensors is whole before it is used."""
        sums: list[list[Floats]] = [[] for _ in units]
        elements = [float(sum(unit.work for unit in units))]
        for stage in range(max((len(u.program.stages) for u in units), default=0)):
            for unit, known in zip(units, sums, strict=True):
                if stage < len(unit.program.stages):
                    known += unit.run(stage, known, elements)
            _add_over_units(units, sums, stage)

    def _run_eager(self, units: Sequence[EagerUnit], done: list[Unit]) -> None:
        totals: list[torch.Tensor] = []
        waiting = list(units)
        while waiting:
            parts: dict[EagerUnit, torch.Tensor] = {}
            for unit in waiting:
                part = unit.update(totals)
                if part is None:  # it had all it asked for, and must not be updated a second time
                    done.append(unit)
                else:
                    parts[unit] = part
            waiting = list(parts)
            if parts:
                totals.append(torch.stack([part.cpu() for part in parts.values()]).sum())


def _require(planned: bool) -> None:
    if not planned:
        raise RuntimeError(
            "thalweg: parameters, gradients or options changed while the step was planned; does "
            "another thread change them?"
        )


def _add_over_units(units: Sequence[KernelUnit], sums: list[list[Floats]], stage: int) -> None:
    """Turn each sum over all tensors of this stage into the total, the same for every tensor."""
    scopes = [
        [r.detail for r in u.program.stages[stage].reductions]
        if stage < len(u.program.stages)
        else []
        for u in units
    ]
    longest: list[str] = max(scopes, key=lambda scope: len(scope), default=[])
    for k, scope in enumerate(longest):
        if scope != "all":
            continue
        place = [len(known) - len(own) + k for known, own in zip(sums, scopes, strict=True)]
        total = float(np.sum([float(known[i].sum()) for known, i in zip(sums, place, strict=True)]))
        for known, i in zip(sums, place, strict=True):
            known[i] = np.full_like(known[i], total)
