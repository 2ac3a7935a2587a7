"""A lowered stage as Python that updates lists of parameters, by ``torch._foreach_*``."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch

from thalweg.engine.backends.lowering import Instruction, Lowered, variables
from thalweg.engine.backends.lowering.operands import spread, times
from thalweg.engine.backends.lowering.printed import Kinds, instruction_lines, scalar_lines
from thalweg.rule.functions import unit_sum
from thalweg.rule.program import compile_function

Tensors = list[torch.Tensor]
Function = Callable[..., None]

# What torch has no function on lists for.
ONE_BY_ONE = (
    *("lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or", "logical_not"),
    *("where", "masked_fill"),
)
# What has a variant that takes one tensor for the whole list.
WITH_ONE_TENSOR = ("mul", "div")

_SPELLED = {
    "load": "{out} = load({0})",
    "store": "torch._foreach_copy_({out}, {0})",
    "copy": "torch._foreach_copy_({out}, {0})",
    "fill": "[a.fill_({0}) for a in {out}]",
    "clone": "{out} = [a.clone() for a in {0}]",
    "stored": "{out} = [a.to(as_stored, copy=True).to(compute) for a in {0}]",
    "full_like": "{out} = [torch.full_like(a, {1}, dtype=compute) for a in {0}]",
    "sum": "sums[{out}].extend(torch.sum(a, dtype=accumulate) for a in {0})",
    "squares": "sums[{out}].extend(squares({0}))",
    "count": "sums[{out}].extend(times(n, a, accumulate) for n, a in each({0}, {first}))",
    "unit_sum": "sums[{out}].extend(unit_sum(a, accumulate, inner) for a in {0})",
    "unit_squares": "sums[{out}].extend(unit_sum(a * a, accumulate, inner) for a in {0})",
    "unit_count": (
        "sums[{out}].extend(unit_sum(spread(n, a), accumulate, inner)"
        " for n, a in each({0}, {first}))"
    ),
}


@cache
def compiled(lowered: Lowered, kinds: Kinds) -> Function:
    """``run(*lists, k, sums)``, which updates parameters.

    It takes a list for each variable, the scalars, and lists to which the sums are added. Of a
    constant made from sums it also takes one tensor, which is that of all parameters.
    """

    def load(stored: Tensors) -> Tensors:
        values = [torch.empty_like(x, dtype=kinds.compute) for x in stored]
        torch._foreach_copy_(values, stored)
        return values

    def squares(values: Tensors) -> Tensors:
        # As norms, so that no square of each number is kept.
        norms = list(torch._foreach_norm(values, 2, kinds.accumulate))
        torch._foreach_mul_(norms, norms)
        return norms

    def each(number: Any, tensors: Tensors) -> Iterable[tuple[Any, torch.Tensor]]:
        numbers = number if isinstance(number, list) else [number] * len(tensors)
        return zip(numbers, tensors, strict=True)

    names = {
        "torch": torch,
        "load": load,
        "squares": squares,
        "times": times,
        "unit_sum": unit_sum,
        "spread": spread,
        "each": each,
        **kinds._asdict(),
    }
    return compile_function(source(lowered), "run", names)


def source(lowered: Lowered) -> str:
    """The function's text."""
    own = variables(lowered)
    lists = [
        # In the place of one tensor for all, a list of it.
        f"each_{r} = {r} if isinstance({r}, list) else [{r}] * len({own[0]})"
        for r in own
        if r.startswith("r")
    ]
    body = [
        *lists,
        *scalar_lines(lowered),
        *instruction_lines(lowered, lambda i: _spelled(i, own[0])),
        "return",
    ]
    head = f"def run({', '.join(own)}, k, sums):"
    return "\n".join([head, *(f"    {line}" for line in body), ""])


def _spelled(instruction: Instruction, first: str) -> str:
    op, out = instruction.op, instruction.out
    one = op in WITH_ONE_TENSOR
    args = [
        f"each_{a}" if a.startswith("r") and not (one and k) else a
        for k, a in enumerate(instruction.args)
    ]
    if op in _SPELLED:
        return _SPELLED[op].format(*args, out=out, first=first)
    if op in ONE_BY_ONE:
        return _spelled_one_by_one(instruction, args)
    if instruction.keyword:
        args[-1] = f"{instruction.keyword}={args[-1]}"
    if instruction.in_place:
        return f"torch._foreach_{op}_({', '.join(args)})"
    return f"{out} = torch._foreach_{op}({', '.join(args)})"


def _spelled_one_by_one(instruction: Instruction, args: Sequence[str]) -> str:
    lists = [a for a in args if not a.startswith("k")]
    names = dict(zip(lists, "abcd", strict=False))
    items = ", ".join(names.get(a, a) for a in args)
    over = f"{', '.join(names.values())} in zip({', '.join(names)})"
    if instruction.in_place:
        rest = ", ".join(names.get(a, a) for a in args[1:])
        # In brackets, so that no variable of a loop keeps a tensor.
        return f"[{names[args[0]]}.{instruction.op}_({rest}) for {over}]"
    if len(names) == 1:
        over = f"{names[lists[0]]} in {lists[0]}"
    return f"{instruction.out} = [torch.{instruction.op}({items}) for {over}]"
