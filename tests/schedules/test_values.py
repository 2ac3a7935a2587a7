"""Every shape against its paper's formula, against torch's schedulers, and within its bounds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from tests.ids import shown, shown_briefly
from tests.schedules.examples import SHAPES, composed, ending, endless, shape, step, times, value
from thalweg.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Function,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Rex,
    Schedule,
    Step,
    Table,
    Warmup,
    WarmupStableDecay,
    blend,
)

# --------------------------------------------------------------------------------- papers' formulas


def annealed(high: float, low: float, position: float, length: float) -> float:
    """SGDR, equation 5, as it is printed."""
    return low + 0.5 * (high - low) * (1 + math.cos(position / length * math.pi))


def restarts(high: float, low: float, first: int, growth: int, t: float) -> float:
    begin, length = 0, first
    while t >= begin + length:
        begin, length = begin + length, length * growth
    return annealed(high, low, t - begin, length)


def triangle(base: float, top: float, half: int, t: float) -> float:
    """Cyclical learning rates, the listing of section 3.1."""
    cycle = math.floor(1 + t / (2 * half))
    x = abs(t / half - 2 * cycle + 1)
    return base + (top - base) * max(0.0, 1 - x)


def cycle_number(half: int, t: float) -> int:
    return math.floor(1 + t / (2 * half))


def attention(model: float, warmup: float, t: float) -> float:
    """Attention is all you need, equation 3."""
    return model**-0.5 * min(t**-0.5 if t else math.inf, t * warmup**-1.5)


def cosine(x: float) -> float:
    return math.cos(math.pi * x / 2) ** 2  # (1 + cos(pi x)) / 2 by the half angle


FORMULAS: list[tuple[Schedule, Callable[[float], float]]] = [
    (Constant(0.3), lambda t: 0.3),
    (Step(7, 0.3, 2), lambda t: 2 * 0.3 ** math.floor(t / 7)),
    (MultiStep((3, 8, 8, 20), 0.5, 4), lambda t: 4 * 0.5 ** sum(m <= t for m in (3, 8, 8, 20))),
    (Exponential(0.93, 2), lambda t: 2 * math.exp(t * math.log(0.93))),
    (Exponential(0), lambda t: 1.0 if t == 0 else 0.0),
    (Linear(1, 0.2, 12), lambda t: 1 - 0.8 * min(t, 12) / 12),
    (Polynomial(1, 0.2, 12, 2), lambda t: 0.2 + 0.8 * (1 - min(t, 12) / 12) ** 2),
    (Polynomial(0, 2, 12, 0.5), lambda t: 2 - 2 * math.sqrt(1 - min(t, 12) / 12)),
    (Cosine(1, 0.1, 12), lambda t: annealed(1, 0.1, min(t, 12), 12)),
    (Rex(1, 0, 12), lambda t: 2 * (1 - min(t, 12) / 12) / (2 - min(t, 12) / 12)),
    (CosineRestarts(1, 0.1, 5), lambda t: annealed(1, 0.1, t % 5, 5)),
    (CosineRestarts(1, 0.1, 3, 2), lambda t: restarts(1, 0.1, 3, 2, t)),
    (Cyclic(0.1, 1, 4), lambda t: triangle(0.1, 1, 4, t)),
    (
        Cyclic(0.1, 1, 4, mode="triangular2"),
        lambda t: 0.1 + (triangle(0.1, 1, 4, t) - 0.1) / 2 ** (cycle_number(4, t) - 1),
    ),
    (
        Cyclic(0.1, 1, 4, mode="exp_range", gamma=0.97),
        lambda t: 0.1 + (triangle(0.1, 1, 4, t) - 0.1) * 0.97**t,
    ),
    (
        Cyclic(0.1, 1, 4, scale=lambda c: 1 / c),
        lambda t: 0.1 + (triangle(0.1, 1, 4, t) - 0.1) / cycle_number(4, t),
    ),
    (
        Cyclic(0.1, 1, 4, scale=lambda t: 3 + t, scale_by="iterations"),
        lambda t: 0.1 + (triangle(0.1, 1, 4, t) - 0.1) * (3 + t),
    ),
    (Cyclic(1, 0.1, 4), lambda t: 1.1 - triangle(0.1, 1, 4, t)),
    (Cyclic(0, 1, 3, 1), lambda t: min(t % 4 / 3, 4 - t % 4)),
    (Cyclic(0, 1, 3, 0), lambda t: t % 3 / 3),
    (Warmup(8, 0.2), lambda t: min(1, 0.2 + 0.1 * t)),
    (Warmup(8, 0.2, 1, "cosine"), lambda t: 0.2 + 0.8 * (1 - cosine(min(t, 8) / 8))),
    (Warmup(8, 0.01, 1, "exponential"), lambda t: 10 ** (-2 + min(t, 8) / 4)),
    (WarmupStableDecay(4, 6, 5), lambda t: max(0, min(t / 4, 1, (15 - t) / 5))),
    (
        WarmupStableDecay(4, 6, 5, 2, 1, 0.5, "cosine"),
        lambda t: min(1 + t / 4, 0.5 + 1.5 * cosine(min(max(t - 10, 0), 5) / 5)),
    ),
    (
        WarmupStableDecay(4, 6, 5, shape="sqrt"),
        lambda t: min(t / 4, 1 - math.sqrt(min(max(t - 10, 0), 5) / 5)),
    ),
    (InverseSqrt(9, attention(512, 9, 9)), lambda t: attention(512, 9, t)),
    (Table((3, 1, 2)), lambda t: (3, 1, 2)[math.floor(t)]),
    (
        Table((3, 1, 2), interpolate=True),
        lambda t: 3 - 2 * t if t <= 1 else min(t, 2),
    ),
    (Function(math.sqrt), math.sqrt),
]


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=shown_briefly)
def test_formula(schedule: Schedule, formula: Callable[[float], float]) -> None:
    for t in times(schedule, 60):
        assert schedule(t) == pytest.approx(formula(t), rel=1e-13, abs=1e-14), t


def test_every_shape_has_a_formula() -> None:
    assert {type(schedule) for schedule in SHAPES} <= {
        OneCycle,  # below
        *(type(schedule) for schedule, _ in FORMULAS),
    }


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("way", ["linear", "cosine"])
def test_one_cycle_phase_by_phase(way: str, three: bool) -> None:
    schedule = OneCycle(1, 5, 0, steps=21, peak_at=1 / 3, shape=way, three_phase=three)
    corners = {0: 1, 6: 5, 12: 1, 20: 0} if three else {0: 1, 6: 5, 20: 0}
    assert {t: schedule(t) for t in corners} == corners
    ends = sorted(corners)
    for a, b in pairwise(ends):
        middle = (corners[a] + corners[b]) / 2
        assert schedule((a + b) / 2) == pytest.approx(middle, abs=1e-14)
        quarter = 0.75 if way == "linear" else (1 + math.sqrt(0.5)) / 2
        expected = corners[b] + (corners[a] - corners[b]) * quarter
        assert schedule(a + (b - a) / 4) == pytest.approx(expected, abs=1e-14)
    assert schedule(20.5) == schedule(21) == 0


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        # The peak lies before the first step: it is already on its way down.
        (OneCycle(1, 5, 0, 4, 0.0, "linear"), [3.75, 2.5, 1.25, 0, 0]),
        # A rise of no length is at its peak.
        (OneCycle(1, 5, 0, 5, 0.2, "linear"), [5, 3.75, 2.5, 1.25, 0, 0]),
        # So is a fall of no length at its end.
        (OneCycle(1, 5, 0, 5, 1.0, "linear"), [1, 2, 3, 4, 5, 0]),
        (OneCycle(1, 5, 0, 1), [0, 0]),
        (OneCycle(1, 5, 0, 9, 5 / 9, "linear", three_phase=True), [1, 2, 3, 4, 5, 4, 3, 2, 1, 0]),
    ],
)
def test_one_cycle_at_its_limits(schedule: OneCycle, values: list[float]) -> None:
    assert schedule.values(len(values)) == pytest.approx(values, abs=1e-14)


# ------------------------------------------------------------------------------- torch's schedulers


def cycle(start: float, peak: float, up: int, down: int, mode: str = "triangular", **more: Any):
    """The pair of a Cyclic and torch's."""
    return (
        Cyclic(start, peak, up, down, mode, **more),
        lambda o: lr_scheduler.CyclicLR(
            o, start, peak, up, down, mode, cycle_momentum=False, **more
        ),
    )


def one_cycle(peak: float, steps: int, div: float, final: float, **more: Any):
    """The pair of a OneCycle and torch's."""
    ours = {"cos": "cosine", "linear": "linear"}[more.get("anneal_strategy", "cos")]
    at, three = more.get("pct_start", 0.3), more.get("three_phase", False)
    return (
        OneCycle(peak / div, peak, peak / div / final, steps, at, ours, three),
        lambda o: lr_scheduler.OneCycleLR(
            o, peak, steps, div_factor=div, final_div_factor=final, cycle_momentum=False, **more
        ),
    )


TORCH: list[tuple[Schedule, Callable[[torch.optim.Optimizer], Any]]] = [
    (Step(7, 0.3), lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
    (MultiStep((3, 8, 8), 0.5), lambda o: lr_scheduler.MultiStepLR(o, [3, 8, 8], 0.5)),
    (Exponential(0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    (Constant(0.3).then(1, at=6), lambda o: lr_scheduler.ConstantLR(o, 0.3, 6)),
    (Linear(0.2, 0.9, 11), lambda o: lr_scheduler.LinearLR(o, 0.2, 0.9, 11)),
    (Linear(1, 0.1, 11), lambda o: lr_scheduler.LinearLR(o, 1, 0.1, 11)),
    (Polynomial(1, 0, 90, 2.5), lambda o: lr_scheduler.PolynomialLR(o, 90, 2.5)),
    (Polynomial(1, 0, 13), lambda o: lr_scheduler.PolynomialLR(o, 13)),
    (Cosine(1, 0.1, 80), lambda o: lr_scheduler.CosineAnnealingLR(o, 80, 0.1)),
    (
        Cosine(1, 0.1, 9).repeated(mirrored=True),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 9, 0.1),
    ),
    (CosineRestarts(1, 0.1, 7), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7, 1, 0.1)),
    (CosineRestarts(1, 0, 3, 2), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2)),
    cycle(0.1, 1, 7, 5),
    cycle(0.01, 1, 4, 9, "triangular2"),
    cycle(0.1, 1, 6, 6, "exp_range", gamma=0.97),
    one_cycle(1, 61, 25, 1e4),
    one_cycle(1, 61, 10, 100, pct_start=0.17, anneal_strategy="linear"),
    one_cycle(2, 61, 25, 1e4, three_phase=True),
    one_cycle(2, 61, 4, 10, pct_start=0.5, three_phase=True, anneal_strategy="linear"),
    one_cycle(2, 61, 4, 10, pct_start=0.0),
    one_cycle(2, 61, 4, 10, pct_start=1.0),
]


@pytest.mark.parametrize(("schedule", "make"), TORCH, ids=shown_briefly)
def test_torch(schedule: Schedule, make: Callable[[torch.optim.Optimizer], Any]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    for t in range(61):
        # torch steps from one value to the next: its rounding grows with the height of the shape.
        assert schedule(t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12, abs=1e-14)
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if t < 60:
                scheduler.step()


def test_torch_restarts_at_fractions_of_an_epoch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3, 2, 0.1)
    optimizer.step()
    for i in range(200):
        t = i / 8 + 1 / 16  # on the boundary itself torch's logarithm may choose the wrong cycle
        scheduler.step(t)
        rate = optimizer.param_groups[0]["lr"]
        assert CosineRestarts(1, 0.1, 3, 2)(t) == pytest.approx(rate, rel=1e-12)


# ----------------------------------------------------------------------------- ends, limits, bounds


@given(value, value)
def test_blend_is_exact_at_its_ends(start: float, end: float) -> None:
    assert blend(start, end, 1) == start
    assert blend(start, end, 0) == end


@given(value, value, st.floats(0, 1))
def test_blend_stays_between(start: float, end: float, weight: float) -> None:
    assert min(start, end) <= blend(start, end, weight) <= max(start, end)


@given(value, value, st.floats(0, 1), st.floats(0, 1))
def test_blend_is_monotone(start: float, end: float, a: float, b: float) -> None:
    (low, high), (first, last) = sorted((start, end)), sorted((a, b))
    assert blend(high, low, first) <= blend(high, low, last)


@pytest.mark.parametrize("scale", [1e-320, 1e-8, 1.0, 1e8, 1e300])
def test_blend_next_to_its_ends_stays_between(scale: float) -> None:
    random = Random(0)
    weights = [math.nextafter(1, 0), 1 - 1e-15, math.nextafter(0, 1), 1e-16]
    for _ in range(5000):
        start, end = random.uniform(-5, 5), random.uniform(-5, 5) * scale
        for weight in weights:
            assert min(start, end) <= blend(start, end, weight) <= max(start, end)


def test_blend_extrapolates() -> None:
    assert (blend(1, 3, 2), blend(1, 3, -1)) == (-1, 5)


@given(endless, step)
def test_shapes_stay_within_their_bounds(schedule: Schedule, t: float) -> None:
    low, high = schedule.bounds
    assert low <= schedule(t) <= high


@pytest.mark.parametrize(
    ("schedule", "t"),
    [
        # Found by search: here the formula itself rounds to a value outside.
        (Cyclic(0, 1, 0.2, 1.9), math.nextafter(0.2, 1)),
        (Cyclic(0, 1, 0.3, 3.9), math.nextafter(0.3, 1)),
        (Warmup(1, 0.3, 0.7, "exponential"), math.nextafter(1, 0)),
        (Warmup(1, 0.9, 1.9, "exponential"), math.nextafter(1, 0)),
    ],
)
def test_rounding_does_not_leave_the_bounds(schedule: Schedule, t: float) -> None:
    low, high = schedule.bounds
    assert low <= schedule(t) <= high


@given(ending, st.floats(0, 1))
def test_shapes_that_end_stay_within_their_bounds(schedule: Schedule, fraction: float) -> None:
    low, high = schedule.bounds
    t = schedule.domain.high * fraction
    for at in (t, math.floor(t)):
        if at in schedule.domain:
            assert low <= schedule(at) <= high


@given(composed, step)
def test_compositions_stay_within_their_bounds(schedule: Schedule, t: float) -> None:
    low, high = schedule.bounds
    assert low <= schedule(t) <= high


@pytest.mark.parametrize("schedule", [s for s in SHAPES if s.steps > 0], ids=shown)
def test_bounds_of_shapes_are_close(schedule: Schedule) -> None:
    values = [schedule(t) for t in times(schedule, 400)]
    low, high = schedule.bounds
    slack = 0.2 * (high - low)
    assert low <= min(values) <= low + slack
    assert high - slack <= max(values) <= high


@given(st.one_of(shape, composed), step)
def test_last_value_is_held(schedule: Schedule, more: float) -> None:
    settled = schedule.steps + 1e-9  # the steps of nested parts add up to within a rounding
    if settled < schedule.domain.high == math.inf:
        assert schedule(settled + more) == pytest.approx(schedule(settled), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", [Linear, Polynomial, Cosine, Rex])
@pytest.mark.parametrize("steps", [0, 1, 7, 0.3, 1e-300, 10**6])
def test_ramps_are_exact_at_both_ends(kind: Any, steps: float) -> None:
    schedule = kind(0.1, 0.7, steps)
    if steps:
        assert schedule(0) == 0.1
    assert schedule(steps) == schedule(steps + 1) == schedule(1e300) == 0.7


DECREASING: list[Schedule] = [
    Step(3, 0.7),
    MultiStep((3, 3, 9)),
    Exponential(0.9),
    Linear(1, 0.1, 30),
    Polynomial(1, 0.1, 30, 3),
    Polynomial(1, 0.1, 30, 0.3),
    Cosine(1, 0.1, 30),
    Rex(1, 0.1, 30),
    Warmup(20, 1, 0.1),
    Warmup(20, 1, 0.1, "cosine"),
    Warmup(20, 1, 0.1, "exponential"),
    WarmupStableDecay(0, 3, 20, shape="sqrt"),
    InverseSqrt(5, 1, 2),
]


@pytest.mark.parametrize("schedule", DECREASING, ids=shown)
def test_monotone(schedule: Schedule) -> None:
    values = [schedule(i / 64) for i in range(64 * 40)]
    assert all(a >= b for a, b in pairwise(values))
    assert values[0] > values[-1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Polynomial(1, 0.1, 9), Linear(1, 0.1, 9)),
        (Warmup(9, 0.1, 1), Linear(0.1, 1, 9)),
        (Warmup(9, 0.1, 1, "cosine"), Cosine(0.1, 1, 9)),
        (WarmupStableDecay(0, 0, 9), Linear(1, 0, 9)),
        (WarmupStableDecay(0, 0, 9, shape="cosine"), Cosine(1, 0, 9)),
        (WarmupStableDecay(9, 0, 0, end=1), Linear(0, 1, 9)),
        (WarmupStableDecay(0, 5, 0, end=1), Constant(1)),
        (
            WarmupStableDecay(4, 5, 6, 2, 1, 0.5),
            Linear(1, 2, 4).then(2).then(Linear(2, 0.5, 6), at=9),
        ),
        (CosineRestarts(1, 0.1, 9).then(0.1, at=9), Cosine(1, 0.1, 9)),
        (CosineRestarts(1, 0.1, 9), Cosine(1, 0.1, 9).repeated()),
        (CosineRestarts(1, 0.1, 9, 1.0), CosineRestarts(1, 0.1, 9)),
        (Cyclic(0.1, 1, 4), Linear(0.1, 1, 4).repeated(mirrored=True)),
        (Cyclic(0.1, 1, 4, mode="exp_range"), Cyclic(0.1, 1, 4)),
        (Step(3), MultiStep(tuple(range(3, 60, 3)))),
        (Step(1, 0.5), Function(lambda t: 0.5 ** math.floor(t))),
        (Table((1, 2, 4)).repeated(), Function(lambda t: float((1, 2, 4)[int(t) % 3]))),
        (Exponential(1, 3), Constant(3)),
        (Rex(1, 0, 9), 2 * Linear(1, 0, 9) * Function(lambda t: 1 / (2 - min(t, 9) / 9))),
    ],
    ids=shown_briefly,
)
def test_one_is_the_other(one: Schedule, other: Schedule) -> None:
    for t in times(one):
        assert one(t) == pytest.approx(other(t), rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("growth", [1, 2, 3, 1.5])
@pytest.mark.parametrize("period", [1, 7, 2.5])
def test_restart_is_at_the_beginning_of_each_cycle(period: float, growth: float) -> None:
    schedule = CosineRestarts(1, 0, period, growth)
    t = 0.0
    for i in range(25):
        assert schedule.place(t) == (0, period * growth**i)
        assert schedule(t) == 1
        assert schedule(math.nextafter(t + period * growth**i, 0)) < 1e-6
        t += period * growth**i


def test_cycles_of_one_length_are_not_counted_down() -> None:
    """A million subtractions of 0.1 would be off by much more than a step."""
    assert CosineRestarts(1, 0, 0.1).place(1e5) == (math.fmod(1e5, 0.1), 0.1)
    assert CosineRestarts(1, 0, 7).place(10**15) == (10**15 % 7, 7)


@pytest.mark.parametrize("gamma", [1.5, 1e300])
def test_growth_past_the_largest_float_is_infinite(gamma: float) -> None:
    for schedule in (Exponential(gamma), Step(1, gamma), MultiStep((0,) * 2000, gamma)):
        assert schedule(2000) == math.inf == schedule.bounds[1]
    for schedule in (Exponential(gamma, -1), Step(1, gamma, -1)):
        assert schedule(2000) == -math.inf == schedule.bounds[0]
    assert Exponential(gamma, 0)(2000) == 0


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (Constant(1), math.inf),
        (Step(3), math.inf),
        (MultiStep((3, 8)), 8),
        (MultiStep(()), math.inf),
        (Linear(1, 0, 8), 8),
        (Cyclic(0, 1, 8), math.inf),
        (CosineRestarts(1, 0, 8), math.inf),
        (OneCycle(0, 1, 0, 8), 8),
        (Warmup(8), 8),
        (WarmupStableDecay(1, 2, 3), 6),
        (InverseSqrt(8), math.inf),
        (Table((1, 2)), 2),
        (Function(abs), math.inf),
        (Warmup(8).then(Linear(1, 0, 3)), 11),
        (Warmup(8).then(1), math.inf),
        (0.1 * Warmup(8) * Linear(1, 0, 12), 12),
        (Warmup(8) * Step(3), math.inf),
        (Constant(1) + 1, math.inf),
        (Warmup(8).shifted(2), 10),
        (Warmup(8).shifted(-2), 6),
        (Warmup(8).shifted(-20), 0),
        (Warmup(8).repeated(), math.inf),
        (Warmup(8).clamped(0.5), 8),
    ],
    ids=shown,
)
def test_steps(schedule: Schedule, steps: float) -> None:
    assert schedule.steps == steps


@pytest.mark.parametrize(
    ("schedule", "domain"),
    [
        (Warmup(8), ">= 0"),
        (OneCycle(0, 1, 0, 8), ">= 0 and <= 8"),
        (Table((1, 2)), ">= 0 and < 2"),
        (Table((1, 2)) * OneCycle(0, 1, 0, 2), ">= 0 and < 2"),
        (OneCycle(0, 1, 0, 2) + Table((1, 2, 3)), ">= 0 and <= 2"),
        (Warmup(8).then(Table((1, 2))), ">= 0 and < 10"),
        (Table((1, 2)).then(Warmup(8)), ">= 0"),
        (Table((1, 2, 3)).shifted(4), ">= 0 and < 7"),
        (Table((1, 2, 3)).shifted(-2), ">= 0 and < 1"),
        (Table((1, 2, 3)).repeated(), ">= 0"),
        (OneCycle(0, 1, 0, 8).clamped(0.1), ">= 0 and <= 8"),
    ],
    ids=shown,
)
def test_domain(schedule: Schedule, domain: str) -> None:
    assert str(schedule.domain) == domain
    end = schedule.domain.high
    schedule(math.nextafter(min(end, 1e9), 0))
    if end < math.inf:
        message = rf"{type(schedule).__name__}: t must be a finite number .*, got .*then\(\)"
        with pytest.raises(ValueError, match=message):
            schedule(math.nextafter(end, math.inf))


@pytest.mark.parametrize(
    ("schedule", "bounds"),
    [
        (Function(abs), (-math.inf, math.inf)),
        (Cyclic(0, 1, 4, scale=abs), (-math.inf, math.inf)),
        (Cyclic(0, 1, 4, mode="exp_range", gamma=1.1), (-math.inf, math.inf)),
        (Exponential(1.1), (1, math.inf)),
        (Exponential(1.1, -1), (-math.inf, -1)),
        (Exponential(0.9, -1), (-1, 0)),
        (Linear(-1, 2, 3) * Linear(-3, 1, 3), (-6, 3)),
        (Linear(-1, 2, 3) + Linear(-3, 1, 3), (-4, 3)),
        (0 * Exponential(1.1), (0, 0)),
        (0 * Function(abs), (0, 0)),
        (Function(abs).clamped(0, 1), (0, 1)),
        (Function(abs).clamped(0), (0, math.inf)),
        (Function(abs) * Function(abs).clamped(1, 2), (-math.inf, math.inf)),
    ],
    ids=shown_briefly,
)
def test_bounds(schedule: Schedule, bounds: tuple[float, float]) -> None:
    assert schedule.bounds == bounds
