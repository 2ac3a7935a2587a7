# mypy: ignore-errors
"""Source of the kernel of connectionist temporal classification; see ``handwritten.py``.

Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented Sequence Data with
Recurrent Neural Networks", 2006, section 4.1. A state is a place in their l', the target with
blanks around and between its labels: blanks have even places. One sample is one ticket, and each
thread has room of its own. ``losses/evaluation/ctc.py`` lays the arguments out.

Sums of products of probabilities leave the range of float64 in both directions, and neighbouring
states may be further apart than that range is wide. So each number is m R^k with R = 2^512, where
m is 0 or between about 1 / sqrt(R) and sqrt(R), and k is an integer, -inf where m is 0. Adding and
multiplying take no logarithms, vectorise, and are as precise as float64 is.
"""

import math

import numpy as np

from thalweg.engine.backends.cpu.compiler.kinds import float32, float64
from thalweg.engine.backends.cpu.elementary import exp
from thalweg.engine.backends.cpu.intrinsics import (
    add_in_any_order,
    float32_pointer,
    float64_pointer,
    float64_scratch,
    int64_pointer,
    take,
)

INF = np.inf
RADIX, ITS_INVERSE = 2.0**512, 2.0**-512
HIGHEST, LOWEST = 2.0**256, 2.0**-256
# log(R) in two parts, the first so short that its product with a small integer is exact.
LOG_RADIX = 512 * math.log(2)
LOG_RADIX_HIGH = 512 * float.fromhex("0x1.62e42feep-1")
LOG_RADIX_LOW = 512 * float.fromhex("0x1.a39ef35793c76p-33")
NEAR = 177.0  # less than log(R) / 2
LARGEST = np.finfo(np.float64).max
TILE = 256


def _power(k):
    """R^k as far as it is of use beside 1: 0 below 1 / R, and R above."""
    small = ITS_INVERSE if k == -1.0 else 0.0
    return RADIX if k > 0.0 else (1.0 if k == 0.0 else small)


def _plus(m1, k1, m2, k2):
    k = k1 if k1 > k2 else k2
    return m1 * _power(k1 - k) + m2 * _power(k2 - k), k


def _times(m1, k1, m2, k2):
    """The product, with m brought back to its range; 0 times NaN is 0: no path goes there."""
    m, k = m1 * m2, k1 + k2
    m = 0.0 if (m1 == 0.0) | (m2 == 0.0) else m
    large, small = m >= HIGHEST, m < LOWEST
    m = m * (ITS_INVERSE if large else (RADIX if small else 1.0))
    return m, k + (1.0 if large else (-1.0 if small else 0.0))


def _exponential(x):
    if abs(x) < NEAR:
        return math.exp(x), 0.0
    if x == -INF:
        return 0.0, -INF
    if not abs(x) <= LARGEST:
        return x - x, 0.0  # NaN
    k = np.floor(x / LOG_RADIX + 0.5)
    rest = (x - k * LOG_RADIX_HIGH) - k * LOG_RADIX_LOW
    # Of a very large x nothing is left of the rest but rounding errors.
    return math.exp(rest if abs(rest) < NEAR + 1.0 else 0.0), k


# A row holds the ms of the states and, ``width`` further on, their ks. Results go through scratch,
# a tile at a time: a loop that writes where something else may lie is not vectorised.


def _follow(row, step, skips, width, states, result):
    """Each state's sum over those it follows: itself, the next and, past a blank, one further.

    Equation 6 without y for a step of -1, equation 10 for a step of 1.
    """
    ms, ks = float64_scratch(TILE), float64_scratch(TILE)
    for start in range(0, states, TILE):
        count = states - start if states - start < TILE else TILE
        for j in range(count):
            i = start + j
            one, two = i + step, i + 2 * step
            m, k = _plus(row[i], row[width + i], row[one], row[width + one])
            m, k = _plus(m, k, row[two], row[width + two] if skips[i] != 0.0 else -INF)
            ms[j], ks[j] = m, k
        for j in range(count):
            result[start + j] = ms[j]
        for j in range(count):
            result[width + start + j] = ks[j]


def _multiply(row, y, width, states):
    ms, ks = float64_scratch(TILE), float64_scratch(TILE)
    for start in range(0, states, TILE):
        count = states - start if states - start < TILE else TILE
        for j in range(count):
            i = start + j
            ms[j], ks[j] = _times(row[i], row[width + i], y[i], y[width + i])
        for j in range(count):
            row[start + j] = ms[j]
        for j in range(count):
            row[width + start + j] = ks[j]


def _clear(row, width, start, count):
    for i in range(start, start + count):
        row[i], row[width + i] = 0.0, -INF


def _load(single, x, wide_x, place):
    return float64(x[place]) if single else wide_x[place]


def _store(single, gradient, wide_gradient, place, value):
    if single:
        gradient[place] = float32(value)
    else:
        wide_gradient[place] = value


def _sample(a, n, room):
    """The loss of a sample and, if there is a place for it, its gradient."""
    # log_probs and the gradient are of float32 or of float64.
    single, x, wide_x = a[8] == 0, float32_pointer(a[9]), float64_pointer(a[9])
    gradient, wide_gradient = float32_pointer(a[14]), float64_pointer(a[14])
    x_step, x_sample, x_class = a[15], a[16], a[17]
    g_step, g_sample, g_class = a[22], a[23], a[24]
    samples, steps_of_all, classes, blank = a[3], a[4], a[5], a[6]
    table, wanted, width, rows = int64_pointer(a[10]), a[14] != 0, a[18], a[19]
    steps, labels = table[samples + n], table[2 * samples + n]
    states = 2 * labels + 1
    label = int64_pointer(a[11] + 8 * table[n])
    factor = float64_pointer(a[13])[n]
    single_factor = float32(factor)

    # Two states that no path is in lie before the first and two behind the last.
    column = 8 * width
    cell, skips, shares = room, float64_pointer(room + 24), float64_pointer(room + column + 24)
    # first[i]: the first place of the class of label i - 1 among 0 (the blank), 1, ..., S.
    first, beta = int64_pointer(room + 2 * column + 24), float64_pointer(room + 3 * column + 24)
    ys = room + 5 * column + 24
    alphas = ys + 2 * column * rows
    first[0] = 0
    for i in range(-2, states + 2):
        skips[i] = 0.0
    for i in range(labels):
        c = label[i]
        if (c < 0) | (c >= classes):
            table[3 * samples + n] = i
            return
        if i > 0 and c != label[i - 1]:
            skips[2 * i + 1] = 1.0
        place = 0 if c == blank else i + 1
        for j in range(i):
            if place == i + 1 and label[j] == c:
                place = j + 1
        first[i + 1] = place

    # Before the first step nothing has been seen.
    alpha = float64_pointer(alphas)
    _clear(alpha, width, -2, width)
    alpha[0], alpha[width] = 1.0, 0.0
    for t in range(steps):
        here, there = x_step * t + x_sample * n, g_step * t + g_sample * n
        if wanted and single:
            for c in range(classes):
                gradient[there + g_class * c] = exp(x[here + x_class * c]) * single_factor
        elif wanted:
            for c in range(classes):
                wide_gradient[there + g_class * c] = math.exp(wide_x[here + x_class * c]) * factor
        # Without a gradient two rows in turn are enough.
        y = float64_pointer(ys + 2 * column * (t if wanted else 0))
        m, k = _exponential(_load(single, x, wide_x, here + x_class * blank))
        y[0], y[width] = m, k
        for i in range(labels):
            y[2 * i + 2], y[width + 2 * i + 2] = m, k
            p, q = _exponential(_load(single, x, wide_x, here + x_class * label[i]))
            y[2 * i + 1], y[width + 2 * i + 1] = p, q
        after = float64_pointer(alphas + 2 * column * (t + 1 if wanted else (t + 1) & 1))
        _clear(after, width, -2, 2)
        _follow(alpha, -1, skips, width, states, after)
        _multiply(after, y, width, states)
        alpha = after
    end = states - 1
    m, k = _plus(alpha[end], alpha[width + end], alpha[end - 1], alpha[width + end - 1])
    loss = -(math.log(m) + k * LOG_RADIX) + 0.0  # equation 8; the sum makes 0 of -0
    zeroed = (loss == INF) & (a[7] != 0)
    float64_pointer(a[12])[n] = 0.0 if zeroed else loss
    if not wanted:
        return

    known = steps if loss < INF else 0
    for t in range(known, steps_of_all):
        there = g_step * t + g_sample * n
        fill = 0.0 if (t >= steps) | zeroed else np.nan
        for c in range(classes):
            _store(single, gradient, wide_gradient, there + g_class * c, fill)
    # These betas leave out their own state's y.
    _clear(beta, width, -2, width)
    beta[end], beta[width + end] = 1.0, 0.0
    if labels > 0:
        beta[end - 1], beta[width + end - 1] = 1.0, 0.0
    ahead = float64_pointer(room + 40)  # skips from 2 on
    int64_pointer(cell)[0] = 0
    for _ in range(known):
        # From the last to the first. If the compiler knew, it would test for all steps at once
        # whether rows overlap, and that test takes it for granted that they ascend.
        t = steps - 1 - take(cell)
        alpha = float64_pointer(alphas + 2 * column * (t + 1))
        y = float64_pointer(ys + 2 * column * t)
        # Equations 14 and 15: the share of the likelihood whose paths are in this state at t.
        for i in range(states):
            p, q = _times(alpha[i], alpha[width + i], beta[i], beta[width + i])
            shares[i] = p * _power(q - k) / m
        total = 0.0
        for i in range(labels + 1):
            total = add_in_any_order(total, shares[2 * i])
        shares[0] = total
        for i in range(1, labels + 1):
            place = first[i]
            if place != i:
                shares[2 * place - (1 if place > 0 else 0)] += shares[2 * i - 1]
        there = g_step * t + g_sample * n
        for i in range(labels + 1):
            if first[i] == i:
                c, state = label[i - 1] if i > 0 else blank, 2 * i - 1 if i > 0 else 0
                exact = y[state] * _power(y[width + state]) - shares[state]
                _store(single, gradient, wide_gradient, there + g_class * c, exact * factor)
        _multiply(beta, y, width, states)
        _follow(beta, 1, ahead, width, states, beta)


def work(arguments):
    a = int64_pointer(arguments)
    slot = take(arguments + 8)
    if slot >= a[2]:
        return
    n = take(arguments)
    while n < a[3]:
        _sample(a, n, a[20] + 8 * slot * a[21])
        n = take(arguments)
