"""Float64 arithmetic with IEEE 754's answers where Python raises.

Python raises on ``1.0 / 0.0``, ``math.sqrt(-1.0)`` and ``math.exp(1000.0)``; a kernel answers inf
or NaN. A rule may well pass through such a point (``where(rho > 5, sqrt(rho - 4), 1)`` evaluates
both arms), and the scalars must then be what the kernel and torch would make of them.
"""

import math
from collections.abc import Callable
from typing import Any

inf, nan = math.inf, math.nan


def divide(a: float, b: float) -> float:
    try:
        return a / b
    except ZeroDivisionError:
        return nan if a == 0 or a != a else math.copysign(inf, a) * math.copysign(1.0, b)


def power(a: float, b: float) -> float:
    try:
        result = a**b
    except ZeroDivisionError:  # 0 ** negative
        odd = float(b).is_integer() and b % 2 == 1
        return math.copysign(inf, a) if odd else inf
    except OverflowError:
        odd = float(b).is_integer() and b % 2 == 1
        return -inf if a < 0 and odd else inf
    return nan if isinstance(result, complex) else result  # (-8.0) ** (1 / 3) is complex in Python


def sqrt(x: float) -> float:
    return nan if x < 0 else math.sqrt(x)


def exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return inf


def log(x: float) -> float:
    if x > 0:
        return math.log(x)
    return -inf if x == 0 else nan


def log1p(x: float) -> float:
    if x > -1:
        return math.log1p(x)
    return -inf if x == -1 else nan


def expm1(x: float) -> float:
    try:
        return math.expm1(x)
    except OverflowError:
        return inf


def tanh(x: float) -> float:
    return math.tanh(x)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def atan(x: float) -> float:
    return math.atan(x)


def sign(x: float) -> float:
    return 1.0 if x > 0 else -1.0 if x < 0 else 0.0


def maximum(a: float, b: float) -> float:
    return a if a > b or a != a else b


def minimum(a: float, b: float) -> float:
    return a if a < b or a != a else b


def where(condition: bool, a: float, b: float) -> float:
    return a if condition else b


class Truth:
    """The result of comparing Numbers: as a bool, but ``~``, ``&`` and ``|`` are logical.

    Python's own ``~True`` is -2, which counts as true.
    """

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = bool(value)

    def __bool__(self) -> bool:
        return self._value

    def __repr__(self) -> str:
        return repr(self._value)

    def __invert__(self) -> "Truth":
        return Truth(not self._value)

    def __and__(self, other: Any) -> Any:
        return Truth(self._value and other) if isinstance(other, Truth) else other & self._value

    def __or__(self, other: Any) -> Any:
        return Truth(self._value or other) if isinstance(other, Truth) else other | self._value

    __rand__, __ror__ = __and__, __or__


class Number(float):
    """A float whose operators answer as above: what a rule gets for ``h.lr`` on an eager run."""

    __slots__ = ()
    __hash__ = float.__hash__


def _operator(name: str, function: Callable[[float, float], float] | None) -> Any:
    plain = getattr(float, name)

    def method(self: float, *others: Any) -> Any:
        if function is not None and isinstance(others[0], (int, float)):
            pair = (others[0], self) if name.startswith("__r") else (self, others[0])
            return Number(function(float(pair[0]), float(pair[1])))
        result = plain(self, *others)
        if isinstance(result, bool):
            return Truth(result)
        return Number(result) if isinstance(result, float) else result

    return method


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "neg", "abs"):
    setattr(Number, f"__{_name}__", _operator(f"__{_name}__", None))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Number, f"__{_name}__", _operator(f"__{_name}__", None))
for _name, _function in (("truediv", divide), ("pow", power)):
    setattr(Number, f"__{_name}__", _operator(f"__{_name}__", _function))
    setattr(Number, f"__r{_name}__", _operator(f"__r{_name}__", _function))
