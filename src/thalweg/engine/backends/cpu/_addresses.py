# mypy: ignore-errors
"""Source of three compiled functions; loaded through the kernel cache, never imported.

``read`` asks the tensors of a unit where they are and whether they are what was planned; ``bump``
tells autograd that tensors were written; ``compare`` tells whether lists hold the same objects.
A cell is an int64 holding the address of a TensorImpl, which is all that an ``at::Tensor`` is: the
address of a cell can be passed where torch's C functions take a tensor.

A thousand tensors are thousands of cache lines, each found through another: parameter, autograd
metadata, gradient, storage. In training none is in a cache, and waiting for each in turn costs
more than the update. So ``read`` fetches ahead, some tensors before it asks: each line as soon as
the one that leads to it is there. A line may be fetched from anywhere, but what leads on is read:
so each way begins at the objects, which are alive. The cells may be those of tensors that are gone.

Like a kernel, each takes the address of its arguments and works through spans of tensors until
none is left, on as many threads as call it. ``addresses.py`` lays the arguments out. Nothing here
can raise, and no function of Numba's is called (such as ``min``): the code must do without Numba.
"""

from numba import cfunc

from thalweg.engine.backends.cpu.intrinsics import (
    call,
    call_with,
    int32_pointer,
    int64_pointer,
    prefetch,
    take,
)

# How many tensors ahead a line is fetched: a step ahead for each line on the way.
FIRST, SECOND, THIRD, FOURTH = 16, 12, 8, 4
LINE, IMPL = 1, 256  # bytes to fetch: any one line, and what a TensorImpl may lie in


def _read(arguments):
    """Fill in the addresses; set a[1] if any tensor is not as planned, a[2] if one is absent."""
    a = int64_pointer(arguments)
    spans, span, tensors = a[3], a[4], a[5]
    objects, impl_at = int64_pointer(a[6]), a[7]
    cells, value_cells, state_cells, states = int64_pointer(a[8]), a[9], a[10], a[11]
    addresses, dtypes = int64_pointer(a[12]), int64_pointer(a[13])
    first, sizes, strides = int64_pointer(a[14]), int64_pointer(a[15]), int64_pointer(a[16])
    numbers, absent, undefined = int64_pointer(a[17]), int64_pointer(a[18]), a[19]
    get_grad, is_neg, get_data_ptr, get_dtype = a[20], a[21], a[22], a[23]
    get_device, get_dim, get_sizes, get_strides = a[24], a[25], a[26], a[27]
    storage_at, autograd_at, version_at, grad_at = a[28], a[29], a[30], a[31]
    answers, value_objects, state_objects = a[32], int64_pointer(a[33]), int64_pointer(a[34])
    keys_at, plain_keys = a[35], a[36]

    ticket = take(arguments)
    while ticket < spans:
        answer = answers + 64 * ticket  # a cache line for each span
        word, half = int64_pointer(answer), int32_pointer(answer)
        end = (ticket + 1) * span
        end = end if end < tensors else tensors
        begin = ticket * span
        # Where nothing is fetched ahead, only the lines that are needed are touched.
        for k in range(begin - FIRST if storage_at else begin, end):
            if storage_at:
                t = k + FIRST
                if t < end:
                    prefetch(objects[t] + impl_at, LINE)
                    impl = cells[t]
                    prefetch(impl, IMPL)
                t = k + SECOND
                if begin <= t < end:
                    impl = int64_pointer(int64_pointer(objects[t] + impl_at)[0])
                    prefetch(impl[storage_at], LINE)
                    prefetch(impl[version_at], LINE)
                    metadata = impl[autograd_at]
                    if value_cells:
                        impl = int64_pointer(value_cells)[t]
                        prefetch(impl, IMPL)
                    elif metadata != 0:
                        prefetch(metadata + 8 * grad_at, LINE)
                t = k + THIRD
                if begin <= t < end and value_cells == 0:
                    impl = int64_pointer(objects[t] + impl_at)[0]
                    metadata = int64_pointer(impl)[autograd_at]
                    if metadata != 0:
                        impl = int64_pointer(metadata)[grad_at]
                        prefetch(impl, IMPL)
                t = k + FOURTH
                if begin <= t < end:
                    impl = 0
                    if value_cells:
                        impl = int64_pointer(value_objects[t] + impl_at)[0]
                    else:
                        impl = int64_pointer(objects[t] + impl_at)[0]
                        metadata = int64_pointer(impl)[autograd_at]
                        impl = 0
                        if metadata != 0:
                            impl = int64_pointer(metadata)[grad_at]
                    if impl != 0 and impl != undefined:
                        prefetch(int64_pointer(impl)[storage_at], LINE)
            if k < begin:
                continue

            t = k
            # The objects may stand for other tensors by now (swap_tensors).
            as_planned = int64_pointer(objects[t] + impl_at)[0] == cells[t]
            if value_cells and as_planned:
                impl = int64_pointer(value_cells)[t]
                as_planned = int64_pointer(value_objects[t] + impl_at)[0] == impl
            for s in range(states):
                j = s * tensors + t
                impl = int64_pointer(state_cells)[j]
                as_planned = as_planned and int64_pointer(state_objects[j] + impl_at)[0] == impl
            p = a[8] + 8 * t
            columns = 1
            if as_planned:
                g = value_cells + 8 * t if value_cells else call(get_grad, cells[t])
                absent[t] = 0
                if int64_pointer(g)[0] == undefined:
                    absent[t] = 1
                    a[2] = 1
                    addresses[tensors + t] = 0
                columns = 2 + states
            dims = first[t + 1] - first[t]
            for c in range(columns):
                if c == 1 and absent[t] != 0:
                    continue
                x = p
                if c == 1:
                    x = g
                elif c > 1:
                    x = state_cells + 8 * ((c - 2) * tensors + t)
                plain = as_planned and keys_at != 0
                if plain:
                    plain = int64_pointer(int64_pointer(x)[0])[keys_at] == plain_keys
                if as_planned and not plain:  # a sparse tensor has no data
                    as_planned = call_with(get_device, x, answer) == 0 and half[0] == 0  # cpu
                if as_planned and not plain:
                    as_planned = call(is_neg, x) & 255 == 0
                if as_planned:
                    as_planned = call_with(get_dtype, x, answer) == 0 and half[0] == dtypes[c]
                if as_planned:
                    as_planned = call_with(get_data_ptr, x, answer) == 0
                if as_planned:
                    # A tensor without memory of its own; an empty parameter has none either.
                    as_planned = word[0] != 0 or numbers[t] == 0
                    addresses[c * tensors + t] = word[0]
                if as_planned:
                    as_planned = call_with(get_dim, x, answer) == 0 and word[0] == dims
                if as_planned and call_with(get_sizes, x, answer) == 0:
                    size = int64_pointer(word[0])
                    as_planned = call_with(get_strides, x, answer) == 0
                    stride = int64_pointer(word[0])
                    if as_planned:
                        for d in range(dims):
                            j = first[t] + d
                            same = size[d] == sizes[j] and (size[d] <= 1 or stride[d] == strides[j])
                            as_planned = as_planned and same
            if not as_planned:
                a[1] = 1
        ticket = take(arguments)


def _bump(arguments):
    """Count one write to each tensor whose parameter had a gradient."""
    a = int64_pointer(arguments)
    spans, span, tensors = a[3], a[4], a[5]
    places, columns, absent, bump_version = int64_pointer(a[6]), a[7], a[8], a[9]
    ticket = take(arguments)
    while ticket < spans:
        end = (ticket + 1) * span
        for t in range(ticket * span, end if end < tensors else tensors):
            if absent == 0 or int64_pointer(absent)[t] == 0:
                for c in range(columns):
                    call(bump_version, places[c * tensors + t])
        ticket = take(arguments)


def _compare(arguments):
    """Set a[1] if a list does not hold as many objects as planned, or others."""
    a = int64_pointer(arguments)
    lists, starts, objects = int64_pointer(a[6]), int64_pointer(a[7]), int64_pointer(a[8])
    length_at, items_at = a[9], a[10]
    ticket = take(arguments)
    while ticket < a[3]:
        one = int64_pointer(lists[ticket])
        start, count = starts[ticket], starts[ticket + 1] - starts[ticket]
        if one[length_at] != count:
            a[1] = 1
        else:
            items = int64_pointer(one[items_at])
            for k in range(count):
                if items[k] != objects[start + k]:
                    a[1] = 1
        ticket = take(arguments)


read = cfunc("void(int64)")(_read)
bump = cfunc("void(int64)")(_bump)
compare = cfunc("void(int64)")(_compare)
