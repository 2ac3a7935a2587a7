# mypy: ignore-errors
"""Source of two compiled functions; loaded through the kernel cache, never imported.

``read`` asks every tensor of a unit where it is; ``bump`` tells autograd that tensors were written.
A cell is an int64 holding the address of a TensorImpl, which is all that an ``at::Tensor`` is: the
address of a cell can be passed where torch's C functions take a tensor.
"""

from numba import cfunc

from thalweg.engine.intrinsics import call, call_with, int32_pointer, int64_pointer


def _read(arguments):
    """Fill in the gradients' addresses; 0 if all is as planned, else something else."""
    a = int64_pointer(arguments)
    tensors, states = a[0], a[1]
    params, own, grads = int64_pointer(a[2]), int64_pointer(a[4]), int64_pointer(a[5])
    first, sizes, strides = int64_pointer(a[6]), int64_pointer(a[7]), int64_pointer(a[8])
    dtype = a[9]
    get_grad, is_defined, is_neg = a[10], a[11], a[12]
    get_data_ptr, get_dtype, get_layout, get_device = a[13], a[14], a[15], a[16]
    get_dim, get_sizes, get_strides = a[17], a[18], a[19]
    scratch = a[20]
    word, half = int64_pointer(scratch), int32_pointer(scratch)

    for t in range(tensors):
        p = a[2] + 8 * t
        word[0] = 0
        if call_with(get_data_ptr, p, scratch) != 0 or word[0] != own[t]:
            return t + 1
        g = call(get_grad, params[t])
        word[0] = 0
        if call_with(is_defined, g, scratch) != 0 or word[0] & 255 == 0:
            return t + 1
        if call_with(get_layout, g, scratch) != 0 or half[0] != 0:  # at::kStrided
            return t + 1
        if call_with(get_device, g, scratch) != 0 or half[0] != 0:  # at::kCPU
            return t + 1
        if call_with(get_dtype, g, scratch) != 0 or half[0] != dtype:
            return t + 1
        if call(is_neg, g) & 255 != 0:
            return t + 1
        dims = first[t + 1] - first[t]
        for x in (p, g):
            if call_with(get_dim, x, scratch) != 0 or word[0] != dims:
                return t + 1
            if call_with(get_sizes, x, scratch) != 0:
                return t + 1
            size = int64_pointer(word[0])
            if call_with(get_strides, x, scratch) != 0:
                return t + 1
            stride = int64_pointer(word[0])
            for k in range(dims):
                j = first[t] + k
                if size[k] != sizes[j] or (size[k] > 1 and stride[k] != strides[j]):
                    return t + 1
        if call_with(get_data_ptr, g, scratch) != 0:
            return t + 1
        grads[t] = word[0]
    for k in range(states * tensors):
        word[0] = 0
        # The rows of addresses are: p, g and then the states.
        if call_with(get_data_ptr, a[3] + 8 * k, scratch) != 0 or word[0] != own[2 * tensors + k]:
            return tensors + k + 1
    return 0


def _bump(bump_version, cells, count):
    for k in range(count):
        call(bump_version, cells + 8 * k)


read = cfunc("int64(int64)")(_read)
bump = cfunc("void(int64, int64, int64)")(_bump)
