"""``torch.compile`` leaves the engine out."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def not_traced(function: Function) -> Function:
    """Mark a function to be run as it is, with all it calls, where torch.compile meets it.

    A compiled training step that contains ``optimizer.step()`` breaks its graph there and calls the
    kernel: there is nothing in it that a compiler could fuse further. ``torch.compiler.disable``
    does the same, but imports the compiler (two seconds) to do it, in every program that imports an
    optimizer.
    """
    try:
        from torch._C._dynamo import eval_frame

        skip = eval_frame._FrameAction.SKIP
        eval_frame.set_code_exec_strategy(
            function.__code__, eval_frame._FrameExecStrategy(skip, skip)
        )
    except (ImportError, AttributeError):
        disabled: Function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return disabled
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    function._torchdynamo_disable_msg = "an optimizer's step is a kernel"  # type: ignore[attr-defined]
    return function
