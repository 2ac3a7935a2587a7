"""Plans: which units update which parameters.

A plan is made when the engine first steps and whenever something that it was made for is no longer
so: a parameter or group was added, a state replaced, a switch set. Gradients that are absent need
no other plan: a unit leaves their parameters out. Nor do parameters or gradients that have moved:
units read addresses at each step.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import is_, itemgetter
from typing import Any, Protocol

import torch

from thalweg.engine.backends import find
from thalweg.engine.backends.base import Backend, Subject, Unit
from thalweg.engine.backends.cpu.addresses import Identities, watched
from thalweg.engine.backends.cpu.together import Together
from thalweg.engine.initial_states import check_state, formats_of, prepare_state
from thalweg.engine.overlaps import Ranges
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import GradientKind, Group, Slot, Values, slots_of
from thalweg.engine.state import Access, FormerEntries, OptimizerState
from thalweg.engine.support import (
    OVERLAPPING,
    Choice,
    GradientPolicy,
    check_gradient,
    choose,
    warn_of_no_kernel,
)
from thalweg.rule import Program, Rule

# Units that are kept for when the switches are set again as they were.
KEPT_UNITS = 64

_PARAMS = itemgetter("params")


class Owner(GradientPolicy, Protocol):
    """What the engine needs of an optimizer."""

    @property
    def param_groups(self) -> list[Any]:
        """Parameters with their options, as mappings."""

    @property
    def state(self) -> OptimizerState:
        """The states of all parameters."""

    @property
    def fused(self) -> bool | None:
        """The option of groups that do not give it."""

    def check_options(self, options: Group) -> None:
        """Raise where an option is missing or out of its range."""

    def before_plan(self) -> None:
        """Bring groups and values up to date, or raise; called before each plan."""

    def check_program(self, rule: Rule, program: Program) -> None:
        """Raise for a program of one of its parameters that it cannot have run."""


@dataclass
class Plan:
    """Who is updated how.

    Attributes:
        units: the units, those that may raise first.
        choices: of each parameter that a unit updates, by the slot's index.
        waiting: the parameters that have had no gradient yet.
        made_for: what it was made for; None: nothing, make another.
        together: what looks and runs in one call, where that can be.
        overlapping: at the last look, the parameters that a kernel must not update side by side.
    """

    units: list[Unit] = field(default_factory=list)
    choices: dict[int, Choice] = field(default_factory=dict)
    waiting: list[Slot] = field(default_factory=list)
    made_for: "Surroundings | None" = None
    together: Together | None = None
    overlapping: frozenset[int] = frozenset()

    def holds(self, owner: Owner, access: Access, values: Values | None) -> bool:
        """Whether groups, parameters and states are what it was made for."""
        return (
            self.made_for is not None
            and self.made_for.hold(owner, access, values)
            and (not self.waiting or all(slot.gradient is None for slot in self.waiting))
        )

    def prepare(self, access: Access) -> bool:
        """Compute all units' constants; False if a switch is not as it was."""
        exposed = access.exposed
        return False not in [unit.prepare(exposed) for unit in self.units]

    def look(self, access: Access) -> bool:
        """Find all units' operands; False if some are not what was planned for."""
        exposed = access.exposed
        if False in [unit.look(exposed) for unit in self.units]:
            return False
        if any(unit.moved for unit in self.units):
            found = [unit.ranges() for unit in self.units]
            ranges = Ranges.of([each for each in found if each is not None])
            self.overlapping = ranges.overlapping()
            if self.overlapping:
                return False
            for unit in self.units:
                unit.avoid(*ranges.only_written())
        return True


class Surroundings:
    """What a plan depends on: groups, their switches, parameters, values, the dict of states.

    Keeps the objects, not their ids, which could be others' by now.
    """

    def __init__(self, owner: Owner, values: Values | None) -> None:
        self._groups = list(owner.param_groups)
        self._switches = list(map(_switches, self._groups))
        self._access = owner.state.access
        self._changes = self._access.changes
        self._parameters = Identities([*map(_PARAMS, self._groups), *(values or ())])

    def hold(self, owner: Owner, access: Access, values: Values | None) -> bool:
        """Whether they are the same as when this was made."""
        groups = owner.param_groups
        if access is not self._access or access.changes != self._changes:
            return False
        if len(groups) != len(self._groups) or not all(map(is_, groups, self._groups)):
            return False
        if list(map(_switches, groups)) != self._switches:
            return False
        lists = list(map(_PARAMS, groups))
        return self._parameters.hold(lists if values is None else [*lists, *values])


def _switches(group: Group) -> tuple[Any, ...]:
    """The options that decide on the back end."""
    fused = group.get("fused", ...)  # None, where the owner says otherwise, is a choice
    return fused, group.get("foreach"), group.get("differentiable")


class Planner:
    """Makes the plans of one engine.

    Args:
        rule: the rule.

    Attributes:
        former: what the plan found of states, until each is updated.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        # The numbers of the one are those of the other: one store, which no signal cuts in two.
        self._numbered: tuple[list[Slot], ScalarStates] = [], ScalarStates(rule, [])
        self.former = FormerEntries()
        self._given: dict[str, float] = {}
        self._programs: dict[tuple[float, ...], Program] = {}  # found during one plan
        self._units: OrderedDict[Any, Sequence[Unit]] = OrderedDict()

    @property
    def slots(self) -> list[Slot]:
        """The parameters, as they were when they were last looked at."""
        return self._numbered[0]

    @property
    def scalars(self) -> ScalarStates:
        """Their scalar states."""
        return self._numbered[1]

    def plan(
        self, owner: Owner, values: Values | None, apart: frozenset[int] = frozenset()
    ) -> Plan:
        """Make a plan; states of parameters with a gradient are created.

        Args:
            owner: the optimizer.
            values: what stands for the gradients, if anything does.
            apart: the parameters that are updated one after the other, in their order, as their
                memory overlaps with that of others.

        Raises:
            RuntimeError: a gradient that cannot be used; ``fused=True`` where it cannot be.
        """
        self.former.put_back(owner.state)
        self.take_slots(owner, values)
        subjects = list(self._subjects(owner))
        plan = Plan()
        backends: dict[Slot, Backend] = {}
        gradients = dict(subjects)
        for slot, g in subjects:
            check_gradient(self.rule, owner, slot, g)
            rows = g.is_sparse and owner.sparse_gradient(slot.group) == "rows"
            slot.kind = GradientKind(g.dtype, g.is_sparse, rows)
            subject = self._subject(owner, slot, g, rows)
            if slot.index in apart:
                backends[slot], plan.choices[slot.index] = OVERLAPPING
            else:
                backends[slot], plan.choices[slot.index] = choose(self.rule, subject)
        members: dict[Any, list[Slot]] = defaultdict(list)
        for slot, backend in backends.items():
            self.former.note(owner.state, slot.param)
            prepare_state(self.rule, self.program(owner, slot), slot, owner.state, self.scalars)
            program = self.program(owner, slot)  # the state may have brought another step count
            owner.check_program(self.rule, program)
            if program.clears and slot.index in apart:
                raise RuntimeError(
                    f"{self.rule.name}: zero_grad_after cannot be had where parameters or "
                    f"gradients share memory, as those of {slot.name}; call zero_grad() instead"
                )
            p, g = slot.param, gradients[slot]
            states = {name: slot.tensor(name) for name in program.states}
            formats = formats_of(self.rule, slot, g, states, states)
            slot.formats = {name: form for name, form in formats.items() if form is not None}
            dtypes = tuple(tensor.dtype for tensor in states.values())
            # A group that autograd sees through runs apart from others.
            own: Any = bool(slot.group.get("differentiable"))
            if slot.index in apart:
                own = slot.index
            kinds = (p.dtype, p.device, slot.kind, dtypes, *slot.formats.values())
            key = (backend.name, program, *kinds, own)
            members[key].append(slot)
        warn_of_no_kernel(self.rule, ((slot, plan.choices[slot.index]) for slot in backends))
        self.former.forget_unchanged(owner.state)
        for key, slots in members.items():
            plan.units += self._units_for(key, slots)
        # First those that may raise, or want memory.
        order = {"eager": 0, "foreach": 1}
        plan.units.sort(key=lambda unit: order.get(plan.choices[unit.slots[0].index].backend, 2))
        plan.together = Together.of(plan.units)
        plan.waiting = [slot for slot in self.slots if slot.index not in plan.choices]
        plan.made_for = Surroundings(owner, values)
        return plan

    def _subjects(self, owner: Owner) -> Iterator[tuple[Slot, torch.Tensor]]:
        """The parameters to plan for, with their gradients.

        One that has no gradient now is planned for another of the kind that it had, as long as that
        needs no new state: whether a state is there tells a first update.
        """
        for slot in self.slots:
            g = slot.gradient
            if g is None:
                g = self._stand_in(owner, slot)
            if g is not None:
                yield slot, g

    def _stand_in(self, owner: Owner, slot: Slot) -> torch.Tensor | None:
        entry = owner.state.get(slot.param)
        if slot.kind is None or (entry is None and self.rule.states):
            return None
        p, kind = slot.param.detach(), slot.kind
        layout = torch.sparse_coo if kind.sparse else torch.strided
        if p.dtype is kind.dtype and not kind.sparse:
            g = p
        else:
            g = torch.zeros(p.shape, dtype=kind.dtype, device=p.device, layout=layout)
        try:
            check_gradient(self.rule, owner, slot, g)
            choose(self.rule, self._subject(owner, slot, g, kind.rows))
            for name in self.program(owner, slot).states:
                tensor = None if entry is None else entry.peek(name)
                if tensor is None:
                    return None
                check_state(self.rule, name, slot, tensor)
        except RuntimeError:  # to be told when there is one
            return None
        return g

    def _units_for(self, key: Any, slots: list[Slot]) -> Sequence[Unit]:
        """The units for these slots: those of an earlier plan, where they were the same."""
        if slots[0].group.get("differentiable"):
            # Each step of theirs makes new states, whose ids could be those of tensors now gone.
            return find(key[0]).units(key[1], slots, self.scalars)
        names = ("p", *key[1].states)
        operands = [id(t) for slot in slots for name in names for t in _buffers(slot, name)]
        full = (*key, self.scalars, tuple(slot.index for slot in slots), tuple(operands))
        units = self._units.pop(full, None)
        if units is None or not all(unit.look(exposed=True) for unit in units):
            units = find(key[0]).units(key[1], slots, self.scalars)
        for unit in units:
            unit.moved = True  # among others than before
        self._units[full] = units
        if len(self._units) > KEPT_UNITS:
            self._units.popitem(last=False)
        return units

    def give(self, name: str, value: float) -> None:
        """Set a scalar of the rule that is given for each step."""
        self._given[name] = value
        self.scalars.give(name, value)

    def forget_units(self) -> None:
        """Make all units anew at the next plan: what they were made for is no longer so."""
        self._units.clear()

    def _subject(self, owner: Owner, slot: Slot, g: torch.Tensor, rows: bool) -> Subject:
        entry = slot.state = owner.state.get(slot.param)  # it may have been replaced
        states = {}
        if entry is not None:
            found = {name: entry.peek(name) for name in self.rule.tensor_states}
            states = {name: t for name, t in found.items() if t is not None}
        formats = formats_of(self.rule, slot, g, states, self.rule.tensor_states)
        return Subject(slot, g, states, formats, rows, lambda: self.program(owner, slot))

    def preview(self, owner: Owner, slot: Slot) -> tuple[Program, Subject, Choice]:
        """The program, operands and back end of a parameter's next update, changing nothing.

        A parameter without a gradient is taken to get one of its own dtype.
        """
        g = slot.gradient if slot.gradient is not None else slot.param.detach()
        rows = g.is_sparse and owner.sparse_gradient(slot.group) == "rows"
        subject = self._subject(owner, slot, g, rows)
        return self.program(owner, slot), subject, choose(self.rule, subject)[1]

    def take_slots(self, owner: Owner, values: Values | None) -> None:
        """Number the parameters anew, keeping the scalar states of those that stay."""
        self._programs.clear()  # options may have changed
        self.scalars.hold()  # whoever shared a view has moved all of them
        before = {id(slot.param): slot for slot in self.slots}
        slots = slots_of(owner.param_groups, values, owner.fused)
        if [_identity(slot) for slot in slots] == [_identity(slot) for slot in self.slots]:
            return
        same = [id(slot.param) for slot in slots] == list(before)
        scalars = self.scalars if same else ScalarStates(self.rule, slots, watched, self._given)
        for slot in slots:
            old = before.get(id(slot.param))
            if old is not None:
                slot.kind = old.kind
                slot.state = old.state if same else None
                if not same:
                    scalars.table[slot.index] = self.scalars.table[old.index]
        self.forget_units()
        self._numbered = slots, scalars

    def program(self, owner: Owner, slot: Slot) -> Program:
        """The program of a parameter's next update, which counts one step more."""
        if slot.param not in owner.state:
            self.scalars.begin(slot)
        row: list[float] = self.scalars.table[slot.index].tolist()
        row[0] += 1
        case = (id(slot.group), *row)
        if case not in self._programs:
            try:
                self._programs[case] = self.rule.program(slot.group, row)
            except (AttributeError, TypeError):
                owner.check_options(slot.group)  # an option may be missing or of another kind
                raise
        return self._programs[case]


def _buffers(slot: Slot, operand: str) -> list[torch.Tensor]:
    return slot.buffers(operand) if operand in slot.formats else [slot.tensor(operand)]


def _identity(slot: Slot) -> tuple[int, int, int, str]:
    """What units keep of a slot; the objects are alive as long as the slots are compared."""
    return id(slot.param), id(slot.group), id(slot.value), slot.name
