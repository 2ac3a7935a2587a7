"""A linear layer and cross entropy in one, for so many classes that the logits fill the memory.

The logits of a few rows at a time are computed, turned into their own gradients where they lie, and
multiplied into the gradients of input and weight. Those of the whole batch never exist.
"""

import math
from typing import Any, NamedTuple

import torch

from thalweg.engine import observed
from thalweg.losses.classification import (
    IGNORED,
    OF_CLASS,
    checked_class,
    class_weights,
    cross_entropy,
    total_weight,
)
from thalweg.losses.evaluate import (
    Needed,
    Tensors,
    are_plain,
    evaluated,
    reduced,
)
from thalweg.losses.evaluate_rows import RowCall
from thalweg.losses.reduction import (
    WeightedLoss,
    check_floating,
    check_tensors,
    chosen_reduction,
    threshold,
)
from thalweg.ranges import UNIT_INTERVAL
from thalweg.rule.formula import EACH, FACTOR, SUM

Tensor = torch.Tensor
Gradients = list[Tensor | None]

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
    if observed.observer is not None:  # the logits of one row stand for all
        row = _logits(vectors[:1], linear_weight, linear_bias)
        operands = {"x": row, "y": target[:1], **weights}
        smoothed = {"label_smoothing": smoothing}
        observed.observer(observed.FormulaCall(OF_CLASS, operands, smoothed, reduction, 1))
    values = {"input": vectors, "linear_weight": linear_weight, "target": target, **weights}
    if linear_bias is not None:
        values["linear_bias"] = linear_bias
    needed = tuple(v.requires_grad for v in values.values()) if torch.is_grad_enabled() else ()
    chunks = _Chunks(call, size, (*values,), () if reduction == "none" else needed)
    result = evaluated(chunks, [*values.values()], needed)
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


class _Chunks(NamedTuple):
    """One chunk of rows after the other; what autograd's functions need of a pass.

    Attributes:
        call: what is done with the logits of a chunk.
        size: rows of a chunk.
        names: of the operands: input, linear_weight and target, then those of weight and
            linear_bias that there are.
        needed: which of them need a gradient; empty if none does.
    """

    call: RowCall
    size: int
    names: tuple[str, ...]
    needed: Needed

    @property
    def kind(self) -> str:
        return self.call.kind

    @property
    def dtype(self) -> torch.dtype:
        return self.call.dtype

    @property
    def scale(self) -> float:
        return self.call.scale

    def other(self, kind: str, needed: Needed, **more: Any) -> "_Chunks":
        """Another kind of pass over the same operands, with some options set otherwise."""
        return self._replace(call=self.call.other(kind, (), **more), needed=needed)

    def arranged(self, values: list[Tensor]) -> "tuple[_Chunks, list[Tensor]]":
        """The operands; products take them however they lie."""
        return self, values

    def result(self, values: Tensors) -> Tensor:
        """Room for the values of the rows."""
        return values[0].new_empty(len(values[0]), dtype=self.dtype)

    def above(self, upstream: Tensor, values: Tensors) -> Tensor:
        """What comes from above, for each row."""
        return self.call.above(upstream, values)

    def eagerly(self, values: Tensors) -> Tensor:
        """The values by tensor operations, on all logits at once."""
        given = dict(zip(self.names, values, strict=True))
        logits = _logits(given["input"], given["linear_weight"], given.get("linear_bias"))
        operands = [logits.to(self.dtype), given["target"]]
        return self.call.eagerly(operands + [given[n] for n in ("weight",) if n in given])

    def reduced(self, each: Tensor, values: Tensors) -> Tensor:
        """The sum that the call stands for, by tensor operations."""
        return reduced(each, 1.0) * self.scale

    def __call__(self, values: Tensors, *of_rows: Tensor) -> tuple[list[float], Gradients]:
        """The sum, and a gradient for each operand that needs one.

        Args:
            values: the operands.
            of_rows: where the values of the rows go, or what comes from above for them.
        """
        given = dict(zip(self.names, values, strict=True))
        needed = {name for name, need in zip(self.names, self.needed, strict=False) if need}
        input, linear_weight, target = values[:3]
        bias, weights = given.get("linear_bias"), [given[n] for n in ("weight",) if n in given]
        gradients: dict[str, Tensor] = {}
        # Sums over the chunks, which 16 bits do not hold.
        wide = torch.promote_types(input.dtype, torch.float32)
        if "input" in needed:
            gradients["input"] = torch.empty_like(input)
        if "linear_weight" in needed:
            make = torch.empty_like if len(input) else torch.zeros_like
            gradients["linear_weight"] = make(linear_weight, dtype=wide)
        if bias is not None and "linear_bias" in needed:
            gradients["linear_bias"] = torch.zeros_like(bias, dtype=wide)
        call = self.call._replace(needed=(True,) if needed else ())
        classes, rows = len(linear_weight), len(input)
        room = input.new_empty(min(self.size, rows), classes)
        total = 0.0
        # Under autocast the operands have been cast, and products write where they are told.
        with torch.autocast("cpu", enabled=False):
            for first in range(0, rows, self.size):
                chunk = slice(first, first + self.size)
                vectors = input[chunk]
                logits = room[: len(vectors)]
                if bias is None:
                    torch.mm(vectors, linear_weight.t(), out=logits)
                else:
                    torch.addmm(bias, vectors, linear_weight.t(), out=logits)
                # Under autocast the loss is of wider numbers than the products.
                own = logits.to(self.dtype)
                part = call._replace(sizes=(len(vectors), classes, 1))
                (value,), _ = part([own, target[chunk], *weights], *[t[chunk] for t in of_rows])
                total += value
                if not needed:
                    continue
                if own is not logits:
                    logits.copy_(own)
                if "input" in gradients:
                    torch.mm(logits, linear_weight, out=gradients["input"][chunk])
                if "linear_weight" in gradients:
                    # The first chunk overwrites what there was.
                    product, beta = (logits.t().to(wide), vectors.to(wide)), 1 if first else 0
                    gradients["linear_weight"].addmm_(*product, beta=beta)
                if "linear_bias" in gradients:
                    gradients["linear_bias"] += logits.sum(0, dtype=wide)
        found = {name: g.to(input.dtype) for name, g in gradients.items()}
        return [total], [found.get(name) for name in self.names]


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
