"""Compiled sources compute what Python does; what is no kernel is refused, by its line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.engine.backends.cpu.compiled import compiled, over_arrays
from thalweg.engine.backends.cpu.cache import Generated
from thalweg.engine.backends.cpu.compiler import CompileError, compile_functions

HEAD = """\
import functools
import math

import numpy as np

from thalweg.engine.backends.cpu.compiler.kinds import *
from thalweg.engine.backends.cpu.intrinsics import *

NEAR, TENTH, FIRST, SECOND = np.float64(0.5), np.float32(0.1), 20, 16


"""
EACH = """


def work(arguments):
    t = int64_pointer(arguments)
    a, b, out = {kind}_pointer(t[1]), {kind}_pointer(t[2]), {kind}_pointer(t[3])
    for i in range(t[0]):
        out[i] = f(a[i], b[i])
"""
_number = itertools.count()


def names_of(source: str) -> dict[str, Any]:
    return Generated(f"source_{next(_number)}", HEAD + source, None).names()


def both(source: str, kind: str) -> tuple[Callable[[Any, Any], Any], Callable[..., None]]:
    """``f(a, b)`` as Python has it, and compiled over arrays."""
    names = names_of(source.strip() + EACH.format(kind=kind))
    return names["f"], over_arrays(names["work"])


INTEGERS = {
    "operators": "def f(a, b):\n    return (a * b + (a ^ b) - (a & 7)) | ((a >> 3) + (b << 2))",
    "rounds down": "def f(a, b):\n    return a // b if b != 0 else a // 8 - a % 16",
    "remainder": "def f(a, b):\n    return a % b if b != 0 else -a",
    "conditions": "def f(a, b):\n    return 1 if (a < b) | (a == 3) and not b > 5 or a >= 9 else 0",
    "chain": "def f(a, b):\n    return 2 if -5 <= a < b != 4 else 3",
    "nested": "def f(a, b):\n    return a if a > b else (b if b > 0 else (7 if a else -7))",
    "while": """
def f(a, b):
    n, steps = abs_of(a) % 50 + 1, 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
        if steps > 30:
            break
    return steps


def abs_of(a):
    if a < 0:
        return -a
    return a
""",
    "for": """
def f(a, b):
    total = 0
    for i in range(a % 7, 23, 3):
        if i == 8:
            continue
        for j in range(i % 4):
            if j == b % 3:
                break
            total += i * j + 1
        i = 100
        total -= i
    return total
""",
    "unrolled": """
def f(a, b):
    total = 0
    for ahead in (FIRST, SECOND, a):
        if ahead == b:
            continue
        if ahead > 18 and a > 30:
            break
        total = 3 * total + (1 if ahead == FIRST else ahead)
    return total
""",
    "functions": """
def f(a, b):
    a, b = swapped(a, b)
    _, c = swapped(a, b)
    return a - 2 * b + c


def swapped(x, y):
    \"\"\"The larger first.\"\"\"
    if x > y:
        return x, y
    else:
        return y, x
""",
    "elements before the loop": """
def f(a, b):
    total = 0
    for x, y in ((a, b), (b, a), (a + b, 7)):
        a, b = 5 * b, y
        total = 3 * total + x - y
    return total + a
""",
    "left for good": """
def f(a, b):
    for x in (a, b, 3):
        if x > b:
            return x
        return a - x
    return 0
""",
    "given in all ways": """
def f(a, b):
    if a > b:
        x = 1
    elif a == b:
        return 7
    else:
        x = 2
    while True:
        a += 1
        y = a
        if a > 5:
            z = 3
            break
        if a == b:
            z = y
            break
    for k in (1, 2):
        w = k
        if a == 3:
            break
    return x + 10 * y + 100 * z + 1000 * w
""",
    "one name, two functions": """
def twice(x):
    return 2 * x


first = twice


def twice(x):
    return first(x) + 1


def f(a, b):
    return twice(a) - first(b)
""",
    "nothing follows": """
def f(a, b):
    while True:
        if a > b:
            return a - b
        else:
            return b - a
        a = 5
""",
}
FLOATS = {
    "operators": "def f(a, b):\n    return -(a * b) / (a - 0.1) + abs(b) * math.sqrt(abs(a))",
    "comparisons": """
def f(a, b):
    m = (1.0 if a < b else 0.0) + (2.0 if a <= b else 0.0) + (4.0 if a == b else 0.0)
    return m + (8.0 if a != b else 0.0) + (16.0 if a > b else 0.0) + (32.0 if a >= b else 0.0)
""",
    "not of comparisons": "def f(a, b):\n    return a if not a <= b else (NEAR if b != b else b)",
    "functions": "def f(a, b):\n    return math.exp(a / 99.0) + np.floor(a) + math.atan(b)",
    "library": "def f(a, b):\n    return math.log1p(abs(a)) + math.expm1(b / 99.0) + math.tanh(a)",
    "power": "def f(a, b):\n    return math.pow(abs(a), 0.37) + math.log(abs(b) + 1.0)",
    "infinity": "def f(a, b):\n    return -math.inf if a == np.inf else (math.nan if b < a else b)",
}


def numbers(kind: str) -> Any:
    generator = np.random.default_rng(0)
    if kind == "int64":
        some = [0, 1, -1, 3, 8, -8, 20, 16, 9]
        return np.concatenate([some, generator.integers(-60, 60, 90)]).astype(np.int64)
    some = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 0.5, 1e-320]
    return np.concatenate([some, generator.normal(0, 30, 90)])


@pytest.mark.parametrize(
    ("kind", "source"),
    [("int64", s) for s in INTEGERS.values()] + [("float64", s) for s in FLOATS.values()],
    ids=[*INTEGERS, *(f"float {name}" for name in FLOATS)],
)
def test_the_same_as_python(kind: str, source: str) -> None:
    function, run = both(source, kind)
    a = numbers(kind)
    b = np.random.default_rng(1).permutation(a)
    out = np.zeros_like(a)
    run(a, b, out)
    with np.errstate(all="ignore"):
        wanted = []
        for x, y in zip(a, b, strict=True):
            try:
                wanted.append(function(x, y))
            except ZeroDivisionError:  # Python's own, where C has infinity
                wanted.append(np.float64(x) / np.float64(y))
    if kind == "int64":
        assert out.tolist() == wanted
        assert len(set(wanted)) > 1
    else:
        np.testing.assert_array_max_ulp(out[np.isfinite(out)], np.array(wanted)[np.isfinite(out)])
        assert np.array_equal(out[~np.isfinite(out)], np.array(wanted)[~np.isfinite(out)], True)
        assert len(set(out[np.isfinite(out)])) > 1


def result(expression: str, kind: str = "int64", a: int = 0) -> int | float:
    """An expression's value, for an integer a."""
    source = f"def work(t):\n    a = int64_pointer(t)[1]\n    {kind}_pointer(t)[2] = {expression}\n"
    memory = np.zeros(3, dtype=np.int64)
    memory[1] = a
    compiled(names_of(source)["work"])(memory.ctypes.data)
    found: int | float = memory.view(kind)[memory.itemsize * 2 // np.dtype(kind).itemsize].item()
    return found


CASTS: dict[str, tuple[int, int | float]] = {
    "int64(int8(a))": (200, -56),
    "int64(uint8(a))": (-1, 255),
    "int64(uint32(a))": (-1, 2**32 - 1),
    "int64(int32(a))": (2**31, -(2**31)),
    "int64(float64(a) / 4.0)": (-7, -1),
    "int64(float32(a))": (2**24 + 1, 2**24),
    "int64(float64(uint8(a)))": (255, 255),
    "int64(a == 5)": (5, 1),
    "uint32(a) >> 4": (-1, 2**28 - 1),
    "uint8(a) + uint8(a)": (255, 510),
    "a * 0x7FEB352D": (2**40 + 3, ((2**40 + 3) * 0x7FEB352D + 2**63) % 2**64 - 2**63),
}


@pytest.mark.parametrize("expression", CASTS)
def test_casts(expression: str) -> None:
    a, wanted = CASTS[expression]
    assert result(expression, a=a) == wanted


EDGES = (-(2**63), 1 - 2**63, -(2**62), -9, -1, 0, 1, 7, 63, 64, 2**62, 2**63 - 1)
AT_THE_EDGES: dict[str, Callable[[int, int], int]] = {
    "a // b": lambda a, b: a // b if b else 0,
    "a % b": lambda a, b: a % b if b else 0,
    "a // -1": lambda a, b: -a,
    "a % -1": lambda a, b: 0,
    "a // -7": lambda a, b: a // -7,
    "a % -7": lambda a, b: a % -7,
    "a // 8": lambda a, b: a // 8,
    "a % 8": lambda a, b: a % 8,
    "a % -8": lambda a, b: a % -8,
    "a << b": lambda a, b: a << b if 0 <= b < 64 else 0,
    "a >> b": lambda a, b: a >> b if 0 <= b < 64 else a >> 63,
    "a << 64": lambda a, b: 0,
    "a >> 64": lambda a, b: a >> 63,
    "a << 63": lambda a, b: a << 63,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "-a": lambda a, b: -a,
    "a + -9223372036854775808": lambda a, b: a - 2**63,
}


@pytest.mark.parametrize("expression", AT_THE_EDGES)
def test_integers_wrap_and_nothing_ends_the_process(expression: str) -> None:
    _, run = both(f"def f(a, b):\n    return {expression}", "int64")
    pairs = list(itertools.product(EDGES, EDGES))
    a, b = np.array(pairs, dtype=np.int64).T.copy()
    out = np.zeros_like(a)
    run(a, b, out)
    wanted = [(AT_THE_EDGES[expression](*pair) + 2**63) % 2**64 - 2**63 for pair in pairs]
    assert out.tolist() == wanted


OUT_OF_RANGE: dict[str, list[int]] = {
    "int64(x)": [2**63 - 1, -(2**63), 0, 2**63 - 1, -(2**63), 2],
    "int64(int8(x))": [127, -128, 0, 127, -128, 2],
    "int64(uint16(x))": [65535, 0, 0, 65535, 0, 2],
}


@pytest.mark.parametrize("expression", OUT_OF_RANGE)
def test_floats_out_of_range_become_the_last_integer_there(expression: str) -> None:
    numbers = [math.inf, -math.inf, math.nan, 1e300, -1e300, 2.9]
    source = (
        "def work(t):\n    x = float64_pointer(t)[0]\n    int64_pointer(t)[1] = "
        + expression
        + "\n"
    )
    run = compiled(names_of(source)["work"])
    for number, wanted in zip(numbers, OUT_OF_RANGE[expression], strict=True):
        memory = np.array([number, 0.0])
        run(memory.ctypes.data)
        assert memory.view(np.int64)[1] == wanted


def test_floats_of_32_bits_stay_so() -> None:
    assert result("float64(float32(a) / float32(3.0))", "float64", 1) == float(np.float32(1) / 3)
    assert result("float64(TENTH)", "float64") == float(np.float32(0.1))


@pytest.mark.parametrize(
    "expression",
    [
        "int64_pointer(a)[0] if a else 7",
        "7 if a == 0 else int64_pointer(a)[0]",
        "7 if a == 0 or int64_pointer(a)[0] == 1 else 0",
        "0 if a != 0 and int64_pointer(a)[0] == 1 else 7",
        "7 if not (a > 0 and a < 9 and word(a, 0) > 0) else 0",
    ],
)
def test_what_is_not_asked_for_is_not_read(expression: str) -> None:
    assert result(expression) == 7


REFUSED = {
    "x = 1.0 + float32(2.0)": r"Add between float64 and float32; .* cast one",
    "x = 1 + 2.0": r"Add between int64 and float64",
    "x = 1 / 2": r"Div between int64 and int64",
    "x = 1 if 2.0 else 3": r"float64 as a condition",
    "x = 1 if t else 3.0": r"int64 if the condition holds and float64 if not",
    "x = 1 < 2.0": r"int64 Lt float64",
    "x = t is t": r"int64 Is int64",
    "x = 1\n    x = 2.0": r"x was int64, and got float64",
    "x = y": r"y is not known",
    "x = math.nothing": r"math.nothing is not known",
    "x = math": r"math is no number",
    "x = 'text'": r"'text', which no kernel",
    "x = 2**64": r"Pow",
    "x = 9223372036854775808": r"not from -2\^63 to 2\^63 - 1",
    "x = -9223372036854775809": r"not from -2\^63",
    "if t:\n        x = 1\n    y = x": r"x has no value yet, in one of the ways",
    "for i in range(t):\n        x = i\n    y = x": r"x has no value yet",
    "for i in range(t):\n        pass\n    y = i": r"i has no value yet",
    "while t:\n        x = 1\n        t = 0\n    y = x": r"x has no value yet",
    "while True:\n        if t:\n            break\n        x = 1\n    y = x": r"x has no",
    "for i in (1, t):\n        if t:\n            continue\n        x = 1\n    y = x": r"x has no",
    "for i in range(t):\n        y = NEAR\n        NEAR = 2.0": r"NEAR has no value yet",
    "NEAR += 1.0": r"NEAR has no value yet",
    "abs = 1\n    x = abs(1.0)": r"abs is a variable here",
    "math = 1\n    x = math.inf": r"math is a variable here",
    "x = t.real": r"t is a variable here",
    "x = t // 0": r"division by 0",
    "x = t % 0": r"division by 0",
    "x = t << -1": r"shift by -1",
    "x = math.exp(1.0, 2.0)": r"exp of \(float64, float64\); it takes 1 ",
    "x = math.pow(2.0)": r"pow of \(float64\); it takes 2 ",
    "x = float64_scratch(0)": r"a literal from 1 to \d+, and got 0",
    "x = float64_scratch(-1)": r"a literal from 1 to \d+, and got -1",
    "x = float64_scratch(1000000000)": r"a literal from 1 to \d+, and got 1000000000",
    "prefetch(t, 1000000000)": r"a literal from 1 to \d+, and got 1000000000",
    "for i in range():\n        pass": r"one to three bounds",
    "for i in range(1, 2, 3, 4):\n        pass": r"one to three bounds",
    "for i in range(3, stop=4):\n        pass": r"one to three bounds",
    "x = early(t)": r"early returned nothing before, and now int64",
    "x = wrapped(t)": r"wrapped returned \(int64\) before, and now int64",
    "x = of_nothing(t)": r"of_nothing must return a value",
    "x = decorated(t)": r"the source of decorated is not in",
    "x = by_name(t)": r"by_name must be plain",
    "x = any_number(t)": r"any_number must be plain",
    "x = generated(t)": r"generated must be plain",
    "x = one_way(t)": r"the_other calls itself|one_way calls itself",
    "x = [1]": r"List",
    "x = ~t": r"operator Invert",
    "x = -(t > 0)": r"-x for x of kind bool",
    "x = math.exp(t)": r"exp of \(int64\)",
    "x = math.cos(1.0)": r"math.cos is no function",
    "x = print(t)": r"print is no function",
    "x = float32(1.0, 2.0)": r"casts one value",
    "x = int8(int64_pointer(t))": r"int8\(x\) for x of kind int64_pointer",
    "x = t[0]": r"int64\[int64\]",
    "x = int64_pointer(t)[1.0]": r"int64_pointer\[float64\]",
    "int64_pointer(t)[0] = 1.0": r"an element is int64, and got float64",
    "int8_pointer(t)[0] = t": r"an element is int8, and got int64",
    "x = prefetch(t, t)": r"prefetch takes \(int64, literal",
    "x = prefetch(t, 64)": r"x must be one value, and got nothing",
    "x = take(t, t)": r"take takes 1 arguments, and got 2",
    "x = larger_of(1.0, float32(1.0))": r"larger_of takes",
    "x = take(address=t)": r"arguments by name",
    "x, y = t": r"a value for 2 targets",
    "x = y = t": r"several targets",
    "x = helper(t, t)": r"helper takes 1 arguments, and got 2",
    "x = helper(t)": r"calls itself",
    "return t": r"to return nothing, and returns a value",
    "for i in range(0, 9, t):\n        pass": r"step of a range",
    "for i in range(1.0):\n        pass": r"1.0 must be an integer",
    "for i in t:\n        pass": r"over range",
    "for i in range(9):\n        pass\n    else:\n        pass": r"loop with else",
    "while t:\n        pass\n    else:\n        pass": r"loop with else",
    "x = 0 < t < word(t, 0)": r"computes all of its parts",
    "with t:\n        pass": r"With",
    "t.x = 1": r"Attribute as a target",
    "t += 1.0": r"Add between int64 and float64",
    "x = sometimes(t)": r"without a result in one of its ways",
    "x = mixed(t)": r"mixed returned int64 before",
}
HELPERS = """


def helper(x):
    return helper(x)


def sometimes(x):
    if x > 0:
        return x


def mixed(x):
    if x > 0:
        return x
    return 1.0


def early(x):
    if x > 0:
        return
    return x


def wrapped(x):
    if x > 0:
        return (x,)
    return x


def of_nothing(x):
    return prefetch(x, 64)


def hundredfold(function):
    @functools.wraps(function)
    def decorated(x):
        return 100 * function(x)

    return decorated


@hundredfold
def decorated(x):
    return x


def by_name(x, *, y=3):
    return x + y


def any_number(x, *more):
    return x


def generated(x):
    return x
    yield x


def one_way(x):
    return the_other(x)


def the_other(x):
    return one_way(x)
"""


@pytest.mark.parametrize("source", REFUSED)
def test_what_is_no_kernel_is_refused(source: str) -> None:
    work = names_of(f"def work(t):\n    {source}\n{HELPERS}")["work"]
    with pytest.raises(CompileError, match=REFUSED[source]) as refused:
        compile_functions({"work": work})
    if not source.startswith("return"):
        assert 'File "<thalweg source_' in str(refused.value)


def test_an_error_names_the_line() -> None:
    work = names_of("def work(t):\n    pass\n    x = 1 + 2.0\n")["work"]
    line = HEAD.count("\n") + 3
    with pytest.raises(CompileError, match=rf'", line {line}: .*\n    x = 1 \+ 2\.0$'):
        compile_functions({"work": work})


def test_a_function_without_a_source_is_refused() -> None:
    names: dict[str, Any] = {}
    exec("def work(t):\n    pass\n", names)
    with pytest.raises(CompileError, match="the source of work is not in <string>"):
        compile_functions({"work": names["work"]})
