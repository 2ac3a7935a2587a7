"""Evaluating a formula on tensors: value and gradients in one pass, with autograd around it.

With a reduction, the forward pass computes the derivatives too, while the elements are at hand, and
backward hands them on. Without one, forward and backward are a pass each. What has no kernel (other
devices, dtypes and tensor types, ``torch.compile``, a second derivative) runs as tensor operations.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Protocol

import torch

from thalweg.engine import observed
from thalweg.engine.backends.eager.apply import EagerHyperparameters
from thalweg.engine.formats import FORMATS
from thalweg.engine.layout import PLAIN_TENSORS, is_dense, memory_order
from thalweg.engine.passes.elementwise import ElementPass, is_wrapped
from thalweg.losses.reduction import in_float32_under_autocast
from thalweg.rule.formula import BACKWARD, EACH, FACTOR, SUM, Formula
from thalweg.rule.operations import eager_dtype

Tensors = Sequence[torch.Tensor]
Options = Mapping[str, Any]
Needed = tuple[bool, ...]
_requires_grad = attrgetter("requires_grad")
HALVES = (torch.float16, torch.bfloat16)


class Passes(Protocol):
    """What autograd's functions need of a loss, be it of elements, of rows or in chunks."""

    @property
    def kind(self) -> str: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def scale(self) -> float: ...

    def __call__(
        self, values: Tensors, *other: torch.Tensor
    ) -> tuple[list[float], list[torch.Tensor | None]]:
        """The sums, and a gradient for each operand that needs one.

        ``other``: where values go, or what comes from above.
        """

    def other(self, kind: str, needed: Needed, **more: Any) -> "Passes":
        """Those of another kind over the same operands, with some options set otherwise."""

    def arranged(self, values: list[torch.Tensor]) -> "tuple[Passes, list[torch.Tensor]]":
        """The operands as the passes take them, and the passes for them."""

    def result(self, values: Tensors) -> torch.Tensor:
        """Room for the values."""

    def above(self, upstream: torch.Tensor, values: Tensors) -> torch.Tensor:
        """What comes from above, laid out as the values are."""

    def eagerly(self, values: Tensors) -> torch.Tensor:
        """The values by tensor operations."""

    def reduced(self, each: torch.Tensor, values: Tensors) -> torch.Tensor:
        """Their sum, as the passes have it, by tensor operations."""


class _Ready:
    """A pass with its constants for some options: everything of a call but its tensors.

    Attributes:
        formula: the formula.
        kind: what the pass does.
        names: of the operands given.
        dtype: of every tensor.
        options: what the formula reads from ``h``, with FACTOR where the pass sums up.
        scale: FACTOR.
    """

    def __init__(
        self,
        formula: Formula,
        kind: str,
        names: tuple[str, ...],
        needed: Needed,
        dtype: torch.dtype,
        options: Options,
    ) -> None:
        self.formula, self.kind, self.names, self.dtype = formula, kind, names, dtype
        self.options = options
        self.scale: float = options.get(FACTOR, 1.0)
        self._needed = [k for k, need in enumerate(needed) if need]
        wanted = [names[k] for k in self._needed]
        program = formula.program(kind, options, names, wanted)
        constants = program.scalars(options)
        assert constants is not None, "it was found for these options"
        # A pass has the operands given, their gradients, and what comes from above or goes there.
        places = {name: k for k, name in enumerate((*names, *(f"_d_{name}" for name in wanted)))}
        self._places = [places.get(name, len(places)) for name in program.operands]
        self._pass = ElementPass(program, [dtype] * len(self._places), constants)

    def __call__(
        self, values: Tensors, *other: torch.Tensor
    ) -> tuple[list[float], list[torch.Tensor | None]]:
        """The sums, and a gradient for each operand that needs one: as they stand, without gaps."""
        gradients: list[torch.Tensor | None] = [None] * len(values)
        tensors = [*values]
        for k in self._needed:
            gradients[k] = gradient = torch.empty_like(values[k])
            tensors.append(gradient)
        tensors += other
        addresses = [tensors[k].data_ptr() for k in self._places]
        return self._pass(values[0].numel(), addresses), gradients

    def other(self, kind: str, needed: Needed, **more: Any) -> "_Ready":
        """A pass of another kind over the same operands, with some options set otherwise."""
        options = {**self.options, **more}
        keys = (*options,)
        return _ready(self.formula, kind, self.names, needed, self.dtype, keys, *options.values())

    def arranged(self, values: list[torch.Tensor]) -> "tuple[_Ready, list[torch.Tensor]]":
        """The operands as the pass takes them, and the pass for them."""
        return self, _in_one_order(values)

    def result(self, values: Tensors) -> torch.Tensor:
        """Room for the values."""
        return torch.empty_like(values[0])

    def above(self, upstream: torch.Tensor, values: Tensors) -> torch.Tensor:
        """What comes from above, laid out as the values are."""
        return _laid_out_like(upstream, values[0])

    def eagerly(self, values: Tensors) -> torch.Tensor:
        """The values by tensor operations."""
        return _eagerly(self.formula, self.names, values, self.options)

    def reduced(self, each: torch.Tensor, values: Tensors) -> torch.Tensor:
        """The sum that the pass stands for, by tensor operations."""
        return reduced(each, 1.0) * self.scale


# Many options (a scale for each batch size, say) make many of these; each holds little. Typed: True
# and 1.0 are equal, and one is a switch, the other a number.
@lru_cache(maxsize=1024, typed=True)
def _ready(
    formula: Formula,
    kind: str,
    names: tuple[str, ...],
    needed: Needed,
    dtype: torch.dtype,
    keys: tuple[str, ...],
    *options: Any,
) -> _Ready:
    return _Ready(formula, kind, names, needed, dtype, dict(zip(keys, options, strict=True)))


def evaluate(
    formula: Formula,
    operands: Mapping[str, torch.Tensor],
    options: Options,
    reduction: str,
    divisor: float | None = None,
    composed: bool = False,
) -> torch.Tensor:
    """The values of a formula, or their sum over a divisor.

    Args:
        formula: the formula.
        operands: its operands by name; they broadcast, and integers become floating-point.
        options: what the formula reads from ``h``.
        reduction: "none", "sum" or "mean".
        divisor: of the sum; by default the number of elements for "mean", and 1 for "sum".
        composed: see :func:`in_float32_under_autocast`.
    """
    if observed.observer is not None:
        observed.observer(observed.FormulaCall(formula, operands, options, reduction))
    names = tuple(operands)
    values = in_float32_under_autocast([*operands.values()], composed)
    if not have_kernel(values):
        values = _alike(values)
        if not have_kernel(values):
            each = _eagerly(formula, names, values, options)
            if reduction == "none":
                return each
            return reduced(each, _divisor(each.numel(), reduction, divisor))
    if not all(map(torch.Tensor.is_contiguous, values)):
        values = _in_one_order(values)
    first = values[0]
    needed = tuple(map(_requires_grad, values)) if torch.is_grad_enabled() else ()
    if reduction == "none":
        ready = _ready(formula, EACH, names, (), first.dtype, (*options,), *options.values())
        return evaluated(ready, values, needed)
    count = _divisor(first.numel(), reduction, divisor)
    scale = 1.0 / count if count else math.nan
    keys = (*options, FACTOR)
    ready = _ready(formula, SUM, names, needed, first.dtype, keys, *options.values(), scale)
    return evaluated(ready, values, needed)


def evaluated(passes: Passes, values: Tensors, needed: Needed) -> torch.Tensor:
    """The values or their sum, with autograd around it where an operand needs a gradient."""
    if passes.kind == EACH:
        if True in needed:
            return each_value(passes, *values)
        result = passes.result(values)
        passes(values, result)
        return result
    if True in needed:
        return sum_of_values(passes, *values)
    (total,), _ = passes(values)
    return number_like(values[0], total * passes.scale, passes.dtype)


def reduced(each: torch.Tensor, divisor: float | torch.Tensor) -> torch.Tensor:
    """The sum of values over a divisor; of 16 bits in float32, which holds the sum of many."""
    if each.dtype in HALVES:
        return (each.float().sum() / divisor).to(each.dtype)
    return each.sum() / divisor


def number_like(
    tensor: torch.Tensor, value: float, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """A number as a tensor of this dtype or another's: infinite where it is beyond its range."""
    try:
        return tensor.new_full((), value, dtype=dtype)
    except RuntimeError:
        return tensor.new_full((), math.copysign(math.inf, value), dtype=dtype)


def _divisor(count: int, reduction: str, divisor: float | None) -> float:
    if divisor is not None:
        return divisor
    return count if reduction == "mean" else 1


def have_kernel(values: Tensors) -> bool:
    """Whether there is one for these tensors, which are of one shape and one dtype if so."""
    shape = values[0].shape
    for v in values:
        if v.shape != shape:
            return False
    return are_plain(values)


def are_plain(values: Tensors) -> bool:
    """Whether these are tensors of one dtype that kernels can read, of whatever shapes."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if torch.autograd.forward_ad._current_level >= 0:  # tangents go through tensor operations
        return False
    dtype = values[0].dtype
    if dtype not in FORMATS:
        return False
    for v in values:
        if type(v) not in PLAIN_TENSORS or not v.is_cpu or v.layout is not torch.strided:
            return False
        if v.is_neg() or is_wrapped(v) or v.dtype is not dtype:
            return False
    return True


def _alike(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """The operands with one shape and one dtype."""
    first = values[0]
    if any(v.shape != first.shape for v in values):
        shape = torch.broadcast_shapes(*(v.shape for v in values))  # type: ignore[no-untyped-call]
        values = [v.expand(shape) for v in values]
    return of_one_dtype(values)


def of_one_dtype(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """The operands in the dtype that the floating-point ones among them have in common."""
    first = values[0]
    if all(v.dtype is first.dtype for v in values) and first.is_floating_point():
        return values
    dtype = torch.get_default_dtype()
    floating = [v.dtype for v in values if v.is_floating_point() or v.is_complex()]
    if floating:
        dtype = floating[0]
        for other in floating[1:]:
            dtype = torch.promote_types(dtype, other)
    return [v.to(dtype) for v in values]


def _in_one_order(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """The operands with their elements in the same order in memory, without gaps."""
    order = memory_order(values[0])
    if is_dense(values[0]) and all(memory_order(v) == order for v in values):
        return values
    return [v.contiguous() for v in values]


def _eagerly(
    formula: Formula, names: Sequence[str], values: Tensors, options: Options
) -> torch.Tensor:
    """The value of each element, computed by tensor operations: in float32 where kernels do."""
    dtype = values[0].dtype
    wide = [v.float() if v.dtype in HALVES else v for v in values]
    operands = dict(zip(names, wide, strict=True))
    result = by_tensor_operations(formula, operands, options, wide[0].dtype)
    return result.to(dtype) if dtype in HALVES else result


def by_tensor_operations(
    formula: Any, operands: Mapping[str, torch.Tensor], options: Options, dtype: torch.dtype
) -> torch.Tensor:
    """What a formula's function returns for tensors of this dtype."""
    if torch.compiler.is_compiling():  # it traces plain numbers only
        result: torch.Tensor = formula.function(**operands, h=_Plain(options))
        return result
    token = eager_dtype.set(dtype)
    try:
        h = EagerHyperparameters(formula.name, options, 1.0)
        result = formula.function(**operands, h=h)
    finally:
        eager_dtype.reset(token)
    return result


class _Plain:
    """``h`` where numbers are Python's own."""

    def __init__(self, options: Options) -> None:
        for name, value in options.items():
            setattr(self, name, value)


class _Reduced(torch.autograd.Function):
    """The sum of a formula's values, times a factor."""

    @staticmethod
    def forward(ctx: Any, ready: Passes, *values: torch.Tensor) -> torch.Tensor:
        ctx.ready = ready
        ctx.save_for_backward(*values)
        (found,), ctx.gradients = ready(values)
        return number_like(values[0], found * ready.scale, ready.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, *_differentiably(ctx, upstream)
        gradients, ctx.gradients = ctx.gradients, None
        factor = upstream.item()
        if factor != 1.0 and ctx.ready.dtype is torch.float16:
            # A gradient scaler's factor is there for what float16 cannot hold: it comes first.
            return None, *_by_another_pass(ctx, SUM, **{FACTOR: ctx.ready.scale * factor})
        if gradients is None:  # handed out before, and perhaps changed since
            gradients = _by_another_pass(ctx, SUM)
        if factor != 1.0:
            gradients = [None if g is None else g.mul_(factor) for g in gradients]
        return None, *gradients


class _Each(torch.autograd.Function):
    """A formula's value for each element."""

    @staticmethod
    def forward(ctx: Any, ready: Passes, *values: torch.Tensor) -> torch.Tensor:
        ctx.ready = ready
        ctx.save_for_backward(*values)
        result = ready.result(values)
        ready(values, result)
        return result

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, *_differentiably(ctx, upstream)
        return None, *_by_another_pass(ctx, BACKWARD, upstream)


def _by_another_pass(
    ctx: Any, kind: str, *upstream: torch.Tensor, **more: Any
) -> list[torch.Tensor | None]:
    """The gradients, computed from what was saved, with some options set otherwise."""
    other = ctx.ready.other(kind, ctx.needs_input_grad[1:], **more)
    # A hook may have brought them back laid out otherwise.
    ready, values = other.arranged([*ctx.saved_tensors])
    return list(ready(values, *[ready.above(u, values) for u in upstream])[1])


def recorded(function: Any) -> Callable[..., torch.Tensor]:
    """What ``Function.apply`` calls when it has found no transforms; those were asked for before.

    Its search takes longer than the call.
    """
    apply: Callable[..., torch.Tensor] = super(torch.autograd.Function, function).apply
    return apply


sum_of_values, each_value = recorded(_Reduced), recorded(_Each)


def _laid_out_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if memory_order(tensor) == memory_order(like) and not tensor.is_neg():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


def _differentiably(ctx: Any, upstream: torch.Tensor) -> list[Any]:
    """The gradients as tensor operations that autograd can differentiate again."""
    ready, needed = ctx.ready, ctx.needs_input_grad[1:]
    # Views: each operand by itself, though one may be made from another, or be the same.
    values = [v.view_as(v) for v in ctx.saved_tensors]
    each = ready.eagerly(values)
    total = ready.reduced(each, values) if ready.kind == SUM else each
    if not total.requires_grad:  # no operand that needs a gradient has a part in it
        return [None] * len(values)
    wanted = [v for v, need in zip(values, needed, strict=True) if need]
    found = iter(torch.autograd.grad(total, wanted, upstream, create_graph=True, allow_unused=True))
    return [next(found) if need else None for need in needed]
