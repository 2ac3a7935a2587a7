"""The elementary functions of float32 kernels, as straight-line arithmetic that vectorises.

A call into the mathematical library keeps a loop scalar. These are sums, products, at most two
quotients, and selections: no branch, no table, nothing that can raise. For every float32, subnormal
ones included, the answer is the correctly rounded value or a neighbour of it; those of sigmoid and
log1p_of_unit may be the next but one. NaN, infinities and -0.0 are as in C. Multiplication and
addition stay apart, so every vector width gives the same bits.

The argument is reduced as in Cody and Waite, "Software Manual for the Elementary Functions", 1980:
what is subtracted is n * log(2) in two parts, the first so short that its product with n is exact.
The polynomials are minimax: weighted least squares on Chebyshev nodes, the weights raised where the
error is largest until it is level (Lawson, 1961), the coefficients rounded to float32 one after
another, lowest first, and the rest fitted again each time. Each polynomial's error is stated beside
it, relative to the function's value, of which half an ulp is between 2^-25 and 2^-24.

float64 kernels keep the mathematical library's functions.
"""

from typing import Any

import numpy as np

from thalweg.engine.backends.cpu.intrinsics import exponent, mantissa, power_in_halves, power_of_two

_f = np.float32  # a plain Python number would make a kernel's arithmetic float64

ZERO, HALF, ONE, TWO = _f(0), _f(0.5), _f(1), _f(2)
NAN, INF = _f(np.nan), _f(np.inf)

# Adding and subtracting 1.5 * 2^23 rounds to an integer: there is no room for a fraction. The 254
# is for power_in_halves.
ROUND = _f(1.5 * 2**23 + 254)
LOG2_E = _f(1.4426950408889634)
LN2_HIGH = _f(float.fromhex("0x1.62e4p-1"))  # 15 bits; n has at most 8
LN2_LOW = _f(float.fromhex("0x1.7f7d1cp-20"))

# Beyond these the answer no longer changes: 0 and inf; -1; 1.
EXP_LOWEST, EXP_HIGHEST = _f(-104), _f(89)
EXPM1_LOWEST, TANH_HIGHEST = _f(-20), _f(10)

# exp(r) = 1 + r + r^2 (E2 + E3 r + ...) for |r| <= log(2) / 2, also relative to exp(r) - 1: 2^-31
E2, E3, E4, E5, E6, E7 = (
    _f(float.fromhex(c))
    for c in (
        "0x1p-1",
        "0x1.555554p-3",
        "0x1.5554f8p-5",
        "0x1.1112d8p-7",
        "0x1.6d3a4ap-10",
        "0x1.9e7380p-13",
    )
)
# log((1 + s) / (1 - s)) = 2 s + s^3 (L3 + L5 s^2 + L7 s^4) for |s| <= 3 - sqrt(8): 2^-30
L3, L5, L7 = (_f(float.fromhex(c)) for c in ("0x1.55557ap-1", "0x1.995ed2p-2", "0x1.31e13ap-2"))
# log(1 + x) = x + x^2 (U2 + U3 x + ...) for 0 <= x <= 1: 2^-27
U2, U3, U4, U5, U6, U7, U8, U9, U10 = (
    _f(float.fromhex(c))
    for c in (
        "-0x1.ffffd2p-2",
        "0x1.554dd0p-2",
        "-0x1.ff23e8p-3",
        "0x1.934b6ep-3",
        "-0x1.3a43e0p-3",
        "0x1.b4b094p-4",
        "-0x1.d6b75ep-5",
        "0x1.49211cp-6",
        "-0x1.af5e20p-9",
    )
)
# tanh(x) = x + x^3 (T3 + T5 x^2 + ...) for |x| <= TANH_SMALL: 2^-29
T3, T5, T7, T9, T11 = (
    _f(float.fromhex(c))
    for c in (
        "-0x1.555548p-2",
        "0x1.110c5ep-3",
        "-0x1.b905c4p-5",
        "0x1.5811f6p-6",
        "-0x1.9454f2p-8",
    )
)
TANH_SMALL = _f(0.5625)
# atan(x) = x + x^3 (A3 + A5 x^2 + ...) for |x| <= 1: 2^-31
A3, A5, A7, A9, A11, A13, A15, A17, A19, A21 = (
    _f(float.fromhex(c))
    for c in (
        "-0x1.555552p-2",
        "0x1.99981cp-3",
        "-0x1.247620p-3",
        "0x1.c51170p-4",
        "-0x1.6953bcp-4",
        "0x1.150a00p-4",
        "-0x1.7080bap-5",
        "0x1.753040p-6",
        "-0x1.e6a0ecp-8",
        "0x1.29687ep-10",
    )
)
HALF_PI_HIGH = _f(float.fromhex("0x1.921fb6p+0"))
HALF_PI_LOW = _f(float.fromhex("-0x1.777a5cp-25"))

SUBNORMAL, LIFT, LIFTED = _f(2.0**-126), _f(2.0**23), _f(23)  # x * 2^23 is normal
TINY = _f(2.0**-25)  # below, exp(x) - 1 rounds to x


def _rounded(x: Any) -> Any:
    """n + ROUND, for the integer n nearest to x / log(2)."""
    return x * LOG2_E + ROUND


def _reduced(x: Any) -> Any:
    """n and r, a correction of r in its last place: x = n log(2) + r + c, |r| <= log(2) / 2."""
    n = _rounded(x) - ROUND
    high, low = x - n * LN2_HIGH, n * LN2_LOW
    r = high - low
    return n, r, (high - r) - low


def _exp_tail(r: Any) -> Any:
    """exp(r) - 1 - r, in pairs of terms: loops of two functions wait for chains of operations."""
    square = r * r
    return square * ((E2 + r * E3) + square * ((E4 + r * E5) + square * (E6 + r * E7)))


def exp(x: Any) -> Any:
    """e^x = 2^n e^r; 2^n as two factors, since it may be subnormal or 2^128."""
    x = EXP_HIGHEST if x > EXP_HIGHEST else x
    x = EXP_LOWEST if x < EXP_LOWEST else x
    _, r, _ = _reduced(x)
    first, second = power_in_halves(_rounded(x))
    return (ONE + (r + _exp_tail(r))) * first * second


def expm1(x: Any) -> Any:
    """e^x - 1 = (2^n - 1) + 2^n r + 2^n (e^r - 1 - r); half of it is summed, 2^n may be 2^128."""
    bounded = EXP_HIGHEST if x > EXP_HIGHEST else x
    bounded = EXPM1_LOWEST if bounded < EXPM1_LOWEST else bounded
    n, r, correction = _reduced(bounded)
    scale = power_of_two(n - ONE)
    result = TWO * (((scale - HALF) + scale * r) + scale * (_exp_tail(r) + correction))
    return x if abs(x) < TINY else result


def _log_sum(n: Any, f: Any, correction: Any) -> Any:
    """n log(2) + log(1 + f) + correction, for 1 + f between sqrt(1/2) and sqrt(2).

    With s = f / (2 + f), log(1 + f) = f - f^2 / 2 + s (f^2 / 2 + s^2 (L3 + ...)): f is exact, and
    what is rounded is small beside it.
    """
    s = f / (TWO + f)
    z = s * s
    square = HALF * f * f
    tail = s * (square + z * (L3 + z * (L5 + z * L7))) + (n * LN2_LOW + correction)
    return n * LN2_HIGH - ((square - tail) - f)


def log(x: Any) -> Any:
    """log(x) = n log(2) + log(m), for x = 2^n m."""
    small = x < SUBNORMAL
    normal = x * LIFT if small else x
    n = exponent(normal) - (LIFTED if small else ZERO)
    result = _log_sum(n, mantissa(normal) - ONE, ZERO)
    result = result if x < INF else x
    result = NAN if x < ZERO else result
    return -INF if x == ZERO else result


def log1p(x: Any) -> Any:
    """log(1 + x) = log(u) + c / u, where c is what the sum u = 1 + x lost; log(1 + f) near 0."""
    u = ONE + x
    rest = u - ONE
    lost = (x - rest) + (ONE - (u - rest))
    n = exponent(u)
    near = n == ZERO
    f = x if near else mantissa(u) - ONE
    result = _log_sum(n, f, ZERO if near else lost / u)
    result = result if x < INF else x
    result = NAN if x < -ONE else result
    result = -INF if x == -ONE else result
    return x if x == ZERO else result


def log1p_of_unit(x: Any) -> Any:
    """log(1 + x) for x from 0 to 1, where that needs no quotient; printed for log1p(exp(-|x|))."""
    square = x * x
    fourth = square * square
    high = ((U6 + x * U7) + square * (U8 + x * U9)) + fourth * U10
    return x + square * (((U2 + x * U3) + square * (U4 + x * U5)) + fourth * high)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x), through e^-|x|, which does not overflow."""
    small = exp(-abs(x))
    return (ONE if x >= ZERO else small) / (ONE + small)


def tanh(x: Any) -> Any:
    """1 - 2 / (e^(2 |x|) + 1) with the sign of x; a polynomial near 0."""
    size = abs(x)
    bounded = TANH_HIGHEST if size > TANH_HIGHEST else size
    n, r, _ = _reduced(bounded + bounded)
    large = ONE - TWO / ((ONE + (r + _exp_tail(r))) * power_of_two(n) + ONE)
    large = -large if x < ZERO else large
    z = x * x
    small = x + x * (z * (T3 + z * (T5 + z * (T7 + z * (T9 + z * T11)))))
    result = small if size < TANH_SMALL else large
    return x if x == ZERO else result


def _atan_tail(z: Any) -> Any:
    """(atan(x) - x) / x^3 for z = x^2, in pairs of terms."""
    square = z * z
    high = (A15 + z * A17) + square * (A19 + z * A21)
    return (A3 + z * A5) + square * ((A7 + z * A9) + square * ((A11 + z * A13) + square * high))


def atan(x: Any) -> Any:
    """A polynomial up to 1, and beyond pi / 2 - atan(1 / |x|), with the sign of x."""
    size = abs(x)
    far = size > ONE
    u = ONE / size if far else size
    z = u * u
    tail = u * (z * _atan_tail(z))
    result = HALF_PI_HIGH - (u + (tail - HALF_PI_LOW)) if far else u + tail
    result = -result if x < ZERO else result
    return x if x == ZERO else result
