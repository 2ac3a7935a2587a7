"""What a stage is lowered to: values, each the result of one operation, and their scalars."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scalar:
    """A product of constants, known as a Python float before the stage runs.

    Attributes:
        sign: 1 or -1.
        over, under: Python expressions that are multiplied, and divided by.
    """

    sign: int = 1
    over: tuple[str, ...] = ()
    under: tuple[str, ...] = ()

    def __neg__(self) -> "Scalar":
        return Scalar(-self.sign, self.over, self.under)

    def __mul__(self, other: "Scalar") -> "Scalar":
        sign = self.sign * other.sign
        return Scalar(sign, self.over + other.over, self.under + other.under)

    def inverse(self) -> "Scalar":
        return Scalar(self.sign, self.under, self.over)

    @property
    def is_one(self) -> bool:
        return self == ONE

    @property
    def is_sign(self) -> bool:
        """Whether it is 1 or -1."""
        return not (self.over or self.under)

    @property
    def text(self) -> str:
        """Python for its value, where ``divide`` answers 1 / 0 with infinity."""
        if self.is_sign:
            return f"{float(self.sign)}"
        product = " * ".join(self.over) or "1.0"
        if self.under:
            product = f"divide({product}, {' * '.join(self.under)})"
        return product if self.sign > 0 else f"-({product})"


ONE = Scalar()


@dataclass(frozen=True, eq=False)
class Value:
    """The result of one operation of torch.

    Attributes:
        op: the function's name in torch (``add``, ``lerp``, ``addcmul``, ...), or ``load`` (an
            operand as it was before the stage) or ``reduced`` (a constant made from sums: one
            number for each tensor).
        args: what it is computed from. The result may take the place of the first.
        keyword: the name of the last argument, where torch wants one.
        detail: of a load the operand, of a reduced constant its number.
        wide: it has an element for each of the parameter's; otherwise one for each tensor.
        target: the operand that it, or something computed from it in place, is stored to.
        line: of the rule.
    """

    op: str
    args: "tuple[Value | Scalar, ...]" = ()
    keyword: str = ""
    detail: str = ""
    wide: bool = True
    target: str | None = None
    line: str = ""

    @property
    def inputs(self) -> "list[Value]":
        return [a for a in self.args if isinstance(a, Value)]


@dataclass(frozen=True)
class Selection:
    """The values that a stage needs.

    Attributes:
        stores: operands, and what they take.
        sums: what is summed over each tensor: "sum" and "squares" of a value, or "count" times a
            scalar; "unit_sum" and so on, over its units.
    """

    stores: Sequence[tuple[str, Value | Scalar]]
    sums: Sequence[tuple[str, Value | Scalar]]


class Maker:
    """Makes the values of one node."""

    def __init__(self, target: str | None, line: str) -> None:
        self.target, self.line = target, line

    def __call__(self, op: str, *args: Value | Scalar, keyword: str = "") -> Value:
        wide = any(a.wide for a in args if isinstance(a, Value))
        return Value(op, args, keyword, wide=wide, target=self.target, line=self.line)
