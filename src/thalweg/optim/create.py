"""Optimizers by name, as configurations give them."""

from typing import Any

from thalweg.optim.optimizer import Optimizer, Params
from thalweg.transforms import cautious

# What may stand in front of a name, with a hyphen, and the transform that it stands for.
PREFIXES = {"cautious": cautious}


def create(name: str, params: Params, **options: Any) -> Optimizer:
    """The optimizer of that name on these parameters.

    Args:
        name: of a class of ``thalweg.optim`` in any case; in front of it may stand ``"cautious-"``,
            for :func:`thalweg.transforms.cautious` around its rule.
        params: as the class takes them.
        options: likewise.

    Raises:
        ValueError: there is no such optimizer; the message suggests the nearest name. And what the
            class raises.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> type(create("adamw", [p], lr=0.1)).__name__
    'AdamW'
    >>> create("cautious-lion", [p]).added_transforms
    (cautious(cautious=True),)
    """
    from thalweg.optim.catalogue import find  # which imports all optimizers

    prefix, hyphen, rest = name.partition("-")
    if hyphen and prefix.lower() in PREFIXES:
        own = [PREFIXES[prefix.lower()](), *options.pop("transforms", ())]
        return find(rest)(params, transforms=own, **options)
    return find(name)(params, **options)
