"""Lists of tensors in portions, so that what a portion needs beside them stays small."""

from collections.abc import Iterator, Sequence

import torch

from thalweg.engine.layout import is_dense, memory_order


def portions(places: Sequence[int], numbers: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """Places in their order, those together that have at most so many numbers.

    A place that has more stands alone.
    """
    if sum(numbers[place] for place in places) <= most:
        yield places
        return
    portion: list[int] = []
    size = 0
    for place in places:
        if portion and size + numbers[place] > most:
            yield portion
            portion, size = [], 0
        portion.append(place)
        size += numbers[place]
    yield portion


def cut(tensors: Sequence[torch.Tensor], most: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Views of tensors of the same shape, which cover them and have at most so many elements.

    Where all lie dense and in the same order in memory, the views are flat stretches of it.
    """
    first = tensors[0]
    if first.numel() <= most:
        yield tuple(tensors)
        return
    order = memory_order(first)
    if all(is_dense(t) and memory_order(t) == order for t in tensors):
        flat = [t.as_strided((t.numel(),), (1,), t.storage_offset()) for t in tensors]
        yield from zip(*(torch.split(t, most) for t in flat), strict=True)
        return
    longest = max(range(first.dim()), key=lambda d: first.shape[d])
    size = max(1, most // (first.numel() // first.shape[longest]))
    for parts in zip(*(torch.split(t, size, longest) for t in tensors), strict=True):
        yield from cut(parts, most)
