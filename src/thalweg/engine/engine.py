"""The engine: runs one rule over all parameters of an optimizer.

A step goes through four phases, and only the third changes what a user can see:

1. prepare: does the plan still hold? Evaluate the scalars of every group.
2. look: where are parameters, gradients and states now?
3. run: all units, stage by stage.
4. finish: count the step, tell autograd of what was written.

Where the plan does not hold, another is made, and the step begins anew. Ctrl-C waits from the look
on. A step that ends before the third phase takes the states that it has created away again: a first
update is told by them.
"""

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from thalweg.engine.backends.base import Unit
from thalweg.engine.backends.base import Values as Sum
from thalweg.engine.formats import Format
from thalweg.engine.initial_states import prepare_state
from thalweg.engine.interrupts import uninterrupted
from thalweg.engine.plan import Owner, Plan, Planner
from thalweg.engine.slots import Slot, Values
from thalweg.engine.sums import Sums, VetoedError, run_stages
from thalweg.engine.support import Choice
from thalweg.engine.torch_internals import not_traced
from thalweg.forks import in_child
from thalweg.rule import Program, Rule

# One for what is not as it was, another where that turns out to overlap.
MOST_PLANS = 2


class Measured(NamedTuple):
    """What a step has measured of the parameters of one unit.

    Attributes:
        slots: the parameters.
        absent: the places in ``slots`` of those without a gradient.
        sums: for each name a value for each slot.
    """

    slots: Sequence[Slot]
    absent: Sequence[int]
    sums: Mapping[str, Sum]


# For what a forked process has of them.
_engines: weakref.WeakSet["Engine"] = weakref.WeakSet()


class Engine:
    """Runs one rule for one owner.

    Args:
        rule: the rule.
        owner: whose groups and state it runs over; the engine does not keep it alive.
        values: the rule's second operand for each parameter, group by group, where that is not the
            parameter's gradient. May be replaced between steps.

    Attributes:
        measured: what the last step has measured.
    """

    def __init__(self, rule: Rule, owner: Owner, values: Values | None = None) -> None:
        self.rule = rule
        self.values = values
        self._owner = weakref.ref(owner)
        self.measured: list[Measured] = []
        self._planner = Planner(rule)
        self._plan = Plan()
        # Two threads in one plan would free the tables under each other's kernels.
        self._one_at_a_time = threading.RLock()
        _engines.add(self)

    @property
    def owner(self) -> Owner:
        """Whose groups and state it runs over."""
        owner = self._owner()
        assert owner is not None, "an engine is asked by its owner"
        return owner

    @property
    def units(self) -> list[Unit]:
        """The units of the last plan."""
        return self._plan.units

    @property
    def choices(self) -> dict[int, Choice]:
        """How each parameter of the last plan is updated and why, by the slot's index."""
        return self._plan.choices

    @not_traced
    def step(self, count: Callable[[], None] | None = None) -> None:
        """Update every parameter that has a gradient.

        Args:
            count: called when all of them are updated, before Ctrl-C is handled again.
        """
        with self._one_at_a_time:
            owner = self.owner
            if self.measured:
                self.measured = []
            try:
                plan = self._plan
                access = owner.state.access
                if not (plan.holds(owner, access, self.values) and plan.prepare(access)):
                    plan = self._plan_anew(owner)
                with uninterrupted() as block:
                    if plan.together is not None and plan.together.run(access.exposed):
                        self._finish(plan.units, plan.units)
                    else:
                        for _ in range(MOST_PLANS):
                            if plan.look(owner.state.access):
                                break
                            plan = block.but_for(lambda: self._plan_anew(owner))
                        else:
                            _require(plan.look(owner.state.access))
                        self._run(plan)
                    if count is not None:
                        count()
            except BaseException as error:
                if not isinstance(error, VetoedError):
                    # A signal's handler may have ended a unit amid noting where something lies.
                    self.plan_anew()
                    self._planner.forget_units()
                with uninterrupted():
                    self._planner.former.put_back(owner.state)
                raise

    def _plan_anew(self, owner: Owner) -> Plan:
        self.plan_anew()  # whatever raises below, the next step plans again
        owner.before_plan()
        plan = self._plan = self._planner.plan(owner, self.values, self._plan.overlapping)
        access = owner.state.access
        _require(plan.holds(owner, access, self.values) and plan.prepare(access))
        return plan

    def _run(self, plan: Plan) -> None:
        """Run all units and finish them; if one raises, those that are done."""
        done: list[Unit] = []
        busy = [unit for unit in plan.units if not unit.idle]

        def take(unit: Unit, sums: Sums) -> None:
            done.append(unit)
            if unit.program.measured:
                named = {name: sums[node] for name, node in unit.program.measured}
                self.measured.append(Measured(unit.slots, unit.absent, named))

        try:
            run_stages(busy, take)
        except BaseException:
            for unit in busy:
                if unit not in done:
                    unit.let_go()
            raise
        finally:
            self._finish(done, busy)

    def _finish(self, done: list[Unit], begun: list[Unit]) -> None:
        for unit in done:
            if not unit.idle:
                unit.finish()
        if self._planner.former.entries:
            self._keep_states(done, begun)

    def _keep_states(self, done: list[Unit], begun: list[Unit]) -> None:
        """Keep the states that were created for what has been updated now."""
        former = self._planner.former
        for unit in done:
            former.forget(slot.param for slot in unit.slots)
        for unit in begun:
            if unit not in done:
                former.forget(unit.slots[k].param for k in unit.updated)

    def begin_in_child(self) -> None:
        """Let go, in a forked process, of a lock whose holder was another thread of the parent."""
        self._one_at_a_time = threading.RLock()
        self.plan_anew()

    # ---- beside the step --------------------------------------------------------------------

    def plan_anew(self) -> None:
        """Make another plan at the next step."""
        self._plan.made_for = None

    def look_at_slots(self) -> list[Slot]:
        """The parameters as they are now, without planning a step."""
        with self._one_at_a_time:
            self._planner.take_slots(self.owner, self.values)
            self.plan_anew()
            return self._planner.slots

    def preview(self, slot: Slot) -> tuple[Program, dict[str, Format | None], Choice]:
        """The program, formats and back end of a parameter's next update, changing nothing.

        A parameter without a gradient is taken to get one of its own dtype.
        """
        program, subject, choice = self._planner.preview(self.owner, slot)
        return program, {name: subject.formats[name] for name in program.operands}, choice

    @property
    def shown_scalars(self) -> list[str]:
        """The scalar states that appear in ``optimizer.state``."""
        return [*(["step"] if self.rule.counted else []), *self.rule.kept_scalars]

    def give(self, name: str, value: float) -> None:
        """Set a scalar of the rule that is ``given``, from the next step on."""
        with self._one_at_a_time, uninterrupted():
            self._planner.give(name, value)

    def create_states(self) -> None:
        """Create the states of all parameters now, not when each is first updated."""
        with self._one_at_a_time:
            owner, planner = self.owner, self._planner
            planner.take_slots(owner, self.values)
            for slot in planner.slots:
                program = planner.program(owner, slot)
                prepare_state(self.rule, program, slot, owner.state, planner.scalars)
            self.plan_anew()

    def share_memory(self) -> None:
        """Move all states into shared memory."""
        with self._one_at_a_time, uninterrupted():
            self.create_states()
            self._planner.scalars.share_memory()
            for slot in self._planner.slots:
                entries = slot.state.snapshot() if slot.state is not None else {}
                for name, tensor in entries.items():
                    if name not in ("step", *self.rule.scalar_states):
                        tensor.share_memory_()
            self._planner.forget_units()
            self.owner.state.access.exposed = True  # to other processes


@in_child
def _begin_in_child() -> None:
    for engine in list(_engines):
        engine.begin_in_child()


def _require(planned: bool) -> None:
    if not planned:
        raise RuntimeError(
            "thalweg: parameters, gradients or options changed while the step was planned; does "
            "another thread change them?"
        )
