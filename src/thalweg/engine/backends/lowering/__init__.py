"""Lowering: a stage as a short list of operations on whole tensors.

For back ends that let torch compute.
``select`` chooses the operations, ``place`` orders them and says what is overwritten in place. What
it makes does not depend on how the back end spells an operation.
"""

from functools import cache

from thalweg.engine.backends.lowering.place import Instruction, Lowered, place, variables
from thalweg.engine.backends.lowering.select import decided, select
from thalweg.rule import Program
from thalweg.rule.symbols import Symbol

__all__ = ["Instruction", "Lowered", "conditions", "lower", "variables"]


@cache
def conditions(program: Program, stage: int) -> tuple[int, ...]:
    """The places in ``program.constants`` of the conditions that decide how a stage is lowered."""
    place_of = {c: k for k, c in enumerate(program.constants)}
    return tuple(place_of[c] for c in decided(program.stages[stage]))


@cache
def lower(
    program: Program,
    stage: int,
    truths: tuple[bool, ...] = (),
    converted: frozenset[str] = frozenset(),
) -> Lowered:
    """Lower a stage.

    Args:
        program: whose stage it is.
        stage: its number.
        truths: what the ``conditions`` are at this step.
        converted: operands that are not stored as the numbers one computes with: they are loaded
            into a temporary, and stored from one.
    """
    names: dict[Symbol, str] = {c: f"c[{k}]" for k, c in enumerate(program.constants)}
    names |= {c: repr(c.value) for c in program.stages[stage].constants if c.op == "literal"}
    known = dict(zip(decided(program.stages[stage]), truths, strict=True))
    selection = select(program.stages[stage], names, known)
    return place(selection, converted)
