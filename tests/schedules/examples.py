"""Schedules to test with: some of every class, and Hypothesis strategies for more."""

from __future__ import annotations

import operator
from typing import Any

from hypothesis import strategies as st

from thalweg import schedules
from thalweg.schedules import (
    Clamped,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    Join,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Product,
    Repeated,
    Rex,
    Schedule,
    Shifted,
    Step,
    Sum,
    Table,
    Warmup,
    WarmupStableDecay,
)

SHAPES: list[Schedule] = [
    Constant(0.3),
    Step(5),
    Step(2.5, gamma=0.5, start=4),
    MultiStep((3, 3, 8)),
    MultiStep((), gamma=0.5),
    Exponential(0.9, start=2),
    Linear(1, 0, 10),
    Linear(-1, 3, 0),
    Polynomial(2, 0.5, 9, power=3),
    Cosine(1, 0.1, 12),
    Rex(1, 0, 7.5),
    CosineRestarts(1, 0.2, 4, growth=2),
    CosineRestarts(0, 1, 3.5),
    Cyclic(0.1, 1, 4),
    Cyclic(1, 0.1, 4, 3, "triangular2"),
    Cyclic(0.1, 1, 2, mode="exp_range", gamma=0.9),
    OneCycle(0.1, 1, 0.01, 20),
    OneCycle(0.1, 1, 0.01, 20, peak_at=0.4, shape="linear", three_phase=True),
    Warmup(5),
    Warmup(5, 0.1, 2, "cosine"),
    Warmup(5, 0.01, 1, "exponential"),
    WarmupStableDecay(3, 4, 5),
    WarmupStableDecay(3, 4, 5, 2, 0.1, 0.2, "sqrt"),
    InverseSqrt(4, 2, 0.5),
    Table((3, 1, 2)),
    Table((3, 1, 2), interpolate=True),
]

COMPOSED: list[Schedule] = [
    Warmup(4).then(Cosine(1, 0, 8)),
    Warmup(4).then(0.5, at=2).then(Cosine(1, 0, 8), at=6),
    0.1 * Warmup(4) * Cosine(1, 0, 8),
    2 * Constant(3) * Linear(1, 0, 5),
    (Linear(1, 0, 5) + 1) * 3,
    Linear(1, 0, 5) * 2 + Step(3) + Constant(1),
    Product((Step(3),)),
    Linear(1, 0, 5).shifted(2),
    Linear(1, 0, 5).shifted(-2),
    OneCycle(0.1, 1, 0, 10).shifted(-3),
    Linear(1, 0, 5).repeated(),
    Cosine(1, 0, 5).repeated(4.5, mirrored=True),
    Step(3).clamped(low=0.05),
    Step(3).clamped(0.05, 0.5),
    Cosine(1, 0, 5).clamped(high=0.5),
]

EVERY = SHAPES + COMPOSED


def times(schedule: Schedule, count: int = 40) -> list[float]:
    """Whole and other steps at which the schedule has a value."""
    found = [*range(count), *(i * 0.37 for i in range(count))]
    return [t for t in found if t in schedule.domain]


def same(text: str) -> Schedule:
    """The schedule that a repr describes."""
    found: Any = eval(text, dict(vars(schedules)))
    assert isinstance(found, Schedule)
    return found


# ------------------------------------------------------------------------------------- strategies

value = st.one_of(st.integers(-5, 5), st.floats(-5, 5))
factor = st.one_of(st.integers(0, 1), st.floats(0, 1.2))
# Multiples of 1/8: sums and differences of them are exact.
eighths = st.integers(0, 160).map(lambda i: i / 8)
length = st.one_of(st.integers(0, 20), eighths, st.floats(0, 20))
positive = st.one_of(st.integers(1, 20), st.floats(0.05, 20))
step = st.one_of(st.integers(0, 60), eighths, st.floats(0, 60))

endless = st.one_of(
    st.builds(Constant, value),
    st.builds(Step, positive, factor, value),
    st.builds(MultiStep, st.lists(length, max_size=5).map(sorted), factor, value),
    st.builds(Exponential, factor, value),
    st.builds(Linear, value, value, length),
    st.builds(Polynomial, value, value, length, st.floats(0.1, 5)),
    st.builds(Cosine, value, value, length),
    st.builds(Rex, value, value, length),
    st.builds(CosineRestarts, value, value, positive, st.one_of(st.just(1), st.floats(1, 3))),
    st.builds(
        Cyclic,
        value,
        value,
        positive,
        st.one_of(st.none(), length),
        st.sampled_from(["triangular", "triangular2", "exp_range"]),
        st.floats(0, 1),
    ),
    st.builds(Warmup, length, value, value, st.sampled_from(["linear", "cosine"])),
    st.builds(Warmup, length, st.floats(0.01, 9), st.floats(0.01, 9), st.just("exponential")),
    st.builds(
        WarmupStableDecay,
        length,
        length,
        length,
        value,
        value,
        value,
        st.sampled_from(["linear", "cosine", "sqrt"]),
    ),
    st.builds(InverseSqrt, positive, value, value),
)
ending = st.one_of(
    st.builds(
        OneCycle,
        value,
        value,
        value,
        st.one_of(st.integers(1, 40), st.floats(1, 40)),
        st.floats(0, 0.5),
        st.sampled_from(["cosine", "linear"]),
        st.booleans(),
    ),
    st.builds(Table, st.lists(value, min_size=1, max_size=40), st.booleans()),
)
shape = st.one_of(endless, ending)


def compositions(at: st.SearchStrategy[float]) -> st.SearchStrategy[Schedule]:
    """Compositions of shapes that never end, joined at and shifted by the steps of a strategy."""
    by = st.one_of(at, at.map(operator.neg))

    def extended(inner: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
        return st.one_of(
            st.builds(lambda a, b, at: a.then(b, at), inner, inner, at),
            st.builds(lambda a, b: a * b, inner, inner),
            st.builds(lambda a, b: a + b, inner, inner),
            st.builds(lambda a, number: number * a + number, inner, value),
            st.builds(lambda a, by: a.shifted(by), inner, by),
            st.builds(lambda a, every, way: a.repeated(every, way), inner, positive, st.booleans()),
            st.builds(lambda a, low, more: a.clamped(low, low + more), inner, value, length),
        )

    return st.recursive(endless, extended, max_leaves=6)


composed = compositions(length)
exact = compositions(eighths)

CLASSES = [
    Clamped, Constant, Cosine, CosineRestarts, Cyclic, Exponential, InverseSqrt, Join, Linear,
    MultiStep, OneCycle, Polynomial, Product, Repeated, Rex, Shifted, Step, Sum, Table, Warmup,
    WarmupStableDecay,
]  # fmt: skip
