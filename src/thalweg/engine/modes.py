"""Modes of torch around a function, put back whatever ends it.

torch's own context managers are Python code. An exception that a signal handler raises between
setting a mode and entering the block (Ctrl-C does, a few times in a hundred) leaves the mode set
for good: training goes on without gradients. Python handles signals after calls and jumps. So what
puts back is the first call of a ``finally``, in C, and what is set is set inside of its ``try``.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from thalweg.engine.torch_internals.modes import inference, set_gradients, without_dispatch_modes

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def with_gradients(
    enabled: bool,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Let a function run with gradients enabled, or disabled.

    >>> @with_gradients(False)
    ... def enabled():
    ...     return torch.is_grad_enabled()
    >>> enabled(), torch.is_grad_enabled()
    (False, True)
    """

    def wrapped(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            before = torch.is_grad_enabled()
            try:
                set_gradients(enabled)
                return function(*args, **kwargs)
            finally:
                set_gradients(before)

        return call

    return wrapped


def outside_inference(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let what a function makes be ordinary tensors, also under ``inference_mode``."""

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        guard = inference(False)
        try:
            guard.__enter__()
            return function(*args, **kwargs)
        finally:
            guard.__exit__(None, None, None)

    return call


def with_real_tensors(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let what a function makes have memory, also under ``FakeTensorMode`` and its like.

    An engine counts steps in memory of its own, whatever stands for the parameters.
    """

    @functools.wraps(function)
    @outside_inference
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        guard = without_dispatch_modes()
        try:
            return function(*args, **kwargs)
        finally:
            del guard

    return call
