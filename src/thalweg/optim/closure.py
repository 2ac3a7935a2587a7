"""How an optimizer is stepped: with a closure that evaluates the gradient, or after it is there."""

import inspect

import torch


def takes_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``optimizer.step`` has an argument for a closure, or any number of arguments.

    Those of :mod:`torch.optim` and :mod:`thalweg.optim` have; others may be written without.

    Args:
        optimizer: any object with a ``step``.

    >>> from thalweg import optim
    >>> takes_closure(optim.SGD([torch.nn.Parameter(torch.zeros(2))]))
    True
    """
    parameters = inspect.signature(optimizer.step).parameters.values()
    return any(
        p.name == "closure" or p.kind is p.VAR_POSITIONAL or p.default is p.empty
        for p in parameters
        if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)
    )
