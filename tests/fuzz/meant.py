"""Where programs of optimizers are to end otherwise than on torch, each with its cause."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.fuzz.world import Program

# What torch raises where thalweg goes on, by the words of its message, each with the reason.
INTENDED = {
    "aten::_foreach": "where lists have no operation, another back end has one",
    "If capturable=True": "on the CPU there is nothing to capture",
    "add(sparse, dense)": "the momentum of sparse gradients is dense",
    "does not support sparse grad": "with fused=True, another back end takes sparse gradients",
    "meta": "tensors name their device, whatever the default is",
    "Tensors of the same index must be on the same device": "as above: torch's states are on meta",
    "only available on CPU": "as above",
    "mutable TensorLists with negation": "with fused=True, another back end negates",
    "pop from empty list": "torch fails before it comes to refuse what thalweg refuses",
    "_foreach ops don't support autograd": "differentiable steps run tensor by tensor",
    "in argument 2, but got NoneType": "a momentum that was deleted begins anew",
    "its data is not allocated yet": "with fused=True, another back end takes sparse gradients",
    "lr as a Tensor is not supported": "a rate is a number, whatever holds it",
    "expected dtype": "states may have another dtype than their parameter, after a cast of either",
    "expected scalar type": "as above",
}

# And the other way round.
REFUSED = {
    "on meta, the parameter on": "some of torch's operations take tensors of several devices there",
    "the parameter on meta": "as above",
    "is on meta, and kernels run on cpu": "with fused=True there is to be a kernel",
}


def why_numbers_differ(program: Program) -> str | None:
    """Why torch's numbers are not to be compared with; None if they are."""
    names = {name for name, *_ in program.commands}
    if program.options.get("nesterov") and _in_lists(program):
        return "torch adds the momentum to the gradient itself, which a second step then finds"
    if (program.name == "SparseAdam" or "sparse" in names) and "move_into_a_buffer" in names:
        return "torch adds a sparse tensor to one that does not begin its storage at a wrong place"
    if _is_of_torch(program) and why_lists_differ(program) and _in_lists(program):
        return why_lists_differ(program)
    return None


def why_lists_differ(program: Program) -> str | None:
    """Why operations on lists are not to give what one tensor after the other gives."""
    if any(name == "tie" for name, *_ in program.commands):
        return "each operation changes memory that parameters share before the next begins"
    return None


def _is_of_torch(program: Program) -> bool:
    from tests.fuzz.optimizers import NAMES  # which imports this

    return program.name in NAMES


def _in_lists(program: Program) -> bool:
    """Whether torch may update lists of tensors."""
    set_so = any(name == "set_foreach" for name, *_ in program.commands)
    return bool(program.options.get("foreach")) or set_so


def overflows(program: Program, found: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether torch's numbers are not finite, as it computes in float16, and ours are."""
    narrow = any(name in ("cast", "cast_one", "cast_states") for name, *_ in program.commands)
    return narrow and all(map(math.isfinite, found)) and not all(map(math.isfinite, theirs))
