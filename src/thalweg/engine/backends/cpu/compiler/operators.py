"""The operators, casts and functions of numbers, each on values of the kinds it is for."""

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from thalweg.engine.backends.cpu.compiler.kinds import (
    Intrinsic,
    Kind,
    Value,
    boolean,
    float32,
    float64,
    int64,
)

# What an intrinsic takes as a literal is a size; a thread's stack holds a few arrays of that many.
LARGEST_SIZE = 2**14


class CompileError(TypeError):
    """The source is none that the compiler takes."""


_FLOAT_OPERATORS: Mapping[type, str] = {
    **{ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"},
}
_INTEGER_OPERATORS: Mapping[type, str] = {
    **{ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul"},
    **{ast.BitAnd: "and_", ast.BitOr: "or_", ast.BitXor: "xor"},
}
_CONDITION_OPERATORS = {op: _INTEGER_OPERATORS[op] for op in (ast.BitAnd, ast.BitOr, ast.BitXor)}
_COMPARISONS: Mapping[type, str] = {
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="},
}
# By what the source calls: an intrinsic of LLVM's for a float of any kind.
_LLVM_FUNCTIONS: Mapping[Any, str] = {
    abs: "llvm.fabs",
    math.exp: "llvm.exp",
    math.log: "llvm.log",
    math.pow: "llvm.pow",
    math.sqrt: "llvm.sqrt",
    np.floor: "llvm.floor",
}
_OF_TWO = {math.pow}
# The mathematical library's, which has an f at the end of those for float32.
_LIBRARY_FUNCTIONS: Mapping[Any, str] = {
    **{math.atan: "atan", math.expm1: "expm1", math.log1p: "log1p", math.tanh: "tanh"},
}


def constant(number: Any) -> Value | None:
    """A number of Python's or NumPy's; None if it is none that a kernel can hold."""
    if isinstance(number, bool | np.bool_):
        return Value(boolean, ir.Constant(boolean.type, int(number)))
    if isinstance(number, int | np.integer):
        if not -(2**63) <= int(number) < 2**63:
            raise CompileError(
                f"got the integer {number}, which is not from -2^63 to 2^63 - 1; for 64 bits of "
                "which the first is set, write it less 2^64"
            )
        return Value(int64, ir.Constant(int64.type, int(number)), int(number))
    if isinstance(number, np.float32):
        return Value(float32, ir.Constant(float32.type, float(number)))
    if isinstance(number, float):  # np.float64 is one, too
        return Value(float64, ir.Constant(float64.type, float(number)))
    return None


def widened(builder: Any, value: Value) -> Value:
    """An integer in 64 bits."""
    return value if value.kind == int64 else cast(builder, int64, value)


def binary(builder: Any, operator: type, a: Value, b: Value) -> Value:
    """``a operator b``."""
    if a.kind == b.kind and a.kind.is_float and operator in _FLOAT_OPERATORS:
        return Value(a.kind, getattr(builder, _FLOAT_OPERATORS[operator])(a.code, b.code))
    if a.kind == b.kind == boolean and operator in _CONDITION_OPERATORS:
        return Value(boolean, getattr(builder, _CONDITION_OPERATORS[operator])(a.code, b.code))
    if a.kind.is_integer and b.kind.is_integer:
        a, b = widened(builder, a), widened(builder, b)
        if operator in _INTEGER_OPERATORS:
            return Value(int64, getattr(builder, _INTEGER_OPERATORS[operator])(a.code, b.code))
        if operator in (ast.LShift, ast.RShift):
            return Value(int64, _shifted(builder, operator is ast.LShift, a, b))
        if operator in (ast.FloorDiv, ast.Mod):
            return Value(int64, _divided(builder, operator is ast.Mod, a, b))
    raise CompileError(
        f"got the operator {operator.__name__} between {a.kind.name} and {b.kind.name}; both must "
        "be integers or floats of one kind: cast one of them"
    )


def _shifted(builder: Any, left: bool, a: Value, b: Value) -> Any:
    """a moved by b bits; all of them for b beyond 63, where LLVM's own operators say nothing."""
    if b.literal is not None and b.literal < 0:
        raise CompileError(f"got a shift by {b.literal}, which must not be negative")
    last = ir.Constant(int64.type, 63)
    if b.literal is not None and b.literal <= 63:
        return (builder.shl if left else builder.ashr)(a.code, b.code)
    within = builder.icmp_unsigned("<=", b.code, last)
    by = builder.select(within, b.code, last)
    if left:
        zero = ir.Constant(int64.type, 0)
        return builder.select(within, builder.shl(a.code, by), zero)
    return builder.ashr(a.code, by)


def _divided(builder: Any, rest: bool, a: Value, b: Value) -> Any:
    """The quotient rounded down, or what is left; 0 for b = 0."""
    if b.literal == 0:
        raise CompileError("got a division by 0")
    if b.literal is not None and b.literal > 0 and b.literal & (b.literal - 1) == 0:
        if rest:
            return builder.and_(a.code, ir.Constant(int64.type, b.literal - 1))
        return builder.ashr(a.code, ir.Constant(int64.type, b.literal.bit_length() - 1))
    zero, one = (ir.Constant(int64.type, n) for n in (0, 1))
    # By 0, and -2^63 by -1, the processor would end the process.
    trivial = builder.icmp_unsigned("<", builder.add(b.code, one), ir.Constant(int64.type, 2))
    divisor = builder.select(trivial, one, b.code)
    left = builder.srem(a.code, divisor)
    # LLVM rounds towards zero: one less where something is left and the signs differ.
    differ = builder.icmp_signed("<", builder.xor(left, divisor), zero)
    down = builder.and_(builder.icmp_signed("!=", left, zero), differ)
    if rest:
        return builder.add(left, builder.select(down, divisor, zero))
    quotient = builder.sub(builder.sdiv(a.code, divisor), builder.zext(down, int64.type))
    return builder.select(trivial, builder.mul(a.code, b.code), quotient)


def compared(builder: Any, operator: type, a: Value, b: Value) -> Value:
    """``a operator b`` for ``<``, ``==`` and their like; with NaN as in C."""
    sign = _COMPARISONS.get(operator)
    if sign is not None and a.kind == b.kind and a.kind.is_float:
        compare = builder.fcmp_unordered if sign == "!=" else builder.fcmp_ordered
        return Value(boolean, compare(sign, a.code, b.code))
    if sign is not None and a.kind.is_integer and b.kind.is_integer:
        a, b = widened(builder, a), widened(builder, b)
        return Value(boolean, builder.icmp_signed(sign, a.code, b.code))
    raise CompileError(
        f"got {a.kind.name} {operator.__name__} {b.kind.name}; both must be integers or floats of "
        "one kind: cast one of them"
    )


def negative(builder: Any, x: Value) -> Value:
    if x.literal is not None:
        found = constant(-x.literal)
        assert found is not None
        return found
    if x.kind.is_float:
        return Value(x.kind, builder.fneg(x.code))
    if x.kind.is_integer:
        return Value(int64, builder.neg(widened(builder, x).code))
    raise CompileError(f"got -x for x of kind {x.kind.name}, which must be a number")


def truth(builder: Any, x: Value) -> Value:
    """A condition as it is, and whether an integer is other than 0."""
    if x.kind == boolean:
        return x
    if x.kind.is_integer:
        return Value(boolean, builder.icmp_signed("!=", x.code, ir.Constant(x.kind.type, 0)))
    raise CompileError(f"got {x.kind.name} as a condition; compare it with something")


def cast(builder: Any, kind: Kind, x: Value) -> Value:
    """A number as another kind: integers keep their lower bits, floats round to the nearest.

    A float that becomes an integer loses its fraction; beyond the integer's range it becomes the
    last one there, and NaN becomes 0.
    """
    if x.kind == kind:
        return x
    code = _cast(builder, kind, x)
    if code is None:
        raise CompileError(f"got {kind.name}(x) for x of kind {x.kind.name}; both must be numbers")
    return Value(kind, code)


def _cast(builder: Any, kind: Kind, x: Value) -> Any:
    whole = x.kind.is_integer or x.kind == boolean
    if kind.is_float and x.kind.is_float:
        change = builder.fpext if kind == float64 else builder.fptrunc
    elif kind.is_float and whole:
        change = builder.sitofp if x.kind.signed else builder.uitofp
    elif kind.is_integer and x.kind.is_float:
        name = "llvm.fptosi.sat" if kind.signed else "llvm.fptoui.sat"
        types = [kind.type, x.kind.type]
        to_integer = ir.FunctionType(kind.type, types[1:])
        return builder.call(builder.module.declare_intrinsic(name, types, to_integer), [x.code])
    elif kind.is_integer and whole:
        if kind.type.width < x.kind.type.width:
            change = builder.trunc
        elif kind.type.width == x.kind.type.width:
            return x.code
        else:
            change = builder.sext if x.kind.signed else builder.zext
    else:
        return None
    return change(x.code, kind.type)


def function(builder: Any, called: Any, arguments: Sequence[Value]) -> Value | None:
    """A function of ``math`` or NumPy, or ``abs``; None if it is none that kernels know."""
    try:
        inside, library = _LLVM_FUNCTIONS.get(called), _LIBRARY_FUNCTIONS.get(called)
    except TypeError:  # it cannot be hashed
        return None
    if inside is None and library is None:
        return None
    kinds, count = {x.kind for x in arguments}, 2 if called in _OF_TWO else 1
    if len(arguments) != count or len(kinds) != 1 or not next(iter(kinds)).is_float:
        raise CompileError(
            f"got {called.__name__} of ({', '.join(x.kind.name for x in arguments)}); it takes "
            f"{count} of one kind of float"
        )
    (kind,) = kinds
    kind_of_function = ir.FunctionType(kind.type, [kind.type] * len(arguments))
    if inside is not None:
        name = f"{inside}.{kind.type.intrinsic_name}"
    else:
        name = f"{library}f" if kind == float32 else str(library)
    declared = builder.module.globals.get(name) or ir.Function(
        builder.module, kind_of_function, name
    )
    return Value(kind, builder.call(declared, [x.code for x in arguments]))


def operation(builder: Any, called: Intrinsic, arguments: Sequence[Value]) -> Any:
    """Call an intrinsic: a value, a tuple of values, or None."""
    if len(arguments) != len(called.takes):
        raise CompileError(
            f"{called.name} takes {len(called.takes)} arguments, and got {len(arguments)}"
        )
    codes = [_fitting(builder, called, k, arguments) for k in range(len(arguments))]
    found = called.build(builder, *codes)
    if called.gives is None:
        return None
    if isinstance(called.gives, tuple):
        return tuple(Value(k, code) for k, code in zip(called.gives, found, strict=True))
    either = arguments[called.takes.index(float)].kind if called.gives is float else called.gives
    return Value(either, found)


def _fitting(builder: Any, called: Intrinsic, k: int, arguments: Sequence[Value]) -> Any:
    """The code of argument k, a literal itself."""
    x, wanted = arguments[k], called.takes[k]
    if wanted is int and x.literal is not None:
        if not 1 <= x.literal <= LARGEST_SIZE:
            raise CompileError(
                f"{called.name} takes a literal from 1 to {LARGEST_SIZE}, and got {x.literal}"
            )
        return x.literal
    if wanted is float and x.kind.is_float:
        wanted = arguments[called.takes.index(float)].kind
    if wanted == int64 and x.kind.is_integer:
        return widened(builder, x).code
    if x.kind != wanted:
        kinds = ", ".join(getattr(k, "name", f"literal {k}") for k in called.takes)
        got = ", ".join(a.kind.name for a in arguments)
        raise CompileError(f"{called.name} takes ({kinds}), and got ({got})")
    return x.code
