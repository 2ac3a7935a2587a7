"""Every argument of every shape refuses what it cannot be, and says which it is and why."""

from __future__ import annotations

import dataclasses
import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tests.schedules.examples import SHAPES
from thalweg.schedules import Constant, Function, Linear, MultiStep, Schedule, Table

NEGATIVE, ZERO, BELOW_ONE = (-1, -1e-300), (0, 0.0), (0.999,)
ANY: tuple[float, ...] = ()

# What each numeric argument refuses, beside NaN, infinities and what is not a number.
NUMBERS: dict[str, dict[str, tuple[float, ...]]] = {
    "Constant": dict(value=ANY),
    "Step": dict(every=NEGATIVE + ZERO, gamma=NEGATIVE, start=ANY),
    "MultiStep": dict(gamma=NEGATIVE, start=ANY),
    "Exponential": dict(gamma=NEGATIVE, start=ANY),
    "Linear": dict(start=ANY, end=ANY, steps=NEGATIVE),
    "Polynomial": dict(start=ANY, end=ANY, steps=NEGATIVE, power=NEGATIVE + ZERO),
    "Cosine": dict(start=ANY, end=ANY, steps=NEGATIVE),
    "Rex": dict(start=ANY, end=ANY, steps=NEGATIVE),
    "CosineRestarts": dict(
        start=ANY, end=ANY, period=NEGATIVE + ZERO, growth=NEGATIVE + ZERO + BELOW_ONE
    ),
    "Cyclic": dict(start=ANY, peak=ANY, up=NEGATIVE + ZERO, down=NEGATIVE, gamma=NEGATIVE),
    "OneCycle": dict(
        initial=ANY,
        peak=ANY,
        final=ANY,
        steps=NEGATIVE + ZERO + BELOW_ONE,
        peak_at=(*NEGATIVE, 1.001),
    ),
    "Warmup": dict(steps=NEGATIVE, start=ANY, end=ANY),
    "WarmupStableDecay": dict(
        warmup=NEGATIVE, stable=NEGATIVE, decay=NEGATIVE, peak=ANY, start=ANY, end=ANY
    ),
    "InverseSqrt": dict(warmup=NEGATIVE + ZERO, peak=ANY, start=ANY),
    "Table": {},
}
EXAMPLE = {type(schedule).__name__: schedule for schedule in reversed(SHAPES)}
ARGUMENTS = [(name, argument) for name, known in NUMBERS.items() for argument in known]


def changed(schedule: Any, **options: Any) -> Schedule:
    found: Schedule = dataclasses.replace(schedule, **options)
    return found


def test_table_knows_every_number() -> None:
    """A field that is neither a number here nor tried below would be an argument not tried."""
    below = {"milestones", "entries", "interpolate", "mode", "scale", "scale_by", "shape"}
    for name, schedule in EXAMPLE.items():
        fields = {field.name for field in dataclasses.fields(schedule)}  # type: ignore[arg-type]
        assert fields - below - {"three_phase"} == set(NUMBERS[name])


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_numbers(name: str, argument: str) -> None:
    for bad in (math.nan, math.inf, -math.inf, *NUMBERS[name][argument]):
        message = rf"^{name}: {argument} must be (finite|a finite number .*), got {bad}$"
        with pytest.raises(ValueError, match=message):
            changed(EXAMPLE[name], **{argument: bad})


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
@pytest.mark.parametrize("bad", ["1", b"1", [1], 1j, object(), torch.ones(2), np.ones(2), None])
def test_types(name: str, argument: str, bad: Any) -> None:
    if argument == "down" and bad is None:
        return  # its default
    message = f"{name}: {argument} must be a number, got {type(bad).__name__} {bad!r}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        changed(EXAMPLE[name], **{argument: bad})


@pytest.mark.parametrize("name", EXAMPLE)
@pytest.mark.parametrize("t", [-1, -1e-300, math.nan, math.inf, -math.inf])
def test_step_out_of_range(name: str, t: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: t must be a finite number >= 0.*, got {t}"):
        EXAMPLE[name](t)


@pytest.mark.parametrize("name", EXAMPLE)
@pytest.mark.parametrize("t", ["1", None, 1j, [1], torch.ones(2)])
def test_step_of_another_type(name: str, t: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name}: t must be a number, got {type(t).__name__} "):
        EXAMPLE[name](t)


SIXTH = (torch.tensor(6), torch.tensor(6.0), np.int32(6), np.float32(6), Fraction(6), Decimal(6))


@pytest.mark.parametrize("six", SIXTH, ids=lambda x: type(x).__name__)
def test_numbers_of_other_types(six: Any) -> None:
    schedule = Linear(six, 0, six)
    assert schedule == Linear(6, 0, 6)
    assert repr(schedule) in (
        "Linear(start=6, end=0, steps=6)",
        "Linear(start=6.0, end=0, steps=6.0)",
    )
    assert Linear(12, 0, 12)(six) == 6.0
    assert type(Linear(12, 0, 12)(six)) is float
    assert MultiStep((1, six)) == MultiStep((1, 6))


def test_booleans_are_numbers() -> None:
    assert repr(Constant(True)) == "Constant(value=1)"


WORDS = [
    ("Cyclic", "mode", "'triangular', 'triangular2', 'exp_range'"),
    ("Cyclic", "scale_by", "'cycle', 'iterations'"),
    ("OneCycle", "shape", "'cosine', 'linear'"),
    ("Warmup", "shape", "'linear', 'cosine', 'exponential'"),
    ("WarmupStableDecay", "shape", "'linear', 'cosine', 'sqrt'"),
]


@pytest.mark.parametrize(("name", "argument", "known"), WORDS)
@pytest.mark.parametrize("bad", ["cos", "", None, 1, ["linear"]])
def test_words(name: str, argument: str, known: str, bad: Any) -> None:
    message = f"{name}: {argument} must be one of {known}, got {bad!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        changed(EXAMPLE[name], **{argument: bad})


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        ("MultiStep", dict(milestones=(3, -1)), ValueError, r"milestones\[1\] must be .* >= 0"),
        ("MultiStep", dict(milestones=(3, 2)), ValueError, "must not decrease, got 2 after 3"),
        ("MultiStep", dict(milestones=(math.nan,)), ValueError, r"milestones\[0\] .* got nan"),
        ("MultiStep", dict(milestones=3), TypeError, "milestones must be a list or a tuple"),
        ("MultiStep", dict(milestones="123"), TypeError, "milestones must be a list or a tuple"),
        ("MultiStep", dict(milestones=("1",)), TypeError, r"milestones\[0\] must be a number"),
        ("Table", dict(entries=()), ValueError, "entries must hold at least one value, got none"),
        ("Table", dict(entries=(1, math.inf)), ValueError, r"entries\[1\] must be finite, got inf"),
        ("Table", dict(entries=2), TypeError, "entries must be a list or a tuple of numbers"),
        ("Table", dict(entries=(None,)), TypeError, r"entries\[0\] must be a number, got NoneType"),
        ("Table", dict(interpolate="no"), TypeError, "interpolate must be True or False, got 'no'"),
        ("Table", dict(interpolate=None), TypeError, "interpolate must be True or False, got None"),
        ("OneCycle", dict(three_phase=2), TypeError, "three_phase must be True or False, got 2"),
        (
            "OneCycle",
            dict(three_phase=True, peak_at=0.6),
            ValueError,
            "peak_at must be at most .*, got 0.6 with steps=20",
        ),
        ("Warmup", dict(shape="exponential"), ValueError, "start must be .* > 0, got 0.0"),
        (
            "Warmup",
            dict(shape="exponential", start=1, end=0),
            ValueError,
            "end must be .* > 0, got 0",
        ),
        ("Cyclic", dict(scale=3), TypeError, "scale must be a function or None, got 3"),
    ],
)
def test_other_arguments(
    name: str, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{name}: .*{message}"):
        changed(EXAMPLE[name], **options)


def test_mode_is_not_read_where_a_scale_is_given() -> None:
    changed(EXAMPLE["Cyclic"], scale=abs, mode="none")


def test_function_must_be_callable() -> None:
    with pytest.raises(TypeError, match=r"^Function: function must be callable, got 3$"):
        Function(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "t", "message"),
    [
        (Table((1, 2)), 2, "Table: t must be a finite number >= 0 and < 2, got 2; it goes no"),
        (EXAMPLE["OneCycle"], 20.5, "OneCycle: t must be .* >= 0 and <= 20, got 20.5; it goes no"),
        (Table((1, 2)).shifted(3), 5, "Shifted: t must be a finite number >= 0 and < 5, got 5;"),
    ],
)
def test_past_the_end(schedule: Schedule, t: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(t)
    assert schedule.then(1)(t) == 1
