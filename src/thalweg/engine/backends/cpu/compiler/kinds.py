"""What a value of a kernel can be: integers, floats, conditions, and pointers to numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir


@dataclass(frozen=True)
class Kind:
    """A type of values. In a kernel, calling it casts: ``float32(x)``.

    Attributes:
        name: in messages and sources.
        type: LLVM's.
        signed: whether an integer has a sign.
        element: what a pointer leads to.
    """

    name: str
    type: Any
    signed: bool = True
    element: "Kind | None" = None

    @property
    def is_float(self) -> bool:
        return isinstance(self.type, ir.FloatType | ir.DoubleType)

    @property
    def is_integer(self) -> bool:
        return isinstance(self.type, ir.IntType) and self.type.width > 1


boolean = Kind("bool", ir.IntType(1), signed=False)
int8, int16, int32, int64 = (Kind(f"int{n}", ir.IntType(n)) for n in (8, 16, 32, 64))
uint8, uint16, uint32 = (Kind(f"uint{n}", ir.IntType(n), signed=False) for n in (8, 16, 32))
float32, float64 = Kind("float32", ir.FloatType()), Kind("float64", ir.DoubleType())


def pointer_to(element: Kind) -> Kind:
    """The kind of pointers to such numbers."""
    return Kind(f"{element.name}_pointer", element.type.as_pointer(), element=element)


@dataclass(frozen=True)
class Value:
    """A value while it is computed.

    Attributes:
        kind: what it is.
        code: LLVM's value.
        literal: the number itself, where the source has an integer.
    """

    kind: Kind
    code: Any
    literal: int | None = None


@dataclass(frozen=True)
class Intrinsic:
    """An operation of the machine, called like a function.

    Attributes:
        name: in messages.
        takes: the kinds of the arguments; in place of one, ``int`` stands for an integer in the
            source (a size), and ``float`` for one kind of float, the same wherever it stands.
        gives: the kind of the result, None where there is none, ``float`` as above; several for a
            tuple.
        build: from LLVM's builder and the arguments' code (a literal itself) to the result's.
    """

    name: str
    takes: tuple[Any, ...]
    gives: Any
    build: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"{self.name} is an operation of compiled kernels: Python cannot call it")


def intrinsic(gives: Any, *takes: Any) -> Callable[[Callable[..., Any]], Intrinsic]:
    """Make a function of a builder and arguments an intrinsic; see :class:`Intrinsic`."""
    return lambda build: Intrinsic(build.__name__, takes, gives, build)
