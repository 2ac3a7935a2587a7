"""Copying: the values of many tensors, and nested data with tensors."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thalweg.engine.modes import with_gradients
from thalweg.engine.readable import is_plain, memory_of, overlaps

Bytes = npt.NDArray[np.uint8]

_PIECE = 1 << 22  # bytes that a thread copies at a time
_WORTH_A_THREAD = 1 << 25  # bytes for which waking another thread pays


@with_gradients(False)
def copy_values(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """What ``target.copy_(source)`` does for each pair, in less time for large tensors on the CPU.

    As many threads as torch's copy by the C library, which writes past the caches where torch's
    copy first reads what it overwrites. No gradient is recorded.

    Args:
        pairs: of target and source; no target shares memory with another tensor here.

    >>> a = torch.zeros(2)
    >>> copy_values([(a, torch.ones(2))])
    >>> a
    tensor([1., 1.])
    """
    large = []
    for target, source in pairs:
        if target.nbytes >= _PIECE and _alike(target, source):
            large.append((target, source))
        else:
            target.copy_(source)
    total = sum(target.nbytes for target, _ in large)
    threads = max(1, min(torch.get_num_threads(), total // _WORTH_A_THREAD))
    # Each thread pops the next piece.
    left = list(_pieces((_memory(target), _memory(source)) for target, source in large))
    others = [Thread(target=_work_off, args=(left,)) for _ in range(threads - 1)]
    for k, thread in enumerate(others):
        try:
            thread.start()
        except RuntimeError:  # the system has no more: those that there are do all of it
            del others[k:]
            break
    _work_off(left)
    for thread in others:
        thread.join()
    for target, _ in large:
        torch.autograd.graph.increment_version(target)  # who saved it for a gradient must know


def _pieces(pairs: Iterable[tuple[Bytes, Bytes]]) -> Iterator[tuple[Bytes, Bytes]]:
    for target, source in pairs:
        for start in range(0, len(target), _PIECE):
            piece = slice(start, start + _PIECE)
            yield target[piece], source[piece]


def _work_off(left: list[tuple[Bytes, Bytes]]) -> None:
    while True:
        try:
            target, source = left.pop()
        except IndexError:
            return
        np.copyto(target, source)  # lets other threads run


def _alike(target: Tensor, source: Tensor) -> bool:
    return (
        target.dtype == source.dtype
        and target.shape == source.shape
        and all(
            is_plain(tensor)
            and tensor.device.type == "cpu"
            and tensor.is_contiguous()
            and not (tensor.is_conj() or tensor.is_neg() or tensor.is_inference())
            and tensor.data_ptr()  # none of one that only stands for zeros
            for tensor in (target, source)
        )
    )


def _memory(tensor: Tensor) -> Bytes:
    array: Bytes = tensor.detach().view(-1).view(torch.uint8).numpy()
    return array


def deep_copy(value: Any, done: dict[int, Any] | None = None) -> Any:
    """Tensors, arrays and containers copied to any depth; all else is the same object.

    Args:
        value: what is copied.
        done: copies made so far, by the originals' ids: what is shared stays shared.

    >>> given = {"step": 1, "betas": (0.9, 0.99), "exp_avg": [torch.zeros(1)]}
    >>> copied = deep_copy(given)
    >>> _ = given["exp_avg"][0].fill_(7.0)
    >>> copied
    {'step': 1, 'betas': (0.9, 0.99), 'exp_avg': [tensor([0.])]}
    """
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)]
    copied: Any = value
    if isinstance(value, Tensor):
        copied = _cloned(value.detach())
    elif isinstance(value, np.ndarray):
        copied = value.copy()
    elif isinstance(value, (list, deque)):
        copied = type(value)()
        copied.extend(deep_copy(item, done) for item in value)
    elif isinstance(value, Counter):
        copied = Counter(value)
    elif isinstance(value, defaultdict):
        copied = defaultdict(value.default_factory if type(value) is defaultdict else dict)
        copied.update((key, deep_copy(item, done)) for key, item in value.items())
    elif isinstance(value, dict):
        copied = OrderedDict() if isinstance(value, OrderedDict) else {}
        copied.update((key, deep_copy(item, done)) for key, item in value.items())
        if hasattr(value, "_metadata"):  # a module's state dict: the versions of its layers
            copied._metadata = value._metadata
    elif type(value) is tuple:
        copied = tuple(deep_copy(item, done) for item in value)
    done[id(value)] = copied
    return copied


def _cloned(tensor: Tensor) -> Tensor:
    """A copy that takes no more memory than the original, where that is expanded."""
    if not is_plain(tensor) or not overlaps(tensor):
        return tensor.clone()
    return memory_of(tensor).clone().as_strided(tensor.shape, tensor.stride(), 0)
