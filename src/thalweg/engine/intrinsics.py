"""The few machine operations that generated CPU kernels need and Numba does not offer."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_HALF, _FLOAT = ir.HalfType(), ir.FloatType()
_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def _pointer_to(element: Any) -> Any:
    """An intrinsic that turns an address (int64) into a pointer, indexed as ``pointer[i]``."""

    @intrinsic
    def pointer(typing_context: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), codegen  # type: ignore[no-untyped-call]

    return pointer


int64_pointer = _pointer_to(types.int64)
int32_pointer = _pointer_to(types.int32)
float64_pointer = _pointer_to(types.float64)
float32_pointer = _pointer_to(types.float32)
uint16_pointer = _pointer_to(types.uint16)


@intrinsic
def call(typing_context: Any, function: Any, x: Any) -> Any:
    """Call a C function by its address: one pointer in, a pointer or small integer out."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def call_with(typing_context: Any, function: Any, x: Any, out: Any) -> Any:
    """Call a C function by its address: pointers to a thing and to its answer in, a status out."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_I32, [_I64, _I64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1], args[2]])

    return types.int32(types.int64, types.int64, types.int64), codegen


@intrinsic
def take(typing_context: Any, address: Any) -> Any:
    """Return the int64 at an address and add one to it, atomically: the next ticket."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        counter = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", counter, ir.Constant(_I64, 1), "monotonic")

    return types.int64(types.int64), codegen


@intrinsic
def add_in_any_order(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b in float64, which a sum may regroup into vector lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1], flags=("reassoc",))

    return types.float64(types.float64, types.float64), codegen


@intrinsic
def float32_of_bf16(typing_context: Any, bits: Any) -> Any:
    """The float32 whose upper half is the bfloat16."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = builder.shl(builder.zext(args[0], _I32), ir.Constant(_I32, 16))
        return builder.bitcast(wide, _FLOAT)

    return types.float32(types.uint16), codegen


@intrinsic
def bf16_of_float32(typing_context: Any, x: Any) -> Any:
    """The nearest bfloat16, ties to even; a NaN becomes 0x7FC0, as in torch."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _I32)
        odd = builder.and_(builder.lshr(bits, ir.Constant(_I32, 16)), ir.Constant(_I32, 1))
        rounded = builder.add(bits, builder.add(odd, ir.Constant(_I32, 0x7FFF)))
        upper = builder.trunc(builder.lshr(rounded, ir.Constant(_I32, 16)), _I16)
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.select(is_nan, ir.Constant(_I16, 0x7FC0), upper)

    return types.uint16(types.float32), codegen


@intrinsic
def float32_of_fp16(typing_context: Any, bits: Any) -> Any:
    """The float32 equal to an IEEE half."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], _HALF), _FLOAT)

    return types.float32(types.uint16), codegen


@intrinsic
def fp16_of_float32(typing_context: Any, x: Any) -> Any:
    """The nearest IEEE half, ties to even; inf beyond its range."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], _HALF), _I16)

    return types.uint16(types.float32), codegen
