"""What L-BFGS saves: one entry for all parameters, with vectors of all their numbers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.engine.readable import unreadable
from thalweg.optim.lbfgs.moves import real
from thalweg.ranges import integer

SCALARS = ("func_evals", "n_iter", "t", "prev_loss", "H_diag")
VECTORS = ("d", "prev_flat_grad")
LISTS = ("old_dirs", "old_stps", "ro", "al")


def reordered(value: Any, keys: list[Any], order: list[Any], sizes: Mapping[Any, int]) -> Any:
    """A saved state with the parts of its vectors, one for each parameter, in another order."""
    if keys == order:
        return value
    if isinstance(value, dict):
        moved = (*VECTORS, "old_dirs", "old_stps")
        return {
            name: reordered(item, keys, order, sizes) if name in moved else item
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [reordered(item, keys, order, sizes) for item in value]
    if not isinstance(value, Tensor):
        return value  # None, before the first iteration
    parts = dict(zip(keys, torch.split(value, [sizes[key] for key in keys]), strict=True))
    return torch.cat([parts[key] for key in order])


def checked_entry(entry: Mapping[str, Any], params: list[Tensor]) -> dict[str, Any]:
    """A saved state, copied to the parameters' device and dtype; raises where it does not fit."""
    from thalweg.optim.state_dict import is_number  # which only checkpoints need

    if not isinstance(entry, Mapping):
        raise TypeError(f"LBFGS: the saved state must be a dict, got {type(entry).__name__}")
    if not entry:
        return {}
    for key in entry:
        if key not in (*SCALARS, *VECTORS, *LISTS):
            raise ValueError(f"LBFGS: {key!r} is no state of LBFGS. Is it another optimizer's?")
    began = entry.get("prev_flat_grad") is not None
    for key in ("func_evals", "n_iter", *(("d", "t", "prev_loss") if began else ())):
        if entry.get(key) is None:
            raise ValueError(f"LBFGS: the saved state lacks {key!r}; save it with state_dict()")
    for key in ("func_evals", "n_iter"):
        integer("LBFGS", key, entry[key])
    for key in ("t", "prev_loss"):  # which may be infinite or NaN by now
        if entry.get(key) is not None and not is_number(entry[key]):
            raise ValueError(f"LBFGS: {key} must be one number, got {entry[key]!r:.200}")
    for key in LISTS:
        if not (entry.get(key) is None or isinstance(entry[key], list)):
            raise ValueError(f"LBFGS: {key} must be a list, got {type(entry[key]).__name__}")
    pairs = [entry.get(key) or [] for key in ("old_dirs", "old_stps")]
    if len(pairs[0]) != len(pairs[1]):
        raise ValueError(
            f"LBFGS: old_dirs and old_stps must be equally long, got {len(pairs[0])} and "
            f"{len(pairs[1])}"
        )
    n = sum(real(p).numel() for p in params)
    vectors = [(key, entry[key]) for key in VECTORS if entry.get(key) is not None]
    vectors += [("old_dirs", y) for y in pairs[0]] + [("old_stps", s) for s in pairs[1]]
    for key, vector in vectors:
        if not isinstance(vector, Tensor) or vector.shape != (n,) or not vector.is_floating_point():
            is_tensor = isinstance(vector, Tensor)
            got = f"{tuple(vector.shape)} of {vector.dtype}" if is_tensor else type(vector).__name__
            raise ValueError(
                f"LBFGS: {key} must hold the parameters' {n} numbers, shape ({n},), got {got}"
            )
        if problem := unreadable(vector):
            raise ValueError(f"LBFGS: {key} must hold numbers, got a tensor that {problem}")
    like = real(params[0].detach())

    def cast_to_params(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().to_dense().to(like, copy=True)
        return [cast_to_params(item) for item in value] if isinstance(value, list) else value

    return {key: cast_to_params(value) for key, value in entry.items()}
