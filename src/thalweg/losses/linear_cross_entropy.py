"""A linear layer and cross entropy in one, for so many classes that logits fill the memory."""

import math
from typing import Any

import torch

from thalweg.engine import observed
from thalweg.engine.passes.memory import has_memory
from thalweg.losses.checks import check_floating, check_tensors, threshold
from thalweg.losses.class_targets import IGNORED, checked_class, class_weights, total_weight
from thalweg.losses.classification import OF_CLASS, cross_entropy
from thalweg.losses.evaluation.autograd import evaluated
from thalweg.losses.evaluation.chunks import ChunkEvaluator, linear_logits
from thalweg.losses.evaluation.operands import are_plain
from thalweg.losses.evaluation.rows import RowEvaluator
from thalweg.losses.module import WeightedLoss
from thalweg.losses.reduction import chosen_reduction
from thalweg.ranges import UNIT_INTERVAL
from thalweg.rule.formula import EACH, FACTOR, SUM

Tensor = torch.Tensor

CHUNK_BYTES = 20 * 2**20  # of logits at a time
ROW_MULTIPLE = 32  # matrix products work on blocks of so many rows
FEWEST_ROWS = 64  # with fewer, a matrix product waits for the weight to be read


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
        and has_memory(target)
        and (weight is None or not weight.requires_grad)
    )
    if not in_chunks:
        logits = linear_logits(input, linear_weight, linear_bias)
        return cross_entropy(
            logits,
            target,
            weight,
            ignore_index=ignored,
            reduction=reduction,
            label_smoothing=smoothing,
        )
    rows_wanted = getattr(options, "batch_chunk_size", None)
    return _in_chunks(
        input,
        linear_weight,
        target,
        linear_bias,
        weight,
        reduction,
        ignored,
        smoothing,
        rows_wanted,
    )


def _in_chunks(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    reduction: str,
    ignored: int,
    smoothing: float,
    chunk_rows: int | None,
) -> Tensor:
    """The loss of checked operands that kernels can read, with targets that are classes."""
    owner, classes = "linear_cross_entropy", len(linear_weight)
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
    of_logits = RowEvaluator(
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
    chunk_rows = chunk_rows or _rows_of_a_chunk(linear_weight)
    vectors = input if input.ndim == 2 else input.unsqueeze(0)
    if observed.observer is not None:  # one row of logits is shown, not all of them
        row = linear_logits(vectors[:1], linear_weight, linear_bias)
        operands = {"x": row, "y": target[:1], **weights}
        shown = {"label_smoothing": smoothing}
        observed.observer(observed.FormulaCall(OF_CLASS, operands, shown, reduction, 1))
    values = {"input": vectors, "linear_weight": linear_weight, "target": target, **weights}
    if linear_bias is not None:
        values["linear_bias"] = linear_bias
    needed = tuple(v.requires_grad for v in values.values()) if torch.is_grad_enabled() else ()
    in_forward = () if reduction == "none" else needed
    evaluator = ChunkEvaluator(of_logits, chunk_rows, (*values,), in_forward)
    evaluator, operands_laid_out = evaluator.arranged([*values.values()])
    result = evaluated(evaluator, operands_laid_out, needed)
    return result.reshape(input.shape[:-1]) if reduction == "none" else result


def _rows_of_a_chunk(linear_weight: Tensor) -> int:
    rows = CHUNK_BYTES // max(1, linear_weight.shape[0] * linear_weight.itemsize)
    return max(FEWEST_ROWS, rows // ROW_MULTIPLE * ROW_MULTIPLE)


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


class LinearCrossEntropyLoss(WeightedLoss, torch.nn.LinearCrossEntropyLoss):
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
