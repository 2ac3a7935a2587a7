"""Schedules from text: what it means, what is refused, and where."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.schedules.examples import EVERY, composed, shape
from thalweg import schedules
from thalweg.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Function,
    Join,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Rex,
    Schedule,
    Table,
    Warmup,
    parse,
)
from thalweg.schedules.expression import CLASSES, METHODS, names

MEANINGS: dict[str, Schedule] = {
    "warmup(100) >> cosine(900)": Warmup(100).then(Cosine(1, 0, steps=900)),
    "0.1 * (warmup(100) >> cosine(900))": 0.1 * Warmup(100).then(Cosine(1, 0, steps=900)),
    "0.1 * warmup(100) >> cosine(900)": (0.1 * Warmup(100)).then(Cosine(1, 0, steps=900)),
    "linear(9)": Linear(1, 0, steps=9),
    "Linear(steps=9)": Linear(1, 0, steps=9),
    "LINEAR(2, 3, 9)": Linear(2, 3, steps=9),
    "linear(9, start=2)": Linear(2, 0, steps=9),
    "linear(2, 3, steps=9)": Linear(2, 3, steps=9),
    "cosine(900, end=0.1)": Cosine(1, 0.1, steps=900),
    "polynomial(9, power=2)": Polynomial(1, 0, steps=9, power=2),
    "rex(9)": Rex(1, 0, steps=9),
    "cosine_restarts(50, growth=2)": CosineRestarts(1, 0, period=50, growth=2),
    "CosineRestarts(1, 0.1, 50)": CosineRestarts(1, 0.1, period=50),
    "cyclic(50)": Cyclic(0, 1, up=50),
    "cyclic(0.1, 1, 4, 3, 'triangular2')": Cyclic(0.1, 1, 4, 3, "triangular2"),
    "onecycle(100)": OneCycle(1 / 25, 1, 1 / 25 / 1e4, steps=100),
    "one_cycle(1, 4, 0, steps=8, three_phase=True)": OneCycle(1, 4, 0, steps=8, three_phase=True),
    "table((4, 2, 1))": Table((4, 2, 1)),
    "multi_step([1, 3], gamma=0.5)": MultiStep((1, 3), gamma=0.5),
    "cosine(9).repeated(mirrored=True)": Cosine(1, 0, 9).repeated(mirrored=True),
    "linear(9).shifted(-2).clamped(low=0.1)": Linear(1, 0, 9).shifted(-2).clamped(low=0.1),
    "constant(1).then(linear(9), at=5)": Constant(1).then(Linear(1, 0, 9), at=5),
    "join((1, linear(9)), (5,))": Join((1, Linear(1, 0, 9)), (5,)),  # type: ignore[arg-type]
    "cosine(9) + 0.5": Cosine(1, 0, 9) + 0.5,
    "1 / 25 * cosine(3 * 3)": 0.04 * Cosine(1, 0, 9),
    "0.1": Constant(0.1),
    "-(1 - 3)": Constant(2),
    "  warmup( 3 )\n >> 2 ": Warmup(3).then(2),
}


@pytest.mark.parametrize("text", MEANINGS)
def test_meaning(text: str) -> None:
    assert parse(text) == MEANINGS[text]


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_a_schedules_repr_is_an_expression(schedule: Schedule) -> None:
    assert parse(repr(schedule)) == schedule


@given(st.one_of(shape, composed))
def test_a_repr_of_any_schedule_is_an_expression(schedule: Schedule) -> None:
    assert parse(repr(schedule)) == schedule


def test_every_class_has_a_name() -> None:
    public = {getattr(schedules, name) for name in schedules.__all__}
    classes = {c for c in public if isinstance(c, type)} - {Schedule, Function}
    assert set(CLASSES) == classes
    assert {"cosine_restarts", "warmup_stable_decay"} <= set(names())


def test_every_operation_of_schedules_is_an_operator_or_a_method() -> None:
    made = {n for n, f in vars(Schedule).items() if "Schedule" in str(getattr(f, "__annotations__",
            {}).get("return", "")) and not n.startswith("_")}  # fmt: skip
    assert made == set(METHODS)


def test_shift_operator_is_then() -> None:
    first, second = Warmup(4), Cosine(1, 0, steps=8)
    assert first >> second == first.then(second)
    assert first >> 2 == first.then(2)
    assert 0.1 * (first >> second) == 0.1 * first.then(second)
    with pytest.raises(ValueError, match=r"Constant\.then: at must be given"):
        Constant(1) >> second


# What is refused: the expression, what is said, and the part of it that is pointed at.
REFUSED = [
    ("warmup(100) >> cosin(900)", "unknown name 'cosin'; did you mean cosine?", "cosin"),
    ("nothing_like_it(3)", "unknown name 'nothing_like_it'; there are: clamped, constant", None),
    ("linear(9).repeat()", "unknown method 'repeat'; did you mean repeated?", "linear(9).repeat"),
    ("linear(9).plot()", "unknown method 'plot'; there are: then, shifted", "linear(9).plot"),
    ("linear(9).steps", "this has no meaning in a schedule", "linear(9).steps"),
    ("warmup", "warmup needs its arguments, as in warmup(100)", "warmup"),
    ("1 + warmup(-1)", "Warmup: steps must be a finite number >= 0, got -1", "warmup(-1)"),
    ("cosine(1, 0)", "Cosine: missing a required argument: 'steps'; it is Cosine(start, end, s",
     "cosine(1, 0)"),
    ("cosine(9, ende=1)", "Cosine: got an unexpected keyword argument 'ende'", None),
    ("warmup('a')", "Warmup: steps must be a number, got str 'a'", "warmup('a')"),
    ("constant(1) >> warmup(3)", "Constant.then: at must be given", "constant(1) >> warmup(3)"),
    ("0.1 >> warmup(3)", "Constant.then: at must be given", None),
    ("warmup(3) - 1", "schedules cannot be subtracted; write f + -1 * g", "warmup(3) - 1"),
    ("-warmup(3)", "a sign can stand before a number only; write -1 * f", "warmup(3)"),
    ("warmup(3) / 2", "a schedule cannot divide or be divided", "warmup(3) / 2"),
    ("warmup(3) * (1, 2)", "only schedules and numbers can be put together, got (1, 2)", "(1, 2)"),
    ("'a' * 9", "only schedules and numbers can be put together", "'a'"),
    ("True", "an expression must give a schedule, got True", "True"),
    ("warmup(3) * True", "only schedules and numbers", "True"),
    ("1 / 0", "division by zero", "1 / 0"),
    ("1e999", "it: the value must be finite, got inf", "1e999"),
    ("function(1)", "Function takes a Python function", "function"),
    ("(3).then(1)", "then is a method of schedules, and this is 3", "3"),
    ("warmup(*(1, 2))", "arguments are written one by one", None),
    ("warmup(**3)", "arguments are written one by one", None),
    ("9 ** 9 ** 9", "schedules are put together by >>, * and +", None),
    ("warmup(100", "'(' was never closed", "("),
    ("lambda: 1", "this has no meaning in a schedule", "lambda: 1"),
    ("f'{1}'", "this has no meaning", None),
    ("warmup(3)[0]", "this has no meaning", None),
    ("__import__('os').system('true')", "unknown name '__import__'", "__import__"),
    ("().__class__", "this has no meaning", None),
    ("warmup(3) if 1 else 2", "this has no meaning", None),
    ("[warmup(i) for i in (1, 2)]", "this has no meaning", None),
    ("1j", "this has no meaning", None),
    ("λ(3)+ωarmup(3)", "unknown name 'λ'", "λ"),
    ("1 + ωarmup(3)", "unknown name 'ωarmup'; did you mean warmup?", "ωarmup"),
    ("a\0b", "null bytes", None),
    ("x = 1", "invalid syntax", None),
    (" + ".join(["warmup(1)"] * 3000), "nested too deeply", None),
    ("(" * 300 + "1" + ")" * 300, "too many nested parentheses", None),
    ("warmup(" + "9" * 400 + ")", "int too large to convert to float", None),
    ("", "the expression is empty", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message", "place"), REFUSED, ids=[repr(t[:30]) for t, *_ in REFUSED]
)
def test_refused(text: str, message: str, place: str | None) -> None:
    with pytest.raises(ValueError, match="schedule: ") as caught:
        parse(text)
    said, *rest = str(caught.value).split("\n")
    assert message in said
    assert said.startswith("schedule: ")
    if place is not None:
        shown, marks = rest
        begin, end = marks.index("^"), len(marks)
        assert shown[begin:end] == place


def test_of_a_long_expression_the_place_is_shown() -> None:
    text = " + ".join(["warmup(1)"] * 30) + " + warmpu(1)"
    with pytest.raises(ValueError, match="did you mean warmup") as caught:
        parse(text)
    _, shown, marks = str(caught.value).split("\n")
    assert len(shown) < 100
    assert shown[marks.index("^") : len(marks)] == "warmpu"


@pytest.mark.parametrize("value", [None, 3, b"warmup(3)"])
def test_no_text(value: object) -> None:
    with pytest.raises(TypeError, match="schedule: the expression must be a string, got"):
        parse(value)  # type: ignore[arg-type]


@given(st.text(max_size=30))
def test_whatever_is_written_is_a_schedule_or_a_value_error(text: str) -> None:
    try:
        found: Schedule | str = parse(text)
    except ValueError as error:
        found = str(error)
    assert isinstance(found, Schedule) or re.match("schedule: .", found)


def test_an_expression_is_evaluated_exactly() -> None:
    schedule = parse("0.3 * (warmup(10) >> cosine(90, end=0.1))")
    for t in range(120):
        x = min(1.0, (t - 10) / 90)
        late = 0.1 + 0.9 * (1 + math.cos(math.pi * x)) / 2
        assert schedule(t) == pytest.approx(
            0.3 * (t / 10 if t < 10 else late), rel=1e-12, abs=1e-15
        )
