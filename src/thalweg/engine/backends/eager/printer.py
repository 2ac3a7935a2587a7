"""A lowered stage as Python that updates one parameter after another."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch

from thalweg.engine.backends.lowering import Instruction, Lowered, variables
from thalweg.engine.backends.lowering.operands import fill, load, spread, store, times
from thalweg.engine.backends.lowering.printed import Kinds, instruction_lines, scalar_lines
from thalweg.rule.functions import unit_sum
from thalweg.rule.program import compile_function

Function = Callable[[Iterable[Sequence[Any]], Sequence[float], Sequence[list[Any]]], None]

_SPELLED = {
    "load": "{out} = load({0}, compute)",
    "store": "store({out}, {0})",
    "copy": "{out}.copy_({0})",
    "clone": "{out} = {0}.clone()",
    "stored": "{out} = {0}.to(as_stored, copy=True).to(compute)",
    "full_like": "{out} = torch.full_like({0}, {1}, dtype=compute)",
    "sum": "sums[{out}].append(torch.sum({0}, dtype=accumulate))",
    # No square of each number is kept.
    "squares": "sums[{out}].append(norm({0}, dtype=accumulate).square())",
    "count": "sums[{out}].append(times({0}, {first}, accumulate))",
    "unit_sum": "sums[{out}].append(unit_sum({0}, accumulate, inner))",
    "unit_squares": "sums[{out}].append(unit_sum({0} * {0}, accumulate, inner))",
    "unit_count": "sums[{out}].append(unit_sum(spread({0}, {first}), accumulate, inner))",
}
# Functions without a method that works in place: another one that has it.
_IN_PLACE = {"maximum": "clamp_min", "minimum": "clamp_max"}


@cache
def compiled(lowered: Lowered, kinds: Kinds) -> Function:
    """``run(tensors, k, sums)``, which updates parameters.

    It takes for each parameter its place and its variables, the scalars, and lists for the sums.
    """

    names = {
        "torch": torch,
        "norm": torch.linalg.vector_norm,
        "load": load,
        "store": store,
        "fill": fill,
        "times": times,
        "spread": spread,
        "unit_sum": unit_sum,
        **kinds._asdict(),
    }
    return compile_function(source(lowered), "run", names)


def source(lowered: Lowered) -> str:
    """The function's text."""
    own = variables(lowered)
    loop = [f"    {line}" for line in instruction_lines(lowered, lambda i: _spelled(i, own[0]))]
    body = [*scalar_lines(lowered), f"for _, {', '.join(own)} in tensors:", *loop]
    return "\n".join(["def run(tensors, k, sums):", *(f"    {line}" for line in body), ""])


def _spelled(instruction: Instruction, first: str) -> str:
    op, out, args = instruction.op, instruction.out, instruction.args
    if op == "fill":
        return f"{out}.fill_({args[0]})" if out.startswith("x_") else f"fill({out}, {args[0]})"
    if op in _SPELLED:
        return _SPELLED[op].format(*args, out=out, first=first)
    if instruction.keyword:
        args = (*args[:-1], f"{instruction.keyword}={args[-1]}")
    if instruction.in_place:
        op = _IN_PLACE.get(op, op)
        return f"{args[0]}.{op}_({', '.join(args[1:])})"
    return f"{out} = torch.{op}({', '.join(args)})"
