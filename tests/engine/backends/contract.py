"""What every back end promises: a test class that a back end's test file inherits from.

A problem has two groups of parameters whose options differ, with tensors of several shapes and
layouts, gradients that come late or not at all, and sums over tensors. The back end's units run it;
the same rule, called on float64 tensors as it stands, says what must come out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg import optim
from thalweg.engine.backends.base import Backend, Subject, Unit
from thalweg.engine.backends.eager.apply import apply
from thalweg.engine.initial_states import formats_of, prepare_state
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import GradientKind, Slot, slots_of
from thalweg.engine.state import OptimizerState
from thalweg.engine.sums import run_stages
from thalweg.rule import (
    Program,
    Rule,
    State,
    clip,
    functions,
    lerp,
    maximum,
    mean,
    norm,
    sign,
    sqrt,
    where,
)

STEPS = 8
TOLERANCE = {torch.float64: 1e-12, torch.float32: 4e-6, torch.float16: 2e-2, torch.bfloat16: 6e-2}


# ------------------------------------------------------------------------------------------- rules


@dataclass(frozen=True)
class Case:
    """A rule with the options of its two groups."""

    name: str
    rule: Rule
    options: tuple[Mapping[str, Any], Mapping[str, Any]]

    def __str__(self) -> str:
        return self.name


def _of_class(name: str, label: str = "", **given: Any) -> Case:
    """An optimizer's rule; the second group has half the learning rate."""
    cls = getattr(optim, name)
    groups = []
    for factor in (1.0, 0.5):
        group = cls([torch.zeros(1)], **{**given, "lr": given.get("lr", 0.05) * factor})
        groups.append({k: v for k, v in group.param_groups[0].items() if k != "params"})
    return Case(f"{name}{label and '-'}{label}", cls.rule, (groups[0], groups[1]))


def _trust_ratio(p: Any, g: Any, s: Any, h: Any) -> Any:
    """LARS: a norm over each tensor, and an option that only one group has switched on."""
    g = g + h.weight_decay * p if h.weight_decay else g
    return p - h.lr * norm(p) / (norm(g) + h.eps) * g


def _clipped(p: Any, g: Any, s: Any, h: Any) -> Any:
    """Momentum on gradients of a bounded norm over all tensors."""
    s.momentum = h.momentum * s.momentum + g * where(norm(g, "all") > h.bound, 0.25, 1)
    return p - h.lr * s.momentum


def _two_sums(p: Any, g: Any, s: Any, h: Any) -> Any:
    """Sums over tensors and over all, one after the other, and the mean of what depends on them."""
    centred = g - 0.5 * mean(g)
    scale = sqrt(mean(centred * centred, "all")) + h.eps
    s.energy = lerp(s.energy, centred * centred / scale, 1 - h.beta)
    return p - h.lr * centred / (sqrt(s.energy) + mean(s.energy) + h.eps)


def _handed_on(p: Any, g: Any, s: Any, h: Any) -> Any:
    """States that change places, and one that takes a value as it is."""
    s.first, s.second, s.third = s.second, s.first, p
    s.fourth = 0.5
    return p - h.lr * (g + s.first - s.second) - h.lr * s.third


def _odd_operations(p: Any, g: Any, s: Any, h: Any) -> Any:
    """Conditions, limits and functions that torch has no list form of."""
    small = (abs(g) < h.bound) & ~(p == 0) | (g != g)
    s.memory = where(small, s.memory, maximum(s.memory, g * g)) * h.beta + 1e-3
    turned = 1 / (1 + s.memory) - h.beta / s.memory**1.5
    return clip(p - h.lr * where(small, sign(g), turned) * (2.0**g), -h.limit, h.limit)


def _first_only(p: Any, g: Any, s: Any, h: Any) -> Any:
    """Another program at the first step, and a scalar state."""
    s.weight = s.weight * h.beta + 1
    if h.step == 1:
        s.average = g
    else:
        s.average = s.average + (g - s.average) / s.weight
    return p - h.lr * s.average


OPTIMIZERS = [
    _of_class("SGD"),
    _of_class("SGD", "momentum-decay", momentum=0.9, dampening=0.1, weight_decay=0.1),
    _of_class("SGD", "nesterov-maximize", momentum=0.9, nesterov=True, maximize=True),
    _of_class("Adam", eps=0.01, weight_decay=0.1),
    _of_class("Adam", "amsgrad", eps=0.01, amsgrad=True),
    _of_class("AdamW", eps=0.01, weight_decay=0.1),
    _of_class("Adamax", eps=0.01),
    _of_class("NAdam", eps=0.01),
    _of_class("NAdam", "decoupled", eps=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    _of_class("RAdam", eps=0.1, betas=(0.9, 0.9)),
    _of_class("Adagrad", eps=0.01, lr_decay=0.1, weight_decay=0.1),
    _of_class("Adadelta", eps=1e-2, lr=1.0),
    _of_class("RMSprop", eps=0.01),
    _of_class("RMSprop", "centered-momentum", eps=0.01, centered=True, momentum=0.5),
    _of_class("Rprop", step_sizes=(0.03, 0.06)),
    _of_class("ASGD", t0=2, weight_decay=0.1),
]
_LARS = {"lr": 0.05, "eps": 0.1}
_TWO = {"lr": 0.05, "eps": 1e-2, "beta": 0.9}
_FOUR = {f: State(0.25 * k) for k, f in enumerate(("first", "second", "third", "fourth"))}
_ODD = {"lr": 0.05, "beta": 0.9, "bound": 0.3, "limit": 1.5}
ODD = [
    Case(
        "trust-ratio",
        Rule(_trust_ratio),
        ({**_LARS, "weight_decay": 0.1}, {**_LARS, "weight_decay": 0.0}),
    ),
    Case(
        "clipped",
        Rule(_clipped, {"momentum": 0.0}),
        ({"lr": 0.1, "momentum": 0.9, "bound": 1.0}, {"lr": 0.1, "momentum": 0.5, "bound": 1e9}),
    ),
    Case("two-sums", Rule(_two_sums, {"energy": 0.0}), (_TWO, {**_TWO, "beta": 0.5})),
    Case("handed-on", Rule(_handed_on, _FOUR), ({"lr": 0.05}, {"lr": 0.1})),
    Case("odd-operations", Rule(_odd_operations, {"memory": 1.0}), (_ODD, {**_ODD, "bound": 1.0})),
    Case(
        "first-only",
        Rule(_first_only, {"average": 0.0, "weight": State(0.0, scalar=True)}),
        ({"lr": 0.05, "beta": 0.9}, {"lr": 0.05, "beta": 0.5}),
    ),
]
CASES = OPTIMIZERS + ODD
THRESHOLDS = ("h.bound",)  # compared with, so that a hundredth need not change anything


# ----------------------------------------------------------------------------------------- problems


def _transposed(x: Tensor) -> Tensor:
    return x.t().contiguous().t()


def _every_other(x: Tensor) -> Tensor:
    wide = torch.full((2 * x.numel(),), 7.0, dtype=x.dtype)
    wide[::2] = x
    return wide[::2]


def _expanded(x: Tensor) -> Tensor:
    return x[:1].expand(x.shape)


def _as_is(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Entry:
    """A parameter: its shape, layouts, and whether it has a gradient at a step."""

    shape: tuple[int, ...]
    parameter: Callable[[Tensor], Tensor] = _as_is
    gradient: Callable[[Tensor], Tensor] = _as_is
    present: Callable[[int], bool] = lambda step: True


GROUPS = (
    (
        Entry((7, 5)),
        Entry((0, 3)),
        Entry((5, 4), parameter=_transposed),
        Entry((301,), present=lambda step: step != 2),
    ),
    (
        Entry(()),
        Entry((6, 4), gradient=_transposed),
        Entry((5,), gradient=_expanded),
        Entry((11,), gradient=_every_other),
        Entry((9,), present=lambda step: step >= 2),
    ),
)
ENTRIES = [entry for group in GROUPS for entry in group]


@dataclass
class Problem:
    """Start values and gradients, representable in a dtype.

    Attributes:
        dtype, gradient_dtype: of the parameters and of their gradients.
        state_dtype: of the states; None: the parameters'.
    """

    dtype: torch.dtype = torch.float32
    gradient_dtype: torch.dtype | None = None
    state_dtype: torch.dtype | None = None
    start: list[Tensor] = field(default_factory=list)
    gradients: list[list[Tensor | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.gradient_dtype = self.gradient_dtype or self.dtype
        kind = torch.complex128 if self.dtype.is_complex else torch.float64

        def draw(entry: Entry, dtype: torch.dtype) -> Tensor:
            return torch.randn(entry.shape, dtype=kind, generator=generator).to(dtype)

        self.start = [draw(entry, self.dtype) for entry in ENTRIES]
        self.gradients = [
            [
                entry.gradient(draw(entry, self.gradient_dtype)) if entry.present(step) else None
                for entry in ENTRIES
            ]
            for step in range(STEPS)
        ]

    def rule(self, rule: Rule) -> Rule:
        """A rule with its states in the problem's dtype for them."""
        if self.state_dtype is None:
            return rule
        states = {
            name: state if state.scalar else State(state.initial, dtype=lambda _: self.state_dtype)
            for name, state in rule.states.items()
        }
        return Rule(rule.update, states, counted=rule.counted, name=rule.name)

    @property
    def tolerance(self) -> float:
        """Of :func:`difference`: that of the least exact operand."""
        dtypes = [self.dtype.to_real(), self.state_dtype or self.dtype.to_real()]
        return max(TOLERANCE[dtype] for dtype in dtypes)


@dataclass
class Outcome:
    """Parameters and states in float64, and the numbers kept for each parameter."""

    tensors: list[dict[str, Tensor]]
    numbers: list[dict[str, float]]


# ----------------------------------------------------------------------------------- the two ways


class Stepper:
    """Runs a rule by a back end's units, planned anew at each step.

    Args:
        backend: the back end.
        rule: the rule.
        groups: parameter groups: ``params`` and the rule's options.
        tamper: called with each unit after its constants are computed.
    """

    def __init__(
        self,
        backend: Backend,
        rule: Rule,
        groups: Sequence[Mapping[str, Any]],
        tamper: Callable[[Unit], None] | None = None,
    ) -> None:
        self.backend, self.rule, self.tamper = backend, rule, tamper
        self.slots = slots_of(groups)
        self.scalars = ScalarStates(rule, self.slots)
        self.state = OptimizerState()

    def step(self, rows: bool = False) -> list[Unit]:
        """One step, by new units; returns them."""
        units = self.plan(rows)
        self.run(units)
        return units

    def plan(self, rows: bool = False) -> list[Unit]:
        """The units: parameters that had a gradient before are in one without it, too."""
        members: dict[Any, list[Slot]] = defaultdict(list)
        for slot in self.slots:
            if (g := slot.gradient) is not None:
                slot.kind = GradientKind(g.dtype, g.is_sparse, g.is_sparse and rows)
            if slot.kind is not None:
                members[self._prepared(slot), slot.param.dtype, slot.kind].append(slot)
        return [
            unit
            for (program, *_), slots in members.items()
            for unit in self.backend.units(program, slots, self.scalars)
        ]

    def run(self, units: Sequence[Unit]) -> None:
        """Run units to their end."""
        for unit in units:
            if self.tamper is not None:
                self._tamper_with(unit, self.tamper)
            assert unit.prepare(True)
            assert unit.look(True)
        busy = [unit for unit in units if not unit.idle]
        run_stages(busy, lambda unit, sums: unit.finish())

    def _tamper_with(self, unit: Unit, tamper: Callable[[Unit], None]) -> None:
        """Let the constants be changed as soon as they are computed for the next step."""
        constants = unit.constants

        def prepare(exposed: bool = False) -> bool:
            del constants.prepare  # the method is there again
            held = constants.prepare(exposed)
            tamper(unit)
            return held

        constants.prepare = prepare

    def _prepared(self, slot: Slot) -> Program:
        """A parameter's program, after its states are created."""
        if slot.param not in self.state:
            self.scalars.begin(slot)
        row = self.scalars.table[slot.index].tolist()
        program = self.rule.program(slot.group, [row[0] + 1, *row[1:]])
        prepare_state(self.rule, program, slot, self.state, self.scalars)
        states = {name: slot.tensor(name) for name in program.states}
        g = slot.gradient
        if g is not None and slot.kind is not None:
            formats = formats_of(self.rule, slot, g, states, states)
            slot.formats = {name: form for name, form in formats.items() if form is not None}
            subject = Subject(slot, g, states, formats, slot.kind.rows, lambda: program)
            assert self.backend.obstacle(subject) is None
        return program

    def outcome(self) -> Outcome:
        """Parameters and states as they are now."""
        tensors = [{"p": wide(slot.param), **self._states(slot)} for slot in self.slots]
        names, rows = self.scalars.names, self.scalars.table.tolist()
        return Outcome(tensors, [dict(zip(names, row, strict=True)) for row in rows])

    def _states(self, slot: Slot) -> dict[str, Tensor]:
        held = slot.state or {}
        return {name: wide(slot.tensor(name)) for name in self.rule.tensor_states if name in held}


def run(
    backend: Backend,
    case: Case,
    problem: Problem,
    tamper: Callable[[Unit], None] | None = None,
) -> Outcome:
    """All steps of a problem; no gradient is changed."""
    values = iter(zip(ENTRIES, problem.start, strict=True))
    params: list[Parameter] = []
    groups = []
    for entries, options in zip(GROUPS, case.options, strict=True):
        own = [Parameter(e.parameter(start.clone())) for e, start in _take(values, entries)]
        groups.append({**options, "foreach": True, "params": own})
        params += own
    stepper = Stepper(backend, problem.rule(case.rule), groups, tamper)
    for gradients in problem.gradients:
        for p, g in zip(params, gradients, strict=True):
            give(p, g)
        kept = [None if g is None else g.clone() for g in gradients]
        stepper.step()
        for p, before in zip(params, kept, strict=True):
            assert before is None or torch.equal(p.grad, before), "a step changed a gradient"
    return stepper.outcome()


def _take(values: Iterator[Any], like: Sequence[Any]) -> list[Any]:
    return [next(values) for _ in like]


def give(p: Tensor, g: Tensor | None) -> None:
    """Set a gradient, of another dtype than the parameter's too."""
    if g is not None and g.dtype is not p.dtype:
        p.grad = None
        p.grad_dtype = g.dtype  # type: ignore[attr-defined]
    p.grad = g


def wide(x: Tensor) -> Tensor:
    """A copy in float64, a complex tensor as its parts."""
    x = x.detach()
    return (torch.view_as_real(x) if x.is_complex() else x).double().clone()


class _Missing(Exception):
    """A rule asked for a sum over all tensors that is not known yet."""

    def __init__(self, part: Tensor) -> None:
        self.part = part


@contextmanager
def _sums_over_all(totals: list[Tensor]) -> Iterator[None]:
    """Within, a rule called on tensors finds these sums over all, in the order it asks for them."""
    asked = 0

    def sum_(x: Tensor, over: str) -> Tensor:
        nonlocal asked
        part = torch.sum(x, dtype=torch.float64)
        if over == "tensor":
            return part
        asked += 1
        if asked > len(totals):
            raise _Missing(part)
        return totals[asked - 1]

    before = functions._eager_sum
    functions._eager_sum = sum_
    try:
        yield
    finally:
        functions._eager_sum = before


def reference(case: Case, problem: Problem) -> Outcome:
    """The rule called on float64 tensors, one parameter after the other."""
    rule = case.rule
    options = [o for entries, o in zip(GROUPS, case.options, strict=True) for _ in entries]
    tensors = [{"p": wide(x)} for x in problem.start]
    numbers = [
        {"step": 0.0, **{n: rule.states[n].initial_value(o) for n in rule.scalar_states}}
        for o in options
    ]
    for gradients in problem.gradients:
        present = [k for k, g in enumerate(gradients) if g is not None]
        for k in present:
            numbers[k]["step"] += 1
            row = list(numbers[k].values())
            for name in rule.program(options[k], row).states:
                start = torch.full_like(
                    tensors[k]["p"], rule.states[name].initial_value(options[k])
                )
                tensors[k].setdefault(name, start)
        totals: list[Tensor] = []
        waiting = present
        while waiting:
            parts: dict[int, Tensor] = {}
            for k in waiting:
                states = {name: x for name, x in tensors[k].items() if name != "p"}
                g = wide(gradients[k])
                try:
                    with _sums_over_all(totals):
                        new, new_states, scalars = apply(
                            rule, tensors[k]["p"], g, states, options[k], numbers[k]
                        )
                except _Missing as missing:
                    parts[k] = missing.part
                else:
                    tensors[k].update(new_states, p=new)
                    numbers[k].update({name: float(x) for name, x in scalars.items()})
            waiting = list(parts)
            if parts:
                totals.append(torch.stack(list(parts.values())).sum())
    return Outcome(tensors, numbers)


def difference(ours: Outcome, exact: Outcome) -> float:
    """The largest error, relative to the largest number among all tensors of an operand."""
    errors: dict[str, float] = defaultdict(float)
    largest: dict[str, float] = defaultdict(float)
    for mine, theirs in zip(ours.tensors, exact.tensors, strict=True):
        assert mine.keys() == theirs.keys()
        for name, want in theirs.items():
            if want.numel():
                errors[name] = max(errors[name], (mine[name] - want).abs().max().item())
                largest[name] = max(largest[name], want.abs().max().item())
    return max(errors[name] / largest[name] for name in errors)


# ------------------------------------------------------------------------------------ the contract


class BackendContract:
    """Inherit and set ``backend``; what is inherited runs as the back end's tests."""

    backend: ClassVar[Any]
    problems: ClassVar[dict[str, Problem]] = {
        "float32": Problem(),
        "float64": Problem(torch.float64),
        "bfloat16": Problem(torch.bfloat16),
        "complex64": Problem(torch.complex64),
        "gradients-bfloat16": Problem(torch.float32, torch.bfloat16),
        "states-float64": Problem(torch.float32, None, torch.float64),
    }

    @pytest.mark.parametrize("problem", problems)
    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_agrees_with_the_rule_in_float64(self, case: Case, problem: str) -> None:
        given = self.problems[problem]
        if given.dtype.is_complex and given.state_dtype is not None:
            pytest.skip("a real state of a complex parameter")
        ours = run(self.backend, case, given)
        exact = reference(case, given)
        assert difference(ours, exact) <= given.tolerance
        for mine, theirs in zip(ours.numbers, exact.numbers, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-12)
        for k, (mine, start) in enumerate(zip(ours.tensors, given.start, strict=True)):
            moved = not torch.equal(mine["p"], wide(start))
            assert moved or not start.numel(), f"parameter {k} did not move"

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_a_constant_off_by_a_hundredth_is_noticed(self, case: Case) -> None:
        problem = Problem()
        exact = reference(case, problem)
        noticed = 0
        for number, constant in enumerate(_later_program(case).constants):
            if constant.op == "literal" or constant.is_condition or constant.detail in THRESHOLDS:
                continue

            def tamper(unit: Unit, number: int = number) -> None:
                if number < len(unit.program.constants):
                    unit.constants.values = [
                        [v * 1.01 if k == number else v for k, v in enumerate(row)]
                        for row in unit.constants.values
                    ]

            ours = run(self.backend, case, problem, tamper)
            assert difference(ours, exact) > 2 * problem.tolerance, constant
            noticed += 1
        assert noticed


def _later_program(case: Case) -> Program:
    """The program of a later step of the first group."""
    options, rule = case.options[0], case.rule
    initial = [rule.states[name].initial_value(options) for name in rule.scalar_states]
    return rule.program(options, [float(STEPS), *initial])
