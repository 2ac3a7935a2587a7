# mypy: ignore-errors
"""Source of the kernel of the multilabel margin loss; see ``handwritten.py``.

A row's classes that are targets are taken out of a copy of it by -inf, which is beyond the margin
of any target: the loop over pairs is then free of conditions on indices. The derivative by each
element counts pairs, and is exact up to its last factor.
"""

from thalweg.engine.backends.cpu.compiler.kinds import float32, float64
from thalweg.engine.backends.cpu.intrinsics import (
    add_in_any_order,
    float32_pointer,
    float64_pointer,
    int64_pointer,
    of_kind,
    take,
)


def _is_in_range(targets, classes):
    fine = True
    for k in range(classes):
        fine = fine and (targets[k] >= -1) & (targets[k] < classes)
    return fine


def _leave_out(targets, classes, x, others, lowest):
    """Copy x into others without the targets; return how many targets there are."""
    for d in range(classes):
        others[d] = x[d]
    count = 0
    while count < classes and targets[count] != -1:
        others[targets[count]] = lowest
        count += 1
    return count


def _value(targets, classes, x, others, zero, one):
    total = 0.0
    for k in range(_leave_out(targets, classes, x, others, -one / zero)):
        short = one - x[targets[k]]
        for d in range(classes):
            margin = short + others[d]
            total = add_in_any_order(total, float64(margin if margin > zero else zero))
    return total


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
            pairs = add_in_any_order(pairs, float64(pair))
            total = add_in_any_order(total, float64(margin if within else zero))
        slopes[targets[k]] -= of_kind(one, pairs)
    for d in range(classes):
        slopes[d] *= factor
    return total


def _row(targets, classes, x, others, slopes, wanted, zero, one, factor):
    if wanted:
        return _value_and_slopes(targets, classes, x, others, slopes, zero, one, factor)
    return _value(targets, classes, x, others, zero, one)


def work(arguments):
    a = int64_pointer(arguments)
    parts, rows, classes, is_wide = a[1], a[2], a[3], a[4]
    inputs, targets, scratch, slopes = a[5], a[6], a[7], a[8]
    totals = float64_pointer(a[9])
    factor = totals[rows]
    zero, one = float32(0.0), float32(1.0)
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
                by = float64_pointer(slopes + start)
                value = _row(target, classes, x, rest, by, slopes != 0, 0.0, 1.0, factor)
                totals[row] = value
            else:
                x32, rest32 = float32_pointer(inputs + start), float32_pointer(others)
                by32, factor32 = float32_pointer(slopes + start), float32(factor)
                value = _row(target, classes, x32, rest32, by32, slopes != 0, zero, one, factor32)
                totals[row] = value
        part = take(arguments)
