"""Laws of composition: equal as values, and bit for bit at every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.schedules.examples import (
    EVERY,
    eighths,
    endless,
    exact,
    length,
    positive,
    step,
    times,
    value,
)
from thalweg.schedules import (
    Clamped,
    Constant,
    Cosine,
    Function,
    Join,
    Linear,
    OneCycle,
    Product,
    Repeated,
    Schedule,
    Shifted,
    Step,
    Sum,
    Table,
    Warmup,
    join,
)

ramp = Linear(0, 8, 8)


def identical(one: Schedule, other: Schedule, count: int = 60) -> bool:
    """Equal values at whole and other steps; not: approximately."""
    return all(one(t) == other(t) for t in [*range(count), *(i / 8 for i in range(count))])


# ------------------------------------------------------------------------------------------- joins

PART = st.one_of(endless, exact)


@given(PART, PART, PART, eighths, eighths)
def test_join_is_associative(
    a: Schedule, b: Schedule, c: Schedule, first: float, second: float
) -> None:
    left = a.then(b, first).then(c, first + second)
    right = a.then(b.then(c, second), first)
    flat = join([a, b, c], [first, first + second])
    assert left == right == flat
    assert identical(left, right)


@given(PART)
def test_join_of_one_is_the_schedule_itself(a: Schedule) -> None:
    assert join([a]) == a
    assert join([a]) is a or isinstance(a, Join)
    assert identical(Join((a,)), a)


@given(PART, PART, length)
def test_parts_of_no_length_drop_out(a: Schedule, b: Schedule, at: float) -> None:
    assert a.then(b, 0) == b
    assert join([a, b, a], [at, at]) == a.then(a, at)
    assert join([a, a, b], [0, 0]) == b
    assert join([a, a, b], [0, at]) == a.then(b, at)


def test_parts_that_are_never_reached_drop_out() -> None:
    inner = join([Step(1), Step(2), Step(3)], [2, 5])
    assert inner.then(Constant(1), 5) == join([Step(1), Step(2), Constant(1)], [2, 5])
    assert inner.then(Constant(1), 4) == join([Step(1), Step(2), Constant(1)], [2, 4])
    assert inner.then(Constant(1), 2) == join([Step(1), Constant(1)], [2])
    assert inner.then(Constant(1), 1) == join([Step(1), Constant(1)], [1])


def test_parts_whose_length_is_rounded_away_drop_out() -> None:
    inner = join([Step(1), Step(2), Step(3)], [0.1, 0.2])
    assert ramp.then(inner, 1e16) == ramp.then(Step(3), 1e16)


def test_default_of_then_is_the_end() -> None:
    assert Warmup(5).then(Cosine(1, 0, 9)) == join([Warmup(5), Cosine(1, 0, 9)], [5])
    three = Warmup(5).then(Cosine(1, 0, 9)).then(ramp)
    assert three == join([Warmup(5), Cosine(1, 0, 9), ramp], [5, 14])
    assert three == Warmup(5).then(Cosine(1, 0, 9).then(ramp))


Tree = Schedule | tuple[list[Any], list[float]]

trees: st.SearchStrategy[Tree] = st.recursive(
    endless,
    lambda inner: st.integers(1, 4).flatmap(
        lambda n: st.tuples(
            st.lists(inner, min_size=n, max_size=n),
            st.lists(eighths, min_size=n - 1, max_size=n - 1).map(sorted),
        )
    ),
    max_leaves=10,
)


def built(tree: Tree) -> Schedule:
    if isinstance(tree, Schedule):
        return tree
    return join([built(part) for part in tree[0]], tree[1])


def piecewise(tree: Tree, t: float) -> float:
    """The definition: at each level the part whose turn it is, at its own time."""
    if isinstance(tree, Schedule):
        return tree(t)
    parts, milestones = tree
    i = sum(milestone <= t for milestone in milestones)
    return piecewise(parts[i], t - milestones[i - 1] if i else t)


@given(trees, eighths)
def test_nested_joins_are_piecewise(tree: Tree, t: float) -> None:
    assert built(tree)(t) == piecewise(tree, t)


@given(trees)
def test_nested_joins_are_flat(tree: Tree) -> None:
    schedule = built(tree)
    if isinstance(schedule, Join):
        assert not any(isinstance(part, Join) for part in schedule.schedules)
        begins = (0, *schedule.milestones)
        assert all(a < b for a, b in pairwise(begins))
        assert Join(schedule.schedules, schedule.milestones) == schedule


def test_deep_nesting() -> None:
    """Joins of joins are one join, however deep; others are as deep as they are written."""
    joins: Schedule = ramp
    mixed: Schedule = ramp
    for _ in range(100):
        joins = Constant(1).then(joins, 1)
        mixed = (Constant(1).then(mixed, 1) * 1).shifted(1).clamped(-9, 9)
    assert isinstance(joins, Join)
    assert len(joins.schedules) == 101
    assert joins(104) == 4
    assert mixed(204) == 4


def test_part_may_be_used_up_to_its_end() -> None:
    cycle, table = OneCycle(1, 2, 0, 10), Table((1, 2, 3))
    for part, end in [(cycle, 10), (table, 3), (table.shifted(2), 5), (Step(2).then(table, 4), 7)]:
        joined = part.then(ramp)
        assert joined == part.then(ramp, end)
        assert joined(math.nextafter(end, 0)) == part(math.nextafter(end, 0))
        assert joined(end) == ramp(0)
        with pytest.raises(ValueError, match="Join: milestones must not lie past the end"):
            part.then(ramp, end + 0.5)
        with pytest.raises(ValueError, match=f"got {end + 2.5}, but .* ends at {end + 1}"):
            join([ramp, join([part]), ramp], [1, end + 2.5])


# --------------------------------------------------------------------------- products and sums

FOLDS: list[tuple[Any, Callable[[Any, Any], Any]]] = [
    (Product, lambda a, b: a * b),
    (Sum, lambda a, b: a + b),
]


@pytest.mark.parametrize(("kind", "put"), FOLDS)
@given(a=PART, b=PART, c=PART)
def test_folds_are_associative(kind: Any, put: Any, a: Schedule, b: Schedule, c: Schedule) -> None:
    left, right = put(put(a, b), c), put(a, put(b, c))
    assert left == right == kind((a, b, c))
    assert identical(left, right)


@pytest.mark.parametrize(("kind", "put"), FOLDS)
@given(a=endless, b=endless, t=step)
def test_folds_are_pointwise(kind: Any, put: Any, a: Schedule, b: Schedule, t: float) -> None:
    assert put(a, b)(t) == put(a(t), b(t))
    assert put(a, 0.3)(t) == put(a(t), 0.3) == put(0.3, a)(t)
    assert kind((a,))(t) == a(t)


def test_parts_are_put_together_from_the_left() -> None:
    parts = [Constant(0.1), Constant(0.2), Constant(0.3), Constant(-0.6)]
    assert Sum(tuple(parts))(0) == ((0.1 + 0.2) + 0.3) - 0.6
    assert Product(tuple(parts))(0) == ((0.1 * 0.2) * 0.3) * -0.6
    assert sum(parts)(0) == Sum(tuple(parts))(0)  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [2, 0.5, True, np.float32(0.5), np.float64(0.5), np.int64(3)])
def test_numbers_on_either_side(number: Any) -> None:
    assert number * ramp == Product((Constant(float(number)), ramp))
    assert ramp * number == Product((ramp, Constant(float(number))))
    assert number + ramp == Sum((Constant(float(number)), ramp))
    assert ramp + number == Sum((ramp, Constant(float(number))))
    assert type((number * ramp)(3)) is float


# ------------------------------------------------------------------------ shifts, repeats, clamps

SHIFT = st.one_of(st.integers(-10, 20), st.integers(-80, 160).map(lambda i: i / 8))


@given(PART, SHIFT, SHIFT)
def test_shifts_add_up(a: Schedule, first: float, second: float) -> None:
    assume(not first < 0 < second)
    assert a.shifted(first).shifted(second) == a.shifted(first + second)
    assert not isinstance(a, Shifted) or not isinstance(a.schedule, Shifted) or a.by > 0


@given(endless, SHIFT, SHIFT, eighths)
def test_shift_is_its_definition(a: Schedule, first: float, second: float, t: float) -> None:
    assert a.shifted(first)(t) == a(max(0, t - first))
    once = max(0, t - second)
    assert a.shifted(first).shifted(second)(t) == a(max(0, once - first))


@given(PART)
def test_no_shift_is_the_schedule_itself(a: Schedule) -> None:
    assert a.shifted(0) is a


def test_start_in_the_middle_and_wait() -> None:
    """Not one shift: what is held at first is the value in the middle."""
    assert ramp.shifted(-3).shifted(2).values(5) == [3, 3, 3, 4, 5]
    assert ramp.shifted(2).shifted(-3) == ramp.shifted(-1)


@given(PART, PART, eighths, eighths)
def test_shift_of_a_join(a: Schedule, b: Schedule, at: float, t: float) -> None:
    """What comes after a wait is what comes after a part."""
    assert Constant(7).then(a, at)(at + t) == a(t) == a.shifted(at)(at + t)
    assert a.then(b, at).shifted(-at)(t) == b(t)


@given(endless, st.integers(1, 160).map(lambda i: i / 8), eighths)
def test_repeat_is_its_definition(a: Schedule, every: float, t: float) -> None:
    again, mirrored = a.repeated(every), a.repeated(every, mirrored=True)
    assert again(t) == a(t - every * math.floor(t / every))
    assert again(t + every) == again(t)
    assert mirrored(t + 2 * every) == mirrored(t)
    assert mirrored(every + min(t, every)) == mirrored(every - min(t, every))
    assert mirrored(min(t, every)) == a(min(t, every))
    assert mirrored(t) == a(every - abs(t % (2 * every) - every))


def test_default_of_repeated_is_the_length() -> None:
    assert ramp.repeated() == ramp.repeated(8) == Repeated(ramp, 8)
    assert ramp.repeated(mirrored=True) == Repeated(ramp, 8, True)


@given(PART, value, length, step)
def test_clamp_is_its_definition(a: Schedule, low: float, width: float, t: float) -> None:
    high = low + width
    assert a.clamped(low, high)(t) == min(max(a(t), low), high)
    assert a.clamped(low)(t) == max(a(t), low)
    assert a.clamped(high=high)(t) == min(a(t), high)
    assert identical(a.clamped(low, high).clamped(low, high), a.clamped(low, high))
    assert identical(a.clamped(), a)


@given(PART, positive, step)
def test_clamp_to_the_bounds_changes_nothing(a: Schedule, every: float, t: float) -> None:
    assert a.clamped(*a.bounds)(t) == a(t)
    assert a.repeated(every).clamped(*a.bounds)(t) == a.repeated(every)(t)


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_the_neutral_ones_change_no_value(schedule: Schedule) -> None:
    for other in (1 * schedule, schedule * 1, schedule + 0, Sum((schedule,)), schedule.clamped()):
        assert [other(t) for t in times(schedule)] == [schedule(t) for t in times(schedule)]


def test_nan_of_a_function_is_not_hidden() -> None:
    schedule = Function(lambda t: math.nan)
    for other in (schedule, schedule.clamped(0, 1), 0 * schedule, ramp.then(schedule, 0)):
        assert math.isnan(other(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step(3).then(ramp), "Step.then: at must be given, because Step"),
        (lambda: Constant(3).then(ramp), "Constant.then: at must be given, because Constant"),
        (lambda: ramp.then(1).then(ramp), "Join.then: at must be given, because Join"),
        (lambda: ramp.then(ramp, -1), "Linear.then: at must be a finite number >= 0, got -1"),
        (lambda: ramp.then(ramp, math.nan), "Linear.then: at must be .*, got nan"),
        (lambda: Step(3).repeated(), "Step.repeated: every must be given, because Step"),
        (lambda: Repeated(ramp, 0), "Repeated: every must be a finite number > 0, got 0"),
        (lambda: Linear(1, 0, 0).repeated(), "Repeated: every must be .* > 0, got 0"),
        (lambda: Table((1, 2)).repeated(2.5), r"every must not .*, got 2.5, .* >= 0 and < 2"),
        (lambda: Table((1, 2)).repeated(mirrored=True), "every must not lie past .*, got 2,"),
        (lambda: ramp.shifted(math.inf), "shifted: by must be finite, got inf"),
        (lambda: Shifted(ramp, math.nan), "Shifted: by must be finite, got nan"),
        (lambda: Table((1, 2)).shifted(-2), "Shifted: by must not start past .*, got -2, .*< 2"),
        (lambda: OneCycle(1, 2, 0, 5).shifted(-5.5), "Shifted: by must not .*, got -5.5"),
        (lambda: Clamped(ramp, 2, 1), "low must not be above high, got low=2 and high=1"),
        (lambda: ramp.clamped(low=math.nan), "Clamped: low must be finite, got nan"),
        (lambda: ramp.clamped(high=math.nan), "Clamped: high must be finite, got nan"),
        (lambda: ramp.clamped(low=math.inf), "Clamped: low must be finite, got inf"),
        (lambda: ramp.clamped(high=-math.inf), "Clamped: high must be finite, got -inf"),
        (lambda: join([]), "Join: schedules must hold at least one schedule, got none"),
        (lambda: join([ramp], [1]), r"milestones must be one fewer than the 1 .*, got 1: \[1\]"),
        (lambda: join([ramp, ramp]), r"milestones must be one fewer than the 2 .*, got 0: \[\]"),
        (lambda: join([ramp] * 3, [4, 3]), r"Join: milestones must not decrease, got 3 after 4"),
        (lambda: join([ramp] * 2, [-1]), r"Join: milestones\[0\] must be .* >= 0, got -1"),
        (lambda: join([ramp] * 2, [math.inf]), r"Join: milestones\[0\] must be .*, got inf"),
        (lambda: join([ramp, math.nan], [1]), r"Join: schedules\[1\] must be finite, got nan"),
        (lambda: Product(()), "Product: parts must hold at least one schedule, got none"),
        (lambda: Sum(()), "Sum: parts must hold at least one schedule, got none"),
        (lambda: ramp * math.inf, "Product: the factor must be finite, got inf"),
        (lambda: math.nan + ramp, "Sum: the term must be finite, got nan"),
        (lambda: ramp.values(-1), "Linear.values: count must be a finite number >= 0, got -1"),
    ],
)
def test_values_that_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ramp * "a", "Product: the factor must be a schedule or a number, got str 'a'"),
        (lambda: "a" * ramp, "Product: the factor must be a schedule or a number, got str 'a'"),
        (lambda: ramp + None, "Sum: the term must be a schedule or a number, got NoneType None"),
        (lambda: ramp * math.sqrt, r"Product: .* a function of the step .* Function\(function\)"),
        (lambda: ramp * np.ones(2), "Product: the factor must be a schedule or a number"),
        (lambda: np.ones(2) + ramp, "Sum: the term must be a schedule or a number"),
        (lambda: ramp.then("a"), r"Join: schedules\[1\] must be a schedule or a number, got str"),
        (lambda: ramp.then(ramp, "1"), "Linear.then: at must be a number, got str '1'"),
        (lambda: ramp.repeated("1"), "Repeated: every must be a number, got str '1'"),
        (lambda: ramp.repeated(1, "no"), "Repeated: mirrored must be True or False, got 'no'"),
        (lambda: ramp.shifted("1"), "shifted: by must be a number, got str '1'"),
        (lambda: ramp.clamped("1"), "Clamped: low must be a number, got str '1'"),
        (lambda: ramp.clamped(0, None), "Clamped: high must be a number, got NoneType None"),
        (lambda: join(ramp), "Join: schedules must be a list or a tuple of schedules, got Linear"),
        (lambda: join([ramp] * 2, 5), "Join: milestones must be a list or a tuple of numbers"),
        (lambda: Product(3), "Product: parts must be a list or a tuple of schedules, got 3"),
        (lambda: Shifted("a", 1), "Shifted: schedule must be a schedule or a number, got str"),
        (lambda: Repeated(None, 1), "Repeated: schedule must be a schedule or a number"),
        (lambda: Clamped(None), "Clamped: schedule must be a schedule or a number"),
        (lambda: ramp.values(1.5), "cannot be interpreted as an integer"),
    ],
)
def test_types_that_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()
