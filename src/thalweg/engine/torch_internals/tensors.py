"""What a tensor is: with memory of its own, or one that stands for something else."""

import sys
from collections.abc import Callable
from functools import reduce
from operator import or_

import torch

from thalweg.engine.torch_internals.parts import part

_Test = Callable[[torch.Tensor], bool]


def _no(tensor: torch.Tensor) -> bool:
    return False


# Whether it is a tensor of a ``torch.func`` transform, also after an escape from it.
is_of_transform: _Test = part("_C._functorch.is_functorch_wrapped_tensor") or _no
_is_functional: _Test = part("_is_functional_tensor") or _no
_is_zero: _Test = part("_is_zerotensor") or _no


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether it stands for another tensor: one of a transform, or a functional one."""
    return is_of_transform(tensor) or _is_functional(tensor)


def missing_memory(tensor: torch.Tensor) -> str | None:
    """What a tensor is that has a plain tensor's class and no memory; None: it has memory.

    Asked before anything that such a tensor raises for.
    """
    if is_of_transform(tensor):
        return "a tensor of a torch.func transform"
    if _is_functional(tensor):
        return "a functional tensor"
    return "a zero without memory" if _is_zero(tensor) else None


def is_fake(tensor: torch.Tensor) -> bool:
    """Whether a tensor only says what it would be: torch's own stand-in, which has no memory."""
    # Nothing is fake before this module was imported, which takes a second.
    fakes = sys.modules.get("torch._subclasses.fake_tensor")
    return fakes is not None and isinstance(tensor, fakes.FakeTensor)


# ---- dispatch keys ------------------------------------------------------------------------------


def key_sets(*sets: tuple[str, ...]) -> tuple[int, ...] | None:
    """Sets of dispatch keys as numbers, from the names of their keys; None where one is unknown."""
    set_of, key = part("_C.DispatchKeySet"), part("_C.DispatchKey")
    try:
        # Without a tensor: the first one made may be another mode's.
        return tuple(reduce(or_, (set_of(getattr(key, n)).raw_repr() for n in one)) for one in sets)
    except (AttributeError, TypeError):
        return None


def _is_in_memory() -> _Test | None:
    keys_of = part("_C._dispatch_keys")
    # Tensors in CPU memory, outside of inference mode and made within.
    sets = key_sets(
        ("CPU", "ADInplaceOrView", "AutogradCPU", "AutocastCPU"), ("CPU", "AutocastCPU")
    )
    if keys_of is None or sets is None:
        return None
    return lambda tensor: keys_of(tensor).raw_repr() in sets


# Whether a tensor of torch's own class is dense and in CPU memory, at one look.
in_memory_by_keys: _Test | None = _is_in_memory()
