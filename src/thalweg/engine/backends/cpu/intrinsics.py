"""The operations of the machine that kernels need and Python has no word for."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from thalweg.engine.backends.cpu.compiler.kinds import (
    Intrinsic,
    Kind,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    intrinsic,
    pointer_to,
    uint8,
    uint16,
    uint32,
)

_HALF, _FLOAT = ir.HalfType(), float32.type
_BYTE_POINTER = ir.IntType(8).as_pointer()
_I16, _I32, _I64 = int16.type, int32.type, int64.type


# ---- memory ---------------------------------------------------------------------------------


def _pointer(element: Kind) -> Intrinsic:
    """An intrinsic that turns an address into a pointer, indexed as ``pointer[i]``."""
    kind = pointer_to(element)
    return Intrinsic(
        kind.name, (int64,), kind, lambda builder, address: builder.inttoptr(address, kind.type)
    )


int64_pointer = _pointer(int64)
int32_pointer = _pointer(int32)
float64_pointer = _pointer(float64)
float32_pointer = _pointer(float32)
int16_pointer = _pointer(int16)
uint16_pointer = _pointer(uint16)
int8_pointer = _pointer(int8)
uint8_pointer = _pointer(uint8)


def _scratch(element: Kind) -> Intrinsic:
    """An intrinsic that makes room for so many numbers (a literal) on the thread's own stack."""

    def build(builder: Any, count: int) -> Any:
        # Where the function begins: in a loop, room would be made again and again.
        with builder.goto_entry_block():
            return builder.alloca(element.type, size=ir.Constant(_I64, count))

    return Intrinsic(f"{element.name}_scratch", (int,), pointer_to(element), build)


float32_scratch = _scratch(float32)
float64_scratch = _scratch(float64)


def _word(builder: Any, address: Any, k: Any) -> Any:
    return builder.gep(builder.inttoptr(address, _I64.as_pointer()), [k])


@intrinsic(int64, int64, int64)
def word(builder: Any, address: Any, k: Any) -> Any:
    """The int64 number k from an address on."""
    return builder.load(_word(builder, address, k))


@intrinsic(None, int64, int64, int64)
def set_word(builder: Any, address: Any, k: Any, value: Any) -> None:
    """Let the int64 number k from an address on be a value."""
    builder.store(value, _word(builder, address, k))


@intrinsic(int32, int64)
def half_word(builder: Any, address: Any) -> Any:
    """The int32 at an address."""
    return builder.load(builder.inttoptr(address, _I32.as_pointer()))


@intrinsic(int64, int64)
def take(builder: Any, address: Any) -> Any:
    """Return the int64 at an address and add one to it, atomically: the next ticket."""
    counter = builder.inttoptr(address, _I64.as_pointer())
    return builder.atomic_rmw("add", counter, ir.Constant(_I64, 1), "monotonic")


CACHE_LINE = 64  # bytes; where lines are longer, one is asked for twice


@intrinsic(None, int64, int)
def prefetch(builder: Any, address: Any, count: int) -> None:
    """Ask for so many bytes (a literal) from an address on, without waiting.

    Any address will do: no access is made where there is no memory.
    """
    kind = ir.FunctionType(ir.VoidType(), [_BYTE_POINTER, _I32, _I32, _I32])
    function = builder.module.declare_intrinsic("llvm.prefetch", [_BYTE_POINTER], kind)
    # For reading, into all levels of the data cache.
    how = [ir.Constant(_I32, flag) for flag in (0, 3, 1)]
    for offset in range(0, count, CACHE_LINE):
        place = builder.add(address, ir.Constant(_I64, offset))
        builder.call(function, [builder.inttoptr(place, _BYTE_POINTER), *how])


# ---- calls ----------------------------------------------------------------------------------


def _calling(gives: Any, *takes: Any) -> Callable[..., Any]:
    """How to call a C function by its address."""
    kind = ir.FunctionType(gives, takes)
    return lambda builder, function, *args: builder.call(
        builder.inttoptr(function, kind.as_pointer()), args
    )


call = Intrinsic("call", (int64, int64), int64, _calling(_I64, _I64))
"""Call a C function by its address: one pointer in, a pointer or small integer out."""

call_with = Intrinsic("call_with", (int64, int64, int64), int32, _calling(_I32, _I64, _I64))
"""Call a C function by its address: pointers to a thing and to its answer in, a status out."""


@intrinsic(None, int64, int64, int64, int64)
def call_in_pool(builder: Any, pool: Any, function: Any, x: Any, threads: Any) -> None:
    """Call ``GOMP_parallel`` by its address: a function with one pointer on so many threads."""
    started = _calling(ir.VoidType(), _I64, _I64, _I32, _I32)
    started(builder, pool, function, x, builder.trunc(threads, _I32), ir.Constant(_I32, 0))


# ---- numbers --------------------------------------------------------------------------------


@intrinsic(float, float, float)
def add_in_any_order(builder: Any, a: Any, b: Any) -> Any:
    """a + b, which a sum may regroup into vector lanes."""
    return builder.fadd(a, b, flags=("reassoc",))


@intrinsic(float, float, float)
def larger_of(builder: Any, a: Any, b: Any) -> Any:
    """The larger of two floats of one kind, NaN if either is: as LLVM has it, for vectors too."""
    of_two = ir.FunctionType(a.type, [a.type, a.type])
    function = builder.module.declare_intrinsic("llvm.maximum", [a.type], of_two)
    return builder.call(function, [a, b])


@intrinsic(float, float, float64)
def of_kind(builder: Any, like: Any, x: Any) -> Any:
    """x as a float of another's kind, for functions that serve several."""
    return x if like.type == x.type else builder.fptrunc(x, like.type)


@intrinsic(uint32, float32)
def bits_of_float32(builder: Any, x: Any) -> Any:
    """The bits of a float32."""
    return builder.bitcast(x, _I32)


@intrinsic(float32, uint16)
def float32_of_bf16(builder: Any, bits: Any) -> Any:
    """The float32 whose upper half is the bfloat16."""
    wide = builder.shl(builder.zext(bits, _I32), ir.Constant(_I32, 16))
    return builder.bitcast(wide, _FLOAT)


@intrinsic(uint16, float32)
def bf16_of_float32(builder: Any, x: Any) -> Any:
    """The nearest bfloat16, ties to even; a NaN becomes 0x7FC0, as in torch."""
    bits = builder.bitcast(x, _I32)
    odd = builder.and_(builder.lshr(bits, ir.Constant(_I32, 16)), ir.Constant(_I32, 1))
    rounded = builder.add(bits, builder.add(odd, ir.Constant(_I32, 0x7FFF)))
    upper = builder.trunc(builder.lshr(rounded, ir.Constant(_I32, 16)), _I16)
    is_nan = builder.fcmp_unordered("uno", x, x)
    return builder.select(is_nan, ir.Constant(_I16, 0x7FC0), upper)


@intrinsic(float32, uint16)
def float32_of_fp16(builder: Any, bits: Any) -> Any:
    """The float32 equal to an IEEE half."""
    return builder.fpext(builder.bitcast(bits, _HALF), _FLOAT)


@intrinsic(uint16, float32)
def fp16_of_float32(builder: Any, x: Any) -> Any:
    """The nearest IEEE half, ties to even; inf beyond its range."""
    return builder.bitcast(builder.fptrunc(x, _HALF), _I16)


_FRACTION = ir.Constant(_I32, 0x7FFFFF)
_SQRT_HALF = ir.Constant(_I32, 0x3F3504F3)  # the bits of sqrt(1/2)


@intrinsic(float32, float32)
def power_of_two(builder: Any, n: Any) -> Any:
    """2^n for an integer n from -126 to 127, given as a float32."""
    # The last bits of 2^23 + 127 + n are the biased exponent; the shift drops the others.
    biased = builder.fadd(n, ir.Constant(_FLOAT, 2.0**23 + 127))
    return _power(builder, builder.bitcast(biased, _I32))


@intrinsic((float32, float32), float32)
def power_in_halves(builder: Any, rounded: Any) -> Any:
    """Two powers of two whose product is 2^n, from the float32 1.5 * 2^23 + 254 + n.

    Each is normal for n from -252 to 254, where 2^n itself need not be.
    """
    bits = builder.bitcast(rounded, _I32)
    first = builder.lshr(bits, ir.Constant(_I32, 1))  # its last bits are 127 + floor(n / 2)
    return [_power(builder, half) for half in (first, builder.sub(bits, first))]


def _power(builder: Any, biased: Any) -> Any:
    """The power of two whose biased exponent is in the last 8 bits; the others are dropped."""
    return builder.bitcast(builder.shl(biased, ir.Constant(_I32, 23)), _FLOAT)


def _above_sqrt_half(builder: Any, x: Any) -> Any:
    """How far the bits are from those of sqrt(1/2)."""
    return builder.sub(builder.bitcast(x, _I32), _SQRT_HALF)


@intrinsic(float32, float32)
def exponent(builder: Any, x: Any) -> Any:
    """n such that x / 2^n lies between sqrt(1/2) and sqrt(2), for a positive normal x."""
    shift = ir.Constant(_I32, 23)
    return builder.sitofp(builder.ashr(_above_sqrt_half(builder, x), shift), _FLOAT)


@intrinsic(float32, float32)
def mantissa(builder: Any, x: Any) -> Any:
    """x / 2^exponent(x), for a positive normal x."""
    bits = builder.add(builder.and_(_above_sqrt_half(builder, x), _FRACTION), _SQRT_HALF)
    return builder.bitcast(bits, _FLOAT)
