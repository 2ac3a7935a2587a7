"""A linear layer and cross entropy in one, for so many classes that the logits fill the memory.

The logits of a few rows at a time are computed, turned into their own gradients where they lie, and
multiplied into the gradients of input and weight. Those of the whole batch never exist.
"""

import math
from typing import Any

import torch

from thalweg.engine import heard
from thalweg.losses.classification import (
    IGNORED,
    OF_CLASS,
    checked_class,
    class_weights,
    cross_entropy,
    total_weight,
)
from thalweg.losses.evaluate import are_plain, number_like
from thalweg.losses.evaluate_rows import RowCall
from thalweg.losses.reduction import (
    WeightedLoss,
    check_floating,
    check_tensors,
    chosen_reduction,
    threshold,
)
from thalweg.ranges import UNIT_INTERVAL
from thalweg.rule.formula import BACKWARD, EACH, FACTOR, SUM

Tensor = torch.Tensor

ROOM = 20 * 2**20  # bytes of logits at a time
EVENLY = 32  # rows that products divide their work into
FEWEST_ROWS = 64  # fewer leave a matrix product waiting for the weight


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """Cross entropy of the logits ``input @ linear_weight.T + linear_bias``.

    ::

        cross_entropy(linear(input, linear_weight, linear_bias), target, weight, ...)

    The logits of a chunk of rows exist at a time (20 MB of them, at least 64 rows), in place of
    those of all rows and their gradients. The gradients by input, weight and bias are computed on
    the way. Where the target holds probabilities, for logits of more dimensions, for second
    derivatives and where there is no kernel, it is the formula above.

    Args:
        input: vectors, [D] or [N, D].
        linear_weight: [C, D], or [C, *, D] for logits [N, C, *].
        target: classes (int64 or uint8), [] or [N] or [N, *], or probabilities, of the logits'
            size.
        linear_bias: [C], or [C, *].
        weight: of each class, [C].
        reduction: "none", "mean" or "sum"; see :func:`cross_entropy`.
        ignore_index: targets with this class count nothing; -100 by default.
        label_smoothing: in [0, 1].
        options: taken as torch's ``LinearCrossEntropyOptions``; of it, ``batch_chunk_size`` sets
            the rows of a chunk.

    Raises:
        IndexError: a class that is not one of the weight's.
        ValueError: an unknown reduction, or another number of targets than of inputs.
        RuntimeError: sizes that do not fit, label_smoothing out of range, ignore_index with
            probabilities.
        TypeError: an argument that is no tensor or number.
        NotImplementedError: an input or weight that is not floating-point.

    Source of the idea: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024.

    >>> x, w = torch.ones(2, 3), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> linear_cross_entropy(x, w, torch.tensor([0, 1]), reduction="none")
    tensor([0.3133, 1.3133])
    """
    owner = "linear_cross_entropy"
    check_floating(owner, input=input, linear_weight=linear_weight)
    given = {"target": target, "linear_bias": linear_bias, "weight": weight}
    check_tensors(owner, **{name: t for name, t in given.items() if t is not None})
    _check_sizes(owner, input, linear_weight, linear_bias)
    reduction = chosen_reduction(owner, reduction)
    smoothing = threshold(owner, "label_smoothing", label_smoothing, UNIT_INTERVAL)
    classes, *more, _ = linear_weight.shape
    if target.shape == (*input.shape[:-1], classes, *more) and ignore_index is not None:
        raise RuntimeError(
            f"{owner}: ignore_index must not be given where target holds probabilities, got "
            f"{ignore_index}; set those rows of target to 0"
        )
    ignored = IGNORED if ignore_index is None else checked_class(owner, ignore_index)
    tensors = [t for t in (input, linear_weight, linear_bias, weight) if t is not None]
    rows = input.shape[0] if input.ndim == 2 else 1
    in_chunks = (
        not more
        and target.dtype in (torch.int64, torch.uint8)
        and target.shape in (input.shape[:-1], (rows,))
        and are_plain(tensors)
        and target.is_cpu
        and (weight is None or not weight.requires_grad)
    )
    if not in_chunks:
        logits = _logits(input, linear_weight, linear_bias)
        return cross_entropy(
            logits,
            target,
            weight,
            ignore_index=ignored,
            reduction=reduction,
            label_smoothing=smoothing,
        )
    dtype = input.dtype
    # Under autocast products are in 16 bits, and the loss in float32.
    if torch.is_autocast_enabled("cpu") and dtype is not torch.float64:
        low, dtype = torch.get_autocast_dtype("cpu"), torch.float32
        input, linear_weight = input.to(low), linear_weight.to(low)
        linear_bias = None if linear_bias is None else linear_bias.to(low)
        weight = None if weight is None else weight.float()
    weights = class_weights(owner, dtype, classes, weight)
    target = target.reshape(-1).long()
    scale = 1.0
    if reduction == "mean":
        divisor = float(total_weight(target, weights, classes, ignored))
        scale = 1.0 / divisor if divisor else math.nan
    call = RowCall(
        owner,
        OF_CLASS,
        ("x", "y", *weights),
        dim=1,
        ignored=ignored,
        dtype=dtype,
        kind=EACH if reduction == "none" else SUM,
        needed=(),
        options={"label_smoothing": smoothing, FACTOR: scale},
        in_place=True,
    )
    size = getattr(options, "batch_chunk_size", None) or _rows_of_a_chunk(linear_weight)
    vectors = input if input.ndim == 2 else input.unsqueeze(0)
    if heard.listener is not None:  # the logits of one row stand for all
        row = _logits(vectors[:1], linear_weight, linear_bias)
        operands = {"x": row, "y": target[:1], **weights}
        smoothed = {"label_smoothing": smoothing}
        heard.listener(heard.Evaluated(OF_CLASS, operands, smoothed, reduction, 1))
    result: Tensor = _InChunks.apply(  # type: ignore[no-untyped-call]
        call, size, target, weight, vectors, linear_weight, linear_bias
    )
    return result.reshape(input.shape[:-1]) if reduction == "none" else result


def _rows_of_a_chunk(linear_weight: Tensor) -> int:
    rows = ROOM // max(1, linear_weight.shape[0] * linear_weight.itemsize)
    return max(FEWEST_ROWS, rows // EVENLY * EVENLY)


def _logits(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    """[N, C, *] or [C]: the rows of the weight in front of its other dimensions."""
    size = linear_weight.shape[:-1]
    rows = input if input.ndim == 2 else input.unsqueeze(0)
    columns = linear_weight.flatten(0, -2).t()
    if linear_bias is None:
        logits = torch.mm(rows, columns)
    else:
        logits = torch.addmm(linear_bias.flatten(), rows, columns)
    return logits.reshape(*input.shape[:-1], *size)


class _InChunks(torch.autograd.Function):
    """The loss of one chunk after the other."""

    @staticmethod
    def forward(
        ctx: Any,
        call: RowCall,
        size: int,
        target: Tensor,
        weight: Tensor | None,
        input: Tensor,
        linear_weight: Tensor,
        linear_bias: Tensor | None,
    ) -> Tensor:
        ctx.call, ctx.size = call, size
        given = (target, weight, input, linear_weight, linear_bias)
        ctx.save_for_backward(*given)
        needed = ctx.needs_input_grad[4:]
        if call.kind == EACH:
            values = input.new_empty(len(input), dtype=call.dtype)
            _run(call, size, given, (False,) * 3, values)
            return values
        total, ctx.gradients = _run(call, size, given, needed)
        return number_like(input.new_empty(0, dtype=call.dtype), total * call.scale)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        needed, call = ctx.needs_input_grad[4:], ctx.call
        if torch.is_grad_enabled():
            return None, None, None, None, *_differentiably(ctx, upstream, needed)
        if call.kind == EACH:
            backward = call._replace(kind=BACKWARD)
            above = upstream.resolve_neg().contiguous()
            _, gradients = _run(backward, ctx.size, ctx.saved_tensors, needed, above)
            return None, None, None, None, *gradients
        gradients, ctx.gradients = ctx.gradients, None
        factor = upstream.item()
        if gradients is None or (factor != 1.0 and call.dtype is torch.float16):
            # Handed out before, and perhaps changed since; or a gradient scaler's factor, which is
            # there for what float16 cannot hold: it comes first.
            call = call._replace(options={**call.options, FACTOR: call.scale * factor})
            _, gradients = _run(call, ctx.size, ctx.saved_tensors, needed)
        elif factor != 1.0:
            gradients = [None if g is None else g.mul_(factor) for g in gradients]
        return None, None, None, None, *gradients


def _run(
    call: RowCall,
    size: int,
    given: tuple[Any, ...],
    needed: tuple[bool, ...],
    of_rows: Tensor | None = None,
) -> tuple[float, list[Tensor | None]]:
    """The sum over all chunks, and the gradients of input, weight and bias that are needed.

    Args:
        call: what is done with the logits of a chunk.
        size: rows of a chunk.
        given: target, weights of the classes, input, weight and bias.
        needed: of the last three.
        of_rows: where the values of the rows go, or what comes from above for them.
    """
    target, weight, input, linear_weight, linear_bias = given
    call = call._replace(needed=(True,) if any(needed) else ())
    by_input = torch.empty_like(input) if needed[0] else None
    # Sums over the chunks, which 16 bits do not hold.
    wide = torch.promote_types(input.dtype, torch.float32)
    by_weight = torch.empty_like(linear_weight, dtype=wide) if needed[1] else None
    if by_weight is not None and not len(input):
        by_weight.zero_()
    by_bias = torch.zeros_like(linear_bias, dtype=wide) if needed[2] else None
    classes, rows = len(linear_weight), len(input)
    # Under autocast the operands have been cast, and products write where they are told.
    with torch.autocast("cpu", enabled=False):
        room = input.new_empty(min(size, rows), classes)
        total = 0.0
        for first in range(0, rows, size):
            vectors = input[first : first + size]
            logits = room[: len(vectors)]
            if linear_bias is None:
                torch.mm(vectors, linear_weight.t(), out=logits)
            else:
                torch.addmm(linear_bias, vectors, linear_weight.t(), out=logits)
            # Under autocast the loss is of wider numbers than the products.
            own = logits.to(call.dtype)
            operands = [own, target[first : first + size]]
            if weight is not None:
                operands.append(weight)
            other = [] if of_rows is None else [of_rows[first : first + size]]
            part = call._replace(sizes=(len(vectors), classes, 1))
            (value,), _ = part(operands, *other)
            total += value
            if own is not logits:
                logits.copy_(own)
            if by_input is not None:
                torch.mm(logits, linear_weight, out=by_input[first : first + size])
            if by_weight is not None:
                # The first chunk overwrites what there was.
                by_weight.addmm_(logits.t().to(wide), vectors.to(wide), beta=1 if first else 0)
            if by_bias is not None:
                by_bias += logits.sum(0, dtype=wide)
    of_layer = [None if g is None else g.to(input.dtype) for g in (by_weight, by_bias)]
    return total, [by_input, *of_layer]


def _differentiably(ctx: Any, upstream: Tensor, needed: tuple[bool, ...]) -> list[Tensor | None]:
    """The gradients as tensor operations that autograd can differentiate again."""
    target, weight, *others = ctx.saved_tensors
    views: list[Any] = [None if t is None else t.view_as(t) for t in others]
    logits = _logits(*views)
    operands = [logits.to(ctx.call.dtype), target] + ([] if weight is None else [weight])
    result = ctx.call.eagerly(operands)
    if ctx.call.kind == SUM:
        result = result.sum() * ctx.call.scale
    wanted = [t for t, n in zip(views, needed, strict=True) if n]
    found = torch.autograd.grad(result, wanted, upstream, create_graph=True, allow_unused=True)
    left = iter(found)
    return [next(left) if n else None for n in needed]


def _check_sizes(
    owner: str, input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None
) -> None:
    if input.ndim not in (1, 2):
        raise RuntimeError(f"{owner}: input must be [D] or [N, D], got {tuple(input.shape)}")
    if linear_weight.ndim < 2 or (linear_weight.ndim > 2 and input.ndim == 1):
        raise RuntimeError(
            f"{owner}: linear_weight must be [C, D], or [C, *, D] with an input [N, D], got "
            f"{tuple(linear_weight.shape)} with {tuple(input.shape)}"
        )
    if input.shape[-1] != linear_weight.shape[-1]:
        raise RuntimeError(
            f"{owner}: input and linear_weight must have the same last dimension, got "
            f"{input.shape[-1]} and {linear_weight.shape[-1]}"
        )
    if linear_bias is not None and linear_bias.shape != linear_weight.shape[:-1]:
        raise RuntimeError(
            f"{owner}: linear_bias must have the size {tuple(linear_weight.shape[:-1])}, got "
            f"{tuple(linear_bias.shape)}"
        )


class LinearCrossEntropyLoss(WeightedLoss):
    """A linear layer and the cross entropy of its logits; see :func:`linear_cross_entropy`.

    The layer is ``self.linear``, whose weight is [C * prod(out_features), in_features].

    Args:
        in_features: D, the size of a vector.
        num_classes: C.
        out_features: the dimensions after C, if the logits have any.
        bias: whether the layer has one.
        device: of the layer.
        dtype: of the layer.
        reduction: "none", "mean" or "sum".
        weight: of each class, [C], a buffer.
        ignore_index: targets with this class count nothing; -100 by default.
        label_smoothing: in [0, 1]; checked at once.
        options: see :func:`linear_cross_entropy`.

    Raises:
        RuntimeError: a weight of another size, label_smoothing out of range.

    >>> loss = LinearCrossEntropyLoss(8, 1000)
    >>> loss(torch.zeros(2, 8), torch.tensor([1, 2]))
    tensor(6.9078, grad_fn=<...>)
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any = None,
    ) -> None:
        owner = type(self).__name__
        if weight is not None and weight.shape != (num_classes,):
            raise RuntimeError(
                f"{owner}: weight must have one number for each of the {num_classes} classes, got "
                f"size {tuple(weight.shape)}"
            )
        super().__init__(weight, reduction=reduction)
        self.num_classes = num_classes
        self.out_features = tuple(out_features)
        self.ignore_index = ignore_index
        self.label_smoothing = threshold(owner, "label_smoothing", label_smoothing, UNIT_INTERVAL)
        self.options = options
        rows = math.prod((num_classes, *self.out_features))
        self.linear = torch.nn.Linear(in_features, rows, bias=bias, device=device, dtype=dtype)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        size = (self.num_classes, *self.out_features)
        bias: Tensor | None = self.linear.bias
        return linear_cross_entropy(
            input,
            self.linear.weight.reshape(*size, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(size),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )
