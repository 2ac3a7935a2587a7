# mypy: ignore-errors
"""Source of three compiled functions; loaded through the kernel cache, never imported.

``read`` asks every tensor of a unit where it is; ``bump`` tells autograd that tensors were written;
``compare`` tells whether Python objects still stand for the same TensorImpls.
A cell is an int64 holding the address of a TensorImpl, which is all that an ``at::Tensor`` is: the
address of a cell can be passed where torch's C functions take a tensor.

Like a kernel, each takes the address of its arguments and works through spans of tensors until
none is left, on as many threads as call it. ``native.py`` lays the arguments out. Nothing here can
raise, and no function of Numba's is called (such as ``min``): the code must do without Numba.
"""

from numba import cfunc

from thalweg.engine.backends.cpu.intrinsics import (
    call,
    call_with,
    int32_pointer,
    int64_pointer,
    take,
)


def _read(arguments):
    """Fill in the gradients' addresses; set a[1] if any tensor is not as planned."""
    a = int64_pointer(arguments)
    spans, span, tensors, states = a[2], a[3], a[4], a[5]
    cells, state_cells = int64_pointer(a[6]), a[7]
    own, grads = int64_pointer(a[8]), int64_pointer(a[9])
    first, sizes, strides = int64_pointer(a[10]), int64_pointer(a[11]), int64_pointer(a[12])
    dtype = a[13]
    get_grad, is_neg, get_data_ptr, get_dtype = a[14], a[15], a[16], a[17]
    get_device, get_dim, get_sizes, get_strides = a[18], a[19], a[20], a[21]
    value_cells = a[23]  # 0: read the gradients

    ticket = take(arguments)
    while ticket < spans:
        answer = a[22] + 64 * ticket  # a cache line for each span
        word, half = int64_pointer(answer), int32_pointer(answer)
        end = (ticket + 1) * span
        for t in range(ticket * span, end if end < tensors else tensors):
            p = a[6] + 8 * t
            g = value_cells + 8 * t if value_cells else call(get_grad, cells[t])
            # An absent gradient is an undefined tensor, which has no device; a sparse one, no data.
            as_planned = call_with(get_device, g, answer) == 0 and half[0] == 0  # cpu
            if as_planned:
                as_planned = call_with(get_dtype, g, answer) == 0 and half[0] == dtype
            if as_planned:
                as_planned = (call(is_neg, g) | call(is_neg, p)) & 255 == 0
            if as_planned:
                as_planned = call_with(get_data_ptr, g, answer) == 0
            if as_planned:
                grads[t] = word[0]
                # A tensor without memory of its own; an empty parameter has none either.
                as_planned = word[0] != 0 or own[t] == 0
            if as_planned:
                as_planned = call_with(get_data_ptr, p, answer) == 0 and word[0] == own[t]
            dims = first[t + 1] - first[t]
            for x in (p, g):
                if as_planned:
                    as_planned = call_with(get_dim, x, answer) == 0 and word[0] == dims
                if as_planned and call_with(get_sizes, x, answer) == 0:
                    size = int64_pointer(word[0])
                    as_planned = call_with(get_strides, x, answer) == 0
                    stride = int64_pointer(word[0])
                    if as_planned:
                        for k in range(dims):
                            j = first[t] + k
                            same = size[k] == sizes[j] and (size[k] <= 1 or stride[k] == strides[j])
                            as_planned = as_planned and same
            for s in range(states):
                k = s * tensors + t
                if as_planned:
                    as_planned = call_with(get_data_ptr, state_cells + 8 * k, answer) == 0
                    # The rows of addresses are p, g and then the states.
                    as_planned = as_planned and word[0] == own[2 * tensors + k]
            if not as_planned:
                a[1] = 1
        ticket = take(arguments)


def _bump(arguments):
    """Count one write to each tensor."""
    a = int64_pointer(arguments)
    spans, span, tensors, cells, bump_version = a[2], a[3], a[4], a[5], a[6]
    ticket = take(arguments)
    while ticket < spans:
        end = (ticket + 1) * span
        for t in range(ticket * span, end if end < tensors else tensors):
            call(bump_version, cells + 8 * t)
        ticket = take(arguments)


def _compare(arguments):
    """Set a[1] if an object no longer holds the address of its TensorImpl."""
    a = int64_pointer(arguments)
    spans, span, tensors, offset = a[2], a[3], a[4], a[7]
    objects, impls = int64_pointer(a[5]), int64_pointer(a[6])
    ticket = take(arguments)
    while ticket < spans:
        end = (ticket + 1) * span
        for t in range(ticket * span, end if end < tensors else tensors):
            if int64_pointer(objects[t] + offset)[0] != impls[t]:
                a[1] = 1
        ticket = take(arguments)


read = cfunc("void(int64)")(_read)
bump = cfunc("void(int64)")(_bump)
compare = cfunc("void(int64)")(_compare)
