# mypy: ignore-errors
"""Source of the kernel of the multilabel margin loss; see ``handwritten.py``.

A row's classes that are targets are taken out of a copy of it by -inf, which is beyond the margin
of any target: the loop over pairs is then free of conditions on indices. The derivative by each
element counts pairs, and is exact up to its last factor.
"""

import numpy as np
from numba import cfunc, njit, prange  # noqa: F401, what is appended to this file needs them

from thalweg.engine.backends.cpu.intrinsics import (
    add_in_any_order,
    float32_pointer,
    float64_pointer,
    int64_pointer,
    take,
)

_inlined = njit(error_model="numpy", forceinline=True)


@_inlined
def _is_in_range(targets, classes):
    bad = 0
    for k in range(classes):
        bad |= (targets[k] < -1) | (targets[k] >= classes)
    return bad == 0


@_inlined
def _leave_out(targets, classes, x, others, lowest):
    """Copy x into others without the targets; return how many targets there are."""
    for d in range(classes):
        others[d] = x[d]
    count = 0
    while count < classes and targets[count] != -1:
        others[targets[count]] = lowest
        count += 1
    return count


@_inlined
def _value(targets, classes, x, others, zero, one):
    total = 0.0
    for k in range(_leave_out(targets, classes, x, others, -one / zero)):
        short = one - x[targets[k]]
        for d in range(classes):
            margin = short + others[d]
            total = add_in_any_order(total, np.float64(margin if margin > zero else zero))
    return total


@_inlined
def _value_and_slopes(targets, classes, x, others, slopes, zero, one, factor):
    """The same, and each element's derivative times the factor."""
    count = _leave_out(targets, classes, x, others, -one / zero)
    for d in range(classes):
        slopes[d] = zero
    total = 0.0
    for k in range(count):
        short = one - x[targets[k]]
        pairs = 0.0
        for d in range(classes):
            margin = short + others[d]
            within = margin > zero
            pair = one if within else zero
            slopes[d] += pair
            pairs = add_in_any_order(pairs, np.float64(pair))
            total = add_in_any_order(total, np.float64(margin if within else zero))
        slopes[targets[k]] -= pairs
    for d in range(classes):
        slopes[d] *= factor
    return total


def work(arguments):
    a = int64_pointer(arguments)
    parts, rows, classes, is_wide = a[1], a[2], a[3], a[4]
    inputs, targets, scratch, slopes = a[5], a[6], a[7], a[8]
    totals = float64_pointer(a[9])
    full_factor = totals[rows]
    size = 8 if is_wide else 4
    part = take(arguments)
    while part < parts:
        others = scratch + size * classes * part
        for row in range(rows * part // parts, rows * (part + 1) // parts):
            target = int64_pointer(targets + 8 * classes * row)
            start = size * classes * row
            if not _is_in_range(target, classes):
                totals[rows + 1] = 1.0
            elif is_wide:
                x, rest = float64_pointer(inputs + start), float64_pointer(others)
                if slopes:
                    by, factor = float64_pointer(slopes + start), full_factor
                    totals[row] = _value_and_slopes(target, classes, x, rest, by, 0.0, 1.0, factor)
                else:
                    totals[row] = _value(target, classes, x, rest, 0.0, 1.0)
            else:
                x, rest = float32_pointer(inputs + start), float32_pointer(others)
                zero, one = np.float32(0.0), np.float32(1.0)
                if slopes:
                    by, factor = float32_pointer(slopes + start), np.float32(full_factor)
                    totals[row] = _value_and_slopes(target, classes, x, rest, by, zero, one, factor)
                else:
                    totals[row] = _value(target, classes, x, rest, zero, one)
        part = take(arguments)
