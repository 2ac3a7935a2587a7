"""Connectionist temporal classification: sequences whose labels are not aligned with the input."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from thalweg.losses.checks import check_floating, check_tensors, readable
from thalweg.losses.evaluation.ctc import Task, evaluate_ctc
from thalweg.losses.evaluation.operands import HALVES, in_float32_under_autocast
from thalweg.losses.module import Loss
from thalweg.losses.reduction import chosen_reduction
from thalweg.ranges import integer

Tensor = torch.Tensor
Lengths = Tensor | Sequence[int]


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log likelihood of label sequences, summed over their alignments with the input.

    ::

        -log(sum over paths of the product over t of exp(log_probs[t, n, path[t]]))

    A path has a class for each time step of the sample. Those are summed that become the target
    when a class that is repeated is written once and blanks are then removed. The gradient is, for
    each time step and class,

    ::

        exp(log_probs) - (probability that the path is at this class, given the target)

    (equation 16), as torch's is. It takes for granted that log_probs are normalized, as those of
    log_softmax are, and then it is right: what log_softmax makes of it is the derivative by its own
    input. The derivative of the formula above by log_probs lacks the first term, which keeps the
    sum of the probabilities where it is: without it, log_probs that are not normalized would grow
    forever. Second derivatives are those of this gradient.

    Args:
        log_probs: logarithms of the classes' probabilities, [T, N, C], or [T, C] of one sample.
        targets: labels other than the blank, [N, S] or one after another in one dimension; for one
            sample [S]. What comes after a sample's target length is not looked at.
        input_lengths: the time steps of each sample, from 0 to T: a tensor or a list of integers;
            for one sample a tensor of one element or a list of one.
        target_lengths: the labels of each sample, >= 0, likewise.
        blank: the class that stands for no label, from 0 to C - 1.
        reduction: "none", "mean" (each loss divided by the length of its target or 1, then averaged
            over the samples) or "sum".
        zero_infinity: 0 in place of infinite losses and of their gradients. A loss is infinite
            where the input is too short: labels, and a blank between two that are equal, need a
            time step each.

    Raises:
        ValueError: an unknown reduction.
        IndexError: a label that is no class, or log_probs without dimensions.
        RuntimeError: sizes that do not fit, lengths or blank out of range, lengths that are no
            integers, or log_probs without elements.
        TypeError: an argument that is no tensor, list, integer or bool where it should be one.
        NotImplementedError: log_probs that are not floating-point.

    Source: Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented Sequence
    Data with Recurrent Neural Networks", 2006, equations 3, 8 and 16.

    >>> log_probs = torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log()
    >>> loss = ctc_loss(log_probs, torch.tensor([1]), (2,), (1,))
    >>> round(loss.exp().item(), 4)  # 1 / (0.5 * 0.75 + 0.5 * 0.25 + 0.5 * 0.25)
    1.6
    """
    owner = "ctc_loss"
    check_floating(owner, log_probs=log_probs)
    check_tensors(owner, targets=targets)
    reduction = chosen_reduction(owner, reduction)
    batched = log_probs.ndim == 3
    if log_probs.ndim not in (2, 3):
        error = RuntimeError if log_probs.ndim else IndexError
        raise error(
            f"{owner}: log_probs must have the dimensions [T, N, C] or [T, C], got "
            f"{tuple(log_probs.shape)}"
        )
    if not batched:
        log_probs = log_probs.unsqueeze(1)
    if log_probs.dtype in HALVES:
        (log_probs,) = in_float32_under_autocast([log_probs])
    task = _checked(owner, log_probs, targets, input_lengths, target_lengths, blank, zero_infinity)
    loss = evaluate_ctc(log_probs, task, reduction)
    return loss if batched or reduction != "none" else loss.squeeze(0)


class CTCLoss(Loss, torch.nn.CTCLoss):
    """Connectionist temporal classification; see :func:`ctc_loss`.

    Args:
        blank: the class that stands for no label; checked when the module is called.
        reduction: "none", "mean" or "sum".
        zero_infinity: 0 in place of infinite losses and of their gradients.

    >>> log_probs = torch.full((4, 1, 3), 1 / 3).log()
    >>> CTCLoss()(log_probs, torch.tensor([[1, 2]]), [4], [2])
    tensor(0.8432)
    """

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction=reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths
    ) -> Tensor:
        return ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
        )


def _checked(
    owner: str,
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: Any,
    zero_infinity: Any,
) -> Task:
    steps, samples, classes = log_probs.shape
    if not log_probs.numel():
        raise RuntimeError(
            f"{owner}: log_probs must have elements, got the size {(steps, samples, classes)}"
        )
    if not isinstance(zero_infinity, bool):
        raise TypeError(f"{owner}: zero_infinity must be True or False, got {zero_infinity!r}")
    place = integer(owner, "blank", blank, flags=False)
    if not 0 <= place < classes:
        raise RuntimeError(f"{owner}: blank must be a class, >= 0 and < {classes}, got {place}")
    if isinstance(input_lengths, Tensor) != isinstance(target_lengths, Tensor):
        raise TypeError(
            f"{owner}: input_lengths and target_lengths must both be tensors or both lists, got "
            f"{type(input_lengths).__name__} and {type(target_lengths).__name__}"
        )
    if targets.ndim not in (1, 2) or (targets.ndim == 2 and targets.shape[0] != samples):
        raise RuntimeError(
            f"{owner}: targets must have one dimension or the size [{samples}, S], got "
            f"{tuple(targets.shape)}"
        )
    known = readable(log_probs, targets)
    inputs = _lengths(owner, "input_lengths", input_lengths, samples, known)
    counts = _lengths(owner, "target_lengths", target_lengths, samples, known)
    padded = targets.ndim == 2
    longest = targets.shape[-1]
    begins: Tensor | list[int]
    if not isinstance(inputs, Tensor):
        _in_range(owner, "input_lengths", inputs, steps, "the time steps of log_probs")
    if isinstance(counts, Tensor):
        begins = counts.cumsum(0) - counts
    else:
        _in_range(owner, "target_lengths", counts, longest, "the labels there are")
        begins = [0, *accumulate(counts[:-1])]
        if not padded and sum(counts) != longest:
            raise RuntimeError(
                f"{owner}: targets in one dimension must be as many as target_lengths add up to, "
                f"{sum(counts)}, got {longest}"
            )
        longest = max(counts)
    if padded:
        begins = [n * targets.shape[1] for n in range(samples)]
    flat = targets.to(log_probs.device, torch.int64).contiguous().reshape(-1)
    return Task(flat, begins, inputs, counts, longest, place, zero_infinity)


def _lengths(owner: str, name: str, value: Any, samples: int, known: bool) -> Tensor | list[int]:
    found: Tensor | list[int]
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex() or value.dtype is torch.bool:
            raise RuntimeError(f"{owner}: {name} must hold integers, got {value.dtype}")
        found = value.detach().reshape(-1).to(torch.int64)
        if known and readable(value):
            found = found.tolist()
    elif isinstance(value, (list, tuple)):
        found = [integer(owner, f"{name}[{i}]", each, flags=False) for i, each in enumerate(value)]
    else:
        raise TypeError(
            f"{owner}: {name} must be a tensor, a list or a tuple, got {type(value).__name__} "
            f"{value!r}"
        )
    if len(found) != samples:
        raise RuntimeError(
            f"{owner}: {name} must have a number for each of {samples} samples, got {len(found)}"
        )
    return found


def _in_range(owner: str, name: str, lengths: list[int], most: int, what: str) -> None:
    for i, length in enumerate(lengths):
        if not 0 <= length <= most:
            raise RuntimeError(
                f"{owner}: {name} must be >= 0 and at most {most}, {what}, got {length} for sample "
                f"{i}"
            )
