"""A schedule is a value: immutable, equal to its copies, printed as it is written."""

from __future__ import annotations

import ast
import copy
import dataclasses
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given

from tests.schedules.examples import CLASSES, EVERY, composed, same, shape, times
from thalweg import schedules
from thalweg.schedules import Function, Linear, Schedule


def root(x: float) -> float:
    return x**0.5


EXAMPLES = pytest.mark.parametrize("schedule", EVERY, ids=repr)


def test_examples_show_every_class() -> None:
    public = {getattr(schedules, name) for name in schedules.__all__}
    classes = {c for c in public if isinstance(c, type)} - {Schedule, Function}
    assert classes == {type(s) for s in EVERY} == set(CLASSES)


@EXAMPLES
def test_copies_are_equal(schedule: Schedule) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(schedule, protocol)) == schedule
    for twin in (copy.copy(schedule), copy.deepcopy(schedule), same(repr(schedule))):
        assert twin == schedule
        assert hash(twin) == hash(schedule)
        assert repr(twin) == repr(schedule)
        assert [twin(t) for t in times(schedule)] == [schedule(t) for t in times(schedule)]


@given(composed)
def test_repr_of_any_composition_evaluates_to_its_equal(schedule: Schedule) -> None:
    assert same(repr(schedule)) == schedule


@given(shape)
def test_repr_of_any_shape_evaluates_to_its_equal(schedule: Schedule) -> None:
    assert same(repr(schedule)) == schedule


@EXAMPLES
def test_all_examples_differ(schedule: Schedule) -> None:
    assert sum(schedule == other for other in EVERY) == 1
    assert sum(repr(schedule) == repr(other) for other in EVERY) == 1


@EXAMPLES
def test_nothing_can_be_set(schedule: Schedule) -> None:
    names = [field.name for field in dataclasses.fields(schedule)]  # type: ignore[arg-type]
    for name in names:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(schedule, name, 1)
    with pytest.raises((AttributeError, TypeError)):
        schedule.another = 1  # type: ignore[attr-defined]


@EXAMPLES
def test_values_are_floats_and_the_same_every_time(schedule: Schedule) -> None:
    first = [schedule(t) for t in times(schedule)]
    assert all(type(value) is float for value in first)
    assert first == [schedule(t) for t in times(schedule)]
    assert all(type(bound) is float for bound in schedule.bounds)
    count = int(min(schedule.domain.high, 10))
    assert schedule.values(count) == [schedule(t) for t in range(count)]


def test_integers_and_floats_are_the_same_schedule() -> None:
    assert Linear(1, 0, 10) == Linear(1.0, 0.0, 10.0)
    assert hash(Linear(1, 0, 10)) == hash(Linear(1.0, 0.0, 10.0))


def test_shapes_of_the_same_numbers_differ() -> None:
    assert Linear(1, 0, 10) != schedules.Cosine(1, 0, 10)


def test_lists_are_stored_as_tuples() -> None:
    milestones = [2, 4]
    schedule = schedules.MultiStep(milestones)  # type: ignore[arg-type]
    milestones.append(9)
    assert schedule == schedules.MultiStep((2, 4))
    assert schedules.Table([1, 2]) == schedules.Table((1, 2))  # type: ignore[arg-type]


def test_functions_are_equal_if_they_are_the_same() -> None:
    assert Function(root) == Function(root) == pickle.loads(pickle.dumps(Function(root)))
    assert hash(Function(root)) == hash(Function(root))
    assert Function(root) != Function(lambda t: t)


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (0.1 * schedules.Cosine(1.0, 0.0, 10), "0.1 * Cosine(start=1.0, end=0.0, steps=10)"),
        (2 * schedules.Constant(3), "2 * Constant(value=3)"),
        ((schedules.Constant(2) + 1) * 3, "(2 + Constant(value=1)) * 3"),
        (schedules.Exponential(0.5) * 2 + 1, "Exponential(gamma=0.5, start=1.0) * 2 + 1"),
        (schedules.Rex(1, 0, 2).clamped(0), "Clamped(Rex(start=1, end=0, steps=2), low=0)"),
    ],
)
def test_repr(schedule: Schedule, text: str) -> None:
    assert repr(schedule) == text


def test_own_schedule() -> None:
    @dataclasses.dataclass(frozen=True)
    class Inverse(Schedule):
        offset: float

        def _value(self, t: float) -> float:
            return 1 / (self.offset + t)

    schedule = 2 * Inverse(1)
    assert schedule.values(4) == [2.0, 1.0, 2 / 3, 0.5]
    assert Inverse(1).shifted(-1) == Inverse(1).shifted(-1)
    with pytest.raises(ValueError, match="Inverse: t must be"):
        Inverse(1)(-1)


def test_own_schedule_with_a_length() -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Square(Schedule):
        steps: float = dataclasses.field()
        height: float = 1.0

        def _value(self, t: float) -> float:
            return self.height * max(0, 1 - t / self.steps) ** 2

    schedule = Square(2).then(Square(4, 3))
    assert schedule.steps == 6
    assert schedule.values(4) == [1.0, 0.25, 3.0, 1.6875]
    with pytest.raises(TypeError, match="steps"):
        Square()  # type: ignore[call-arg]


def test_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Schedule()  # type: ignore[abstract]


def test_only_the_standard_library_is_imported() -> None:
    found: set[str] = set()
    for path in Path(schedules.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if module.startswith("thalweg"):
                    below = ("thalweg.schedules", "thalweg.ranges", "thalweg.names")
                    assert module.startswith(below), f"{path.name}: {module}"
                found.add(module.split(".")[0])
    assert found - sys.stdlib_module_names == {"thalweg", "matplotlib"}
