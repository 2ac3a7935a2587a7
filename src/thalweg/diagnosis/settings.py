"""Weight decay, embeddings, dtypes."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch

from thalweg.diagnosis.finding import Finding, parameters, some
from thalweg.diagnosis.setup import Setup

NARROW = (torch.float16, torch.bfloat16)
# Optimizers whose rule is for the matrices of layers.
MATRIX_RULES = ("Muon",)


def decayed(setup: Setup) -> Iterator[Finding]:
    """Weight decay of what is usually not decayed."""
    names: dict[float, list[str]] = defaultdict(list)
    for found in setup.parameters:
        decay = float(setup.group_of.get(id(found.parameter), {}).get("weight_decay") or 0)
        if decay and (found.parameter.ndim < 2 or found.is_embedding):
            names[decay].append(found.name)
    for decay, those in names.items():
        kinds = "biases, norms or embeddings" if len(those) > 1 else "bias, norm or embedding"
        yield Finding(
            "decayed",
            f"weight decay of {decay:g} acts on {len(those)} {kinds} {some(those)}; "
            "thalweg.optim.groups(model, weight_decay=...) leaves these out",
            wrong=False,
        )


def embeddings(setup: Setup) -> Iterator[Finding]:
    """Embeddings that are given to a rule for matrices."""
    if type(setup.optimizer).__name__ not in MATRIX_RULES:
        return
    names = [
        found.name
        for found in setup.parameters
        if found.is_embedding and id(found.parameter) in setup.group_of
    ]
    if names:
        yield Finding(
            "embeddings",
            f"{type(setup.optimizer).__name__} is for the matrices of layers, and holds embeddings "
            f"{some(names)}; give these, and the output layer, to AdamW",
        )


def narrow_states(setup: Setup) -> Iterator[Finding]:
    """States of 16 bits, because the parameters have as many."""
    narrow = [found for found in setup.parameters if _is_narrow(setup, found.parameter)]
    if narrow:
        dtypes = sorted({str(found.parameter.dtype) for found in narrow})
        yield Finding(
            "narrow_states",
            f"{parameters(len(narrow))} and their states have 16 bits, {', '.join(dtypes)} "
            f"{some([found.name for found in narrow])}: means that move slowly "
            "stand still; keep float32 parameters and compute under torch.autocast",
            wrong=False,
        )


def _is_narrow(setup: Setup, p: torch.Tensor) -> bool:
    if p.dtype not in NARROW or id(p) not in setup.group_of:
        return False
    state: dict[str, Any] = dict(setup.optimizer.state.get(p, {}))
    dtypes = [x.dtype for x in state.values() if isinstance(x, torch.Tensor) and x.shape == p.shape]
    if dtypes:
        return any(dtype in NARROW for dtype in dtypes)
    rule = getattr(setup.optimizer, "composed_rule", None)
    # Of others than ours it is not known before the first step.
    return rule is None or bool(rule.tensor_states)


CHECKS = (decayed, embeddings, narrow_states)
