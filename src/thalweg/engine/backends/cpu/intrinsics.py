"""The few machine operations that generated CPU kernels need and Numba does not offer."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

# Numba's own type would have callers pass the typing context, which its compiler does.
intrinsic: Callable[[Any], Any] = extending.intrinsic

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
int16_pointer = _pointer_to(types.int16)
uint16_pointer = _pointer_to(types.uint16)
int8_pointer = _pointer_to(types.int8)
uint8_pointer = _pointer_to(types.uint8)


@intrinsic
def word(typing_context: Any, address: Any, k: Any) -> Any:
    """The int64 number k from an address on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.load(builder.gep(pointer, [args[1]]))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def set_word(typing_context: Any, address: Any, k: Any, value: Any) -> Any:
    """Let the int64 number k from an address on be a value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        builder.store(args[2], builder.gep(pointer, [args[1]]))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), codegen


@intrinsic
def half_word(typing_context: Any, address: Any) -> Any:
    """The int32 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _I32.as_pointer()))

    return types.int32(types.int64), codegen


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
def call_in_pool(typing_context: Any, pool: Any, function: Any, x: Any, threads: Any) -> Any:
    """Call ``GOMP_parallel`` by its address: a function with one pointer on so many threads."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I64, _I64, _I32, _I32])
        count = builder.trunc(args[3], _I32)
        start = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(start, [args[1], args[2], count, ir.Constant(_I32, 0)])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def take(typing_context: Any, address: Any) -> Any:
    """Return the int64 at an address and add one to it, atomically: the next ticket."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        counter = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", counter, ir.Constant(_I64, 1), "monotonic")

    return types.int64(types.int64), codegen


CACHE_LINE = 64  # bytes; where lines are longer, one is asked for twice


@extending.intrinsic(prefer_literal=True)
def prefetch(typing_context: Any, address: Any, count: Any) -> Any:
    """Ask for so many bytes (a literal) from an address on, without waiting.

    Any address will do: no access is made where there is no memory.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        # For reading, into all levels of the data cache.
        how = [ir.Constant(_I32, flag) for flag in (0, 3, 1)]
        for offset in range(0, count.literal_value, CACHE_LINE):
            place = builder.add(args[0], ir.Constant(_I64, offset))
            builder.call(function, [builder.inttoptr(place, pointer), *how])
        return context.get_dummy_value()

    return types.none(types.int64, count), codegen


@intrinsic
def add_in_any_order(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b in float64, which a sum may regroup into vector lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1], flags=("reassoc",))

    return types.float64(types.float64, types.float64), codegen


@intrinsic
def bits_of_float32(typing_context: Any, x: Any) -> Any:
    """The bits of a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _I32)

    return types.uint32(types.float32), codegen


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


def _scratch_of(element: Any) -> Any:
    @extending.intrinsic(prefer_literal=True)
    def scratch(typing_context: Any, count: Any) -> Any:
        """Room for so many numbers (a literal) on the thread's own stack."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_value_type(element)
            size = ir.Constant(_I64, count.literal_value)
            return cgutils.alloca_once(builder, kind, size=size)  # type: ignore[no-untyped-call]

        return types.CPointer(element)(count), codegen  # type: ignore[no-untyped-call]

    return scratch


float32_scratch = _scratch_of(types.float32)
float64_scratch = _scratch_of(types.float64)


_FRACTION = ir.Constant(_I32, 0x7FFFFF)
_SQRT_HALF = ir.Constant(_I32, 0x3F3504F3)  # the bits of sqrt(1/2)


@intrinsic
def power_of_two(typing_context: Any, n: Any) -> Any:
    """2^n for an integer n from -126 to 127, given as a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # The last bits of 2^23 + 127 + n are the biased exponent; the shift drops the others.
        biased = builder.fadd(args[0], ir.Constant(_FLOAT, 2.0**23 + 127))
        return _power(builder, builder.bitcast(biased, _I32))

    return types.float32(types.float32), codegen


@intrinsic
def power_in_halves(typing_context: Any, rounded: Any) -> Any:
    """Two powers of two whose product is 2^n, from the float32 1.5 * 2^23 + 254 + n.

    Each is normal for n from -252 to 254, where 2^n itself need not be.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _I32)
        first = builder.lshr(bits, ir.Constant(_I32, 1))  # its last bits are 127 + floor(n / 2)
        halves = [_power(builder, half) for half in (first, builder.sub(bits, first))]
        return context.make_tuple(builder, signature.return_type, halves)

    return types.UniTuple(types.float32, 2)(types.float32), codegen  # type: ignore[no-untyped-call]


def _power(builder: Any, biased: Any) -> Any:
    """The power of two whose biased exponent is in the last 8 bits; the others are dropped."""
    return builder.bitcast(builder.shl(biased, ir.Constant(_I32, 23)), _FLOAT)


@intrinsic
def exponent(typing_context: Any, x: Any) -> Any:
    """n such that x / 2^n lies between sqrt(1/2) and sqrt(2), for a positive normal x."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        above = builder.sub(builder.bitcast(args[0], _I32), _SQRT_HALF)
        return builder.sitofp(builder.ashr(above, ir.Constant(_I32, 23)), _FLOAT)

    return types.float32(types.float32), codegen


@intrinsic
def mantissa(typing_context: Any, x: Any) -> Any:
    """x / 2^exponent(x), for a positive normal x."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        above = builder.sub(builder.bitcast(args[0], _I32), _SQRT_HALF)
        bits = builder.add(builder.and_(above, _FRACTION), _SQRT_HALF)
        return builder.bitcast(bits, _FLOAT)

    return types.float32(types.float32), codegen


@intrinsic
def larger_of(typing_context: Any, a: Any, b: Any) -> Any:
    """The larger of two floats of one type, NaN if either is: as LLVM has it, for vectors too."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        of_two = ir.FunctionType(kind, [kind, kind])
        function = builder.module.declare_intrinsic("llvm.maximum", [kind], of_two)
        return builder.call(function, args)

    return a(a, b), codegen
