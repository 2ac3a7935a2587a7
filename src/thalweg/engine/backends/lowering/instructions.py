"""A lowered stage: what a back end spells in its own way."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One line of a lowered stage.

    Attributes:
        op: a function of torch, or ``load``, ``store``, ``copy``, ``fill``, ``clone``, ``sum``,
            ``squares`` or ``count``.
        out: the variable that takes the result; of ``store``, ``copy`` and ``fill`` the operand,
            of a sum its number.
        args: variables and scalars.
        keyword: the name of the last argument, where torch wants one.
        in_place: the result takes the place of ``args[0]``, which is ``out``.
        frees: variables not used any more.
        line: of the rule.
    """

    op: str
    out: str
    args: tuple[str, ...] = ()
    keyword: str = ""
    in_place: bool = False
    frees: tuple[str, ...] = ()
    line: str = ""


@dataclass(frozen=True)
class Lowered:
    """A stage as operations on tensors.

    Variables: ``at_p`` is the operand p as it is stored, ``x_p`` its numbers (the same, unless the
    operand is converted), ``r0`` the first constant made from sums, ``t0`` a temporary, ``k0`` the
    first scalar.

    Attributes:
        scalars: Python for each scalar, of ``c``, the values of the program's constants.
        temporaries: how many tensors of the parameter's shape live at once, converted operands
            included.
    """

    instructions: tuple[Instruction, ...]
    scalars: tuple[str, ...]
    temporaries: int


def variables(lowered: Lowered) -> list[str]:
    """The variables that a parameter brings: the parameter itself first."""
    used = {name for i in lowered.instructions for name in (i.out, *i.args)}
    own = sorted(name for name in used if name.startswith(("at_", "r")))
    loaded = {i.out for i in lowered.instructions if i.op == "load"}
    own += sorted(name for name in used if name.startswith("x_") and name not in loaded)
    first = next((name for name in ("x_p", "at_p") if name in own), "x_p")
    return [first, *(name for name in own if name != first)]
