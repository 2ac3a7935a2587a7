"""States that are compared to the last bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def bits(value: Any) -> Any:
    """A comparable copy of tensors and containers that is exact to the bit (NaN equals itself)."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            value = value.coalesce()
            return ("sparse", bits(value.indices()), bits(value.values()), tuple(value.shape))
        plain = value.detach().resolve_conj()
        plain = torch.view_as_real(plain) if plain.is_complex() else plain
        if plain.is_meta:
            return (str(value.dtype), tuple(value.shape), "meta")
        data = plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return (str(value.dtype), tuple(value.shape), value.stride(), data)
    if isinstance(value, dict):
        return [(key, bits(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    return (type(value).__name__, value)


def snapshot(optimizer: torch.optim.Optimizer) -> Any:
    """Everything a step or a load may change: parameters, gradients, state, group options."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [
        bits(parameters),
        bits([p.grad for p in parameters]),
        [bits(optimizer.state[p]) if p in optimizer.state else None for p in parameters],
        len(optimizer.state),
        [
            [(key, bits(v)) for key, v in g.items() if key != "params"]
            for g in optimizer.param_groups
        ],
        [[id(p) for p in group["params"]] for group in optimizer.param_groups],
    ]
