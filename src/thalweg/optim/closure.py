"""How an optimizer is stepped: with a closure that evaluates the gradient, or after it is there."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

Step = Callable[[Callable[[], torch.Tensor]], None]


def stepper(optimizer: torch.optim.Optimizer) -> Step:
    """A function that makes one step of the optimizer, given what evaluates the gradient.

    It passes the closure on where :func:`takes_closure`, else it calls it first.

    Args:
        optimizer: any object with a ``step``.

    >>> from thalweg import optim
    >>> p = torch.nn.Parameter(torch.ones(1))
    >>> def closure():
    ...     p.grad = p.detach().clone()
    ...     return p.detach().square().sum()
    >>> stepper(optim.SGD([p], lr=0.5))(closure)
    >>> p.detach()
    tensor([0.5000])
    """
    own: Any = optimizer  # whose closure may return a tensor

    def with_closure(closure: Callable[[], torch.Tensor]) -> None:
        own.step(closure)

    def after_closure(closure: Callable[[], torch.Tensor]) -> None:
        closure()
        own.step()

    return with_closure if takes_closure(optimizer) else after_closure


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
