"""Evaluating a formula on tensors: value and gradients in one pass, with autograd around it.

With a reduction, the forward pass computes the derivatives too, while the elements are at hand, and
backward hands them on. Without one, forward and backward are a pass each. What has no kernel (other
devices, dtypes and tensor types, ``torch.compile``, a second derivative) runs as tensor operations.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from thalweg.engine.eager import EagerHyperparameters
from thalweg.engine.elementwise import Pass
from thalweg.engine.formats import FORMATS
from thalweg.engine.layout import is_dense, memory_order
from thalweg.engine.units import PLAIN_TENSORS
from thalweg.rule.formula import BACKWARD, EACH, FACTOR, SUM, Formula

Tensors = Sequence[torch.Tensor]
Options = Mapping[str, Any]
Items = tuple[tuple[str, Any], ...]
HALVES = (torch.float16, torch.bfloat16)


class _Ready:
    """A pass with its constants for some options: everything of a call but its tensors."""

    def __init__(
        self,
        formula: Formula,
        kind: str,
        names: tuple[str, ...],
        wanted: tuple[str, ...],
        dtypes: tuple[torch.dtype, ...],
        options: tuple[tuple[str, Any], ...],
    ) -> None:
        given = dict(options)
        program = formula.program(kind, given, names, wanted)
        constants = program.scalars(given)
        assert constants is not None, "it was found for these options"
        self._constants = constants
        # Operands of a pass: those given, then those that it writes or that come from above.
        places = {name: k for k, name in enumerate((*names, *(f"_d_{n}" for n in wanted)))}
        self._places = [places.get(name, len(places)) for name in program.operands]
        all_dtypes = (*dtypes, *(dtypes[names.index(n)] for n in wanted), dtypes[0])
        self._pass = Pass(program, [all_dtypes[k] for k in self._places])

    def run(self, *tensors: torch.Tensor) -> list[float]:
        return self._pass.run([tensors[k] for k in self._places], self._constants)


def _ready(
    formula: Formula,
    kind: str,
    names: tuple[str, ...],
    wanted: tuple[str, ...],
    values: Tensors,
    options: Items,
) -> _Ready:
    dtypes = tuple([v.dtype for v in values])
    # True and 1.0 are equal, and one is a switch, the other a number.
    kinds = tuple([type(value) for _, value in options])
    return _found(kinds, formula, kind, names, wanted, dtypes, options)


# Many options (a scale for each batch size, say) make many of these; each holds little.
@lru_cache(maxsize=1024)
def _found(kinds: tuple[type, ...], *rest: Any) -> _Ready:
    return _Ready(*rest)


def evaluate(
    formula: Formula,
    operands: Mapping[str, torch.Tensor],
    options: Options,
    reduction: str,
    divisor: float | None = None,
) -> torch.Tensor:
    """The values of a formula, or their sum over a divisor.

    Args:
        formula: the formula.
        operands: its operands by name; they broadcast, and integers become floating-point.
        options: what the formula reads from ``h``.
        reduction: "none", "sum" or "mean".
        divisor: of the sum; by default the number of elements for "mean", and 1 for "sum".
    """
    names = tuple(operands)
    values = _alike(list(operands.values()))
    if not _has_kernel(values):
        each = _eagerly(formula, names, values, options)
        if reduction == "none":
            return each
        return each.sum() / _divisor(each.numel(), reduction, divisor)
    values = _in_one_order(values)
    given = tuple(options.items())
    if reduction == "none":
        result: torch.Tensor = _Each.apply(formula, given, names, *values)  # type: ignore[no-untyped-call]
        return result
    count = _divisor(values[0].numel(), reduction, divisor)
    scale = 1.0 / count if count else float("nan")
    given = (*given, (FACTOR, scale))
    if not torch.is_grad_enabled():
        found, _ = _summed(formula, given, names, values, [False] * len(values))
        return torch.tensor(found * scale, dtype=values[0].dtype)
    total: torch.Tensor = _Reduced.apply(formula, given, names, *values)  # type: ignore[no-untyped-call]
    return total


def _divisor(count: int, reduction: str, divisor: float | None) -> float:
    if divisor is not None:
        return divisor
    return count if reduction == "mean" else 1


def _alike(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """The operands with one shape, and integers among them in the dtype of the others."""
    first = values[0]
    if any(v.shape != first.shape for v in values):
        shape = torch.broadcast_shapes(*(v.shape for v in values))  # type: ignore[no-untyped-call]
        values = [v.expand(shape) for v in values]
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
    if all(v.is_contiguous() for v in values):
        return values
    order = memory_order(values[0])
    if is_dense(values[0]) and all(memory_order(v) == order for v in values):
        return values
    return [v.contiguous() for v in values]


def _has_kernel(values: Tensors) -> bool:
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    for v in values:
        if type(v) not in PLAIN_TENSORS or v.dtype not in FORMATS or not v.is_cpu:
            return False
        if v.layout is not torch.strided or v.is_neg():
            return False
    return True


def _eagerly(
    formula: Formula, names: Sequence[str], values: Tensors, options: Options
) -> torch.Tensor:
    """The value of each element, computed by tensor operations: in float32 where kernels do."""
    # A compiler traces plain numbers only.
    plain = torch.compiler.is_compiling()
    h: Any = _Plain(options) if plain else EagerHyperparameters(formula.name, options, 1.0)
    dtype = values[0].dtype
    wide = [v.float() if v.dtype in HALVES else v for v in values]
    result: torch.Tensor = formula.function(**dict(zip(names, wide, strict=True)), h=h)
    return result.to(dtype) if dtype in HALVES else result


class _Plain:
    """``h`` where numbers are Python's own."""

    def __init__(self, options: Options) -> None:
        for name, value in options.items():
            setattr(self, name, value)


class _Reduced(torch.autograd.Function):
    """The sum of a formula's values, times a factor."""

    @staticmethod
    def forward(
        ctx: Any, formula: Formula, options: Items, names: tuple[str, ...], *values: torch.Tensor
    ) -> torch.Tensor:
        ctx.formula, ctx.options, ctx.names = formula, options, names
        ctx.save_for_backward(*values)
        total, ctx.gradients = _summed(formula, options, names, values, ctx.needs_input_grad[3:])
        scale = options[-1][1]  # FACTOR's
        return torch.tensor(total * scale, dtype=values[0].dtype)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, None, None, *_differentiably(ctx, upstream, reduced=True)
        gradients = ctx.gradients
        if gradients is None:  # handed out before, and perhaps changed since
            needed = ctx.needs_input_grad[3:]
            _, gradients = _summed(ctx.formula, ctx.options, ctx.names, ctx.saved_tensors, needed)
        ctx.gradients = None
        factor = float(upstream)
        if factor != 1.0 and any(g is not None and g.dtype is torch.float16 for g in gradients):
            # A gradient scaler's factor is there for what float16 cannot hold: it comes first.
            own = (*ctx.options[:-1], (FACTOR, ctx.options[-1][1] * factor))
            needed = ctx.needs_input_grad[3:]
            _, gradients = _summed(ctx.formula, own, ctx.names, ctx.saved_tensors, needed)
        elif factor != 1.0:
            gradients = [None if g is None else g.mul_(factor) for g in gradients]
        return None, None, None, *gradients


def _summed(
    formula: Formula,
    options: Items,
    names: tuple[str, ...],
    values: Tensors,
    needed: Sequence[bool],
) -> tuple[float, list[torch.Tensor | None]]:
    gradients, written, ready = _prepared(SUM, formula, options, names, values, needed)
    (total,) = ready.run(*values, *written)
    return total, gradients


def _prepared(
    kind: str,
    formula: Formula,
    options: Items,
    names: tuple[str, ...],
    values: Tensors,
    needed: Sequence[bool],
) -> tuple[list[torch.Tensor | None], list[torch.Tensor], _Ready]:
    """A gradient for each operand that needs one, as they stand and without gaps, and the pass."""
    gradients = [
        torch.empty_like(v) if need else None for v, need in zip(values, needed, strict=True)
    ]
    wanted = tuple([name for name, need in zip(names, needed, strict=True) if need])
    ready = _ready(formula, kind, names, wanted, values, options)
    return gradients, [g for g in gradients if g is not None], ready


def _laid_out_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if memory_order(tensor) == memory_order(like) and not tensor.is_neg():
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


class _Each(torch.autograd.Function):
    """A formula's value for each element."""

    @staticmethod
    def forward(
        ctx: Any, formula: Formula, options: Items, names: tuple[str, ...], *values: torch.Tensor
    ) -> torch.Tensor:
        ctx.formula, ctx.options, ctx.names = formula, options, names
        ctx.save_for_backward(*values)
        result = torch.empty_like(values[0])
        _ready(formula, EACH, names, (), values, options).run(*values, result)
        return result

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, None, None, *_differentiably(ctx, upstream, reduced=False)
        values, needed = ctx.saved_tensors, ctx.needs_input_grad[3:]
        gradients, written, ready = _prepared(
            BACKWARD, ctx.formula, ctx.options, ctx.names, values, needed
        )
        ready.run(*values, *written, _laid_out_like(upstream, values[0]))
        return None, None, None, *gradients


def _differentiably(ctx: Any, upstream: torch.Tensor, reduced: bool) -> list[Any]:
    """The gradients as tensor operations that autograd can differentiate again."""
    # Views: each operand by itself, though one may be made from another, or be the same.
    values, needed = [v.view_as(v) for v in ctx.saved_tensors], ctx.needs_input_grad[3:]
    options = dict(ctx.options)
    each = _eagerly(ctx.formula, ctx.names, values, options)
    total = each.sum() * options[FACTOR] if reduced else each
    if not total.requires_grad:  # no operand that needs a gradient has a part in it
        return [None] * len(values)
    wanted = [v for v, need in zip(values, needed, strict=True) if need]
    found = iter(torch.autograd.grad(total, wanted, upstream, create_graph=True, allow_unused=True))
    return [next(found) if need else None for need in needed]
