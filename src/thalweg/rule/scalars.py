"""Float64 arithmetic with IEEE 754's answers where Python raises.

Python raises on ``1.0 / 0.0``, ``math.sqrt(-1.0)`` and ``math.exp(1000.0)``; a kernel answers inf
or NaN. A rule may well pass through such a point (``where(rho > 5, sqrt(rho - 4), 1)`` evaluates
both arms), and the scalars must then be what the kernel and torch would make of them.
"""

import math

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


def sign(x: float) -> float:
    return float((x > 0) - (x < 0))


def maximum(a: float, b: float) -> float:
    return a if a > b or a != a else b


def minimum(a: float, b: float) -> float:
    return a if a < b or a != a else b


def where(condition: bool, a: float, b: float) -> float:
    return a if condition else b
