# mypy: ignore-errors
"""Source of four compiled functions; loaded through the kernel cache, never imported.

``read`` asks the tensors of a unit where they are and whether they are what was planned;
``at_once`` reads units and, if all is as planned, runs their kernels before anything of others
can; ``bump`` tells autograd that tensors were written; ``compare`` tells whether lists hold the
same objects. A cell is an int64 holding the address of a TensorImpl, which is all that an
``at::Tensor`` is: the address of a cell can be passed where torch's C functions take a tensor.
Every Python object of a tensor has one.

A thousand tensors are thousands of cache lines, each found through another: parameter, autograd
metadata, gradient, storage. In training none is in a cache, and waiting for each in turn costs
more than the update. So ``read`` fetches ahead, some tensors before it asks: each line as soon as
the one that leads to it is there. A line may be fetched from anywhere, but what leads on is read:
so each way begins at the objects, which are alive.

Like a kernel, each takes the address of its arguments and works through spans of tensors until
none is left, on as many threads as call it. ``addresses.py`` lays the arguments out. Nothing here
can raise. Nor may torch's functions throw: only a tensor with the dispatch keys of plain ones is
asked, with functions that catch what they throw, or throw for no such tensor.
"""

from thalweg.engine.backends.cpu.intrinsics import (
    call,
    call_in_pool,
    call_with,
    half_word,
    prefetch,
    set_word,
    take,
    word,
)

# How many tensors ahead a line is fetched: a step ahead for each line on the way.
FIRST, SECOND, THIRD, FOURTH, FIFTH = 20, 16, 12, 8, 4
LINE, IMPL = 1, 256  # bytes to fetch: any one line, and what a TensorImpl may lie in


def read(a):
    """Fill in the addresses; tell if a tensor is not as planned, absent, or elsewhere than before.

    The fourth is told of what is written, and of a gradient that has come to overlap with it.
    """
    spans, span, tensors = word(a, 4), word(a, 5), word(a, 6)
    objects, impl_at, given, items_at = word(a, 7), word(a, 8), word(a, 9), word(a, 10)
    states, state_objects, addresses = word(a, 11), word(a, 12), word(a, 13)
    kinds, first, sizes, strides = word(a, 14), word(a, 15), word(a, 16), word(a, 17)
    numbers, absent, undefined, none = word(a, 18), word(a, 19), word(a, 20), word(a, 21)
    starts, stops, written = word(a, 22), word(a, 23), word(a, 24)
    keys_at, plain_keys, answers = word(a, 25), word(a, 26), word(a, 27)
    storage_at, autograd_at, version_at, grad_at = (
        word(a, 28),
        word(a, 29),
        word(a, 30),
        word(a, 31),
    )
    get_grad, get_data_ptr, get_dtype, get_dim = word(a, 32), word(a, 33), word(a, 34), word(a, 35)
    get_sizes, get_strides, get_offset, get_room = (
        word(a, 36),
        word(a, 37),
        word(a, 38),
        word(a, 39),
    )
    ticket = take(a)
    while ticket < spans:
        answer = answers + 64 * ticket  # a cache line for each span
        begin = ticket * span
        end = begin + span
        end = end if end < tensors else tensors
        # Where nothing is fetched ahead, only the lines that are needed are touched.
        for k in range(begin - FIRST if storage_at else begin, end):
            if storage_at:
                if k + FIRST < end:
                    prefetch(word(objects, k + FIRST) + impl_at, LINE)
                if begin <= k + SECOND < end:
                    prefetch(word(word(objects, k + SECOND) + impl_at, 0), IMPL)
                if begin <= k + THIRD < end:
                    impl = word(word(objects, k + THIRD) + impl_at, 0)
                    prefetch(word(impl, storage_at), LINE)
                    prefetch(word(impl, version_at), LINE)
                    prefetch(word(impl, autograd_at) + 8 * grad_at, LINE)
                for ahead in (FOURTH, FIFTH):
                    if begin <= k + ahead < end and given == 0:
                        metadata = word(word(word(objects, k + ahead) + impl_at, 0), autograd_at)
                        impl = word(metadata, grad_at) if metadata else 0
                        if ahead == FOURTH:
                            prefetch(impl, IMPL)
                        elif impl != 0 and impl != undefined:
                            prefetch(word(impl, storage_at), LINE)
            if k < begin:
                continue

            p = word(objects, k) + impl_at
            if given:
                g = word(word(given, items_at), k)
                gone = g == none
                g = g + impl_at
            else:
                g = call(get_grad, word(p, 0))
                gone = word(g, 0) == undefined
            set_word(absent, k, 1 if gone else 0)
            if gone:
                set_word(a, 2, 1)
                set_word(addresses, tensors + k, 0)
            dims, elements = word(first, k + 1) - word(first, k), word(numbers, k)
            for c in range(2 + states):
                if c == 1 and gone:
                    continue
                place = c * tensors + k
                x = p if c == 0 else g
                if c > 1:
                    x = word(state_objects, place - 2 * tensors) + impl_at
                fine = word(word(x, 0), keys_at) == plain_keys
                if fine:
                    fine = call_with(get_dtype, x, answer) == 0
                    fine = fine and half_word(answer) == word(kinds, 2 * c)
                if fine:
                    fine = call_with(get_dim, x, answer) == 0 and word(answer, 0) == dims
                if fine:
                    fine = call_with(get_sizes, x, answer) == 0
                    size = word(answer, 0)
                    fine = fine and call_with(get_strides, x, answer) == 0
                    stride = word(answer, 0)
                    for d in range(dims if fine else 0):
                        j, n = word(first, k) + d, word(size, d)
                        same = n == word(sizes, j) and (
                            n <= 1 or word(stride, d) == word(strides, j)
                        )
                        fine = fine and same
                at = 0
                if fine:
                    fine = call_with(get_data_ptr, x, answer) == 0
                    at = word(answer, 0)
                    # A tensor without memory of its own; an empty parameter has none either.
                    fine = fine and (at != 0 or elements == 0)
                if fine and at != word(addresses, place):
                    # Does it lie within its storage, which may have been made smaller?
                    item = word(kinds, 2 * c + 1)
                    fine = call_with(get_offset, x, answer) == 0
                    needed = (word(answer, 0) + elements) * item
                    fine = fine and call_with(get_room, x, answer) == 0
                    fine = fine and (needed <= word(answer, 0) or elements == 0)
                    set_word(addresses, place, at if fine else 0)  # asked again if it does not
                    low, left = 0, written if c == 1 else 0
                    while left > 1:  # the last of the written ranges that begins before its end
                        half = left >> 1
                        low = low + half if word(starts, low + half) < at + elements * item else low
                        left = left - half
                    if left and word(starts, low) < at + elements * item and word(stops, low) > at:
                        set_word(a, 3, 1)
                    if c != 1:
                        set_word(a, 3, 1)
                if not fine:
                    set_word(a, 1, 1)
        ticket = take(a)


def at_once(a):
    """Read some units; if all is as planned and nothing moved, run a kernel of each, and set a[0].

    Nothing of others runs in between. The GIL is let go while kernels run, if a[2] says so.
    """
    units, let_go, pool, save, restore = word(a, 1), word(a, 2), word(a, 3), word(a, 4), word(a, 5)
    read = word(a, 6)
    failed = 0
    for u in range(units):
        arguments, threads = word(a, 8 + 5 * u), word(a, 9 + 5 * u)
        for k in range(4):
            set_word(arguments, k, 0)
        if threads > 1:
            call_in_pool(pool, read, arguments, threads)
        else:
            call(read, arguments)
        failed = failed | word(arguments, 1) | word(arguments, 3)
    if failed:
        return
    thread = call(save, 0) if let_go else 0
    for u in range(units):
        kernel, arguments = word(a, 10 + 5 * u), word(a, 11 + 5 * u)
        threads = word(a, 12 + 5 * u)
        set_word(arguments, 0, 0)
        if threads > 1:
            call_in_pool(pool, kernel, arguments, threads)
        else:
            call(kernel, arguments)
    if let_go:
        call(restore, thread)
    set_word(a, 0, 1)


def bump(a):
    """Count one write to each tensor whose parameter had a gradient."""
    tensors, cells, columns, absent = word(a, 6), word(a, 7), word(a, 8), word(a, 9)
    ticket = take(a)
    while ticket < word(a, 4):
        end = (ticket + 1) * word(a, 5)
        for t in range(ticket * word(a, 5), end if end < tensors else tensors):
            if absent == 0 or word(absent, t) == 0:
                for c in range(columns):
                    cell = word(cells, c * tensors + t)
                    # It throws for inference tensors, whose keys are others.
                    if word(word(cell, 0), word(a, 11)) == word(a, 12):
                        call(word(a, 10), cell)
        ticket = take(a)


def compare(a):
    """Set a[1] if a list does not hold as many objects as planned, or others."""
    lists, starts, objects = word(a, 7), word(a, 8), word(a, 9)
    ticket = take(a)
    while ticket < word(a, 4):
        one = word(lists, ticket)
        start, count = word(starts, ticket), word(starts, ticket + 1) - word(starts, ticket)
        if word(one, word(a, 10)) != count:
            set_word(a, 1, 1)
        else:
            items = word(one, word(a, 11))
            for k in range(count):
                if word(items, k) != word(objects, start + k):
                    set_word(a, 1, 1)
        ticket = take(a)
