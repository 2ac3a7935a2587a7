"""Evaluating connectionist temporal classification: by a kernel, or by tensor operations.

The kernel computes values and gradients in one call, a sample on each thread. What has no kernel
(other devices and tensor types, ``torch.compile``, a second derivative) runs as tensor operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thalweg.engine.passes import handwritten
from thalweg.losses.evaluate import HALVES, have_kernel, number_like
from thalweg.losses.reduction import readable

Tensor = torch.Tensor

KERNEL = "_ctc.py"


@dataclass(frozen=True, eq=False)
class Task:
    """All of a call but its log_probs, checked. Tensors hold values that cannot be looked at.

    Attributes:
        targets: the labels in one dimension.
        begins: where each sample's labels begin.
        input_lengths: of each sample.
        target_lengths: likewise.
        longest: the largest target length, or a bound of it.
        blank: a class.
        zero_infinity: as given.
    """

    targets: Tensor
    begins: Tensor | list[int]
    input_lengths: Tensor | list[int]
    target_lengths: Tensor | list[int]
    longest: int
    blank: int
    zero_infinity: bool

    @property
    def known(self) -> bool:
        """Whether the lengths can be looked at."""
        lengths = self.input_lengths, self.target_lengths
        return not any(isinstance(numbers, Tensor) for numbers in lengths)

    def weights(self, reduction: str) -> Tensor | list[float] | None:
        """The weight of each sample in the sum of losses; None for no sum."""
        counts = self.target_lengths
        if reduction == "none":
            return None
        samples = len(counts)
        if reduction == "sum":
            return [1.0] * samples
        if isinstance(counts, Tensor):
            return 1.0 / (samples * counts.clamp(min=1))
        return [1.0 / (samples * max(count, 1)) for count in counts]


def evaluate(log_probs: Tensor, task: Task, reduction: str) -> Tensor:
    """The loss of each sample, or their weighted sum, in the dtype of log_probs."""
    dtype = log_probs.dtype
    if dtype in HALVES:
        return evaluate(log_probs.float(), task, reduction).to(dtype)
    weights = task.weights(reduction)
    if isinstance(weights, Tensor) or not task.known or not have_kernel([log_probs]):
        return _eagerly(log_probs, task, weights)
    if torch.is_grad_enabled() and log_probs.requires_grad:
        result: Tensor = _Kernel.apply(log_probs, task, weights)  # type: ignore[no-untyped-call]
        return result
    return _run(log_probs, task, weights)[0]


class _Kernel(torch.autograd.Function):
    """With weights, the forward pass computes the gradient too; else there is a pass for each."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, task: Task, weights: list[float] | None) -> Tensor:
        ctx.task, ctx.weights = task, weights
        ctx.save_for_backward(log_probs, task.targets)
        loss, ctx.gradient = _run(log_probs, task, weights, weights)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        task, weights = ctx.task, ctx.weights
        log_probs, _ = ctx.saved_tensors
        if torch.is_grad_enabled():
            held = log_probs.view_as(log_probs)
            loss = _eagerly(held, task, weights)
            return *torch.autograd.grad(loss, held, upstream, create_graph=True), None, None
        gradient, ctx.gradient = ctx.gradient, None
        factors: Any = upstream.tolist()
        if gradient is None:  # not computed yet, or handed out and perhaps changed since
            if weights is not None:
                factors = [factors * weight for weight in weights]
            _, gradient = _run(log_probs, task, None, factors)
        elif factors != 1.0:
            gradient.mul_(factors)
        return gradient, None, None


def _run(
    log_probs: Tensor,
    task: Task,
    weights: Sequence[float] | None,
    factors: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The losses or their weighted sum and, with a factor for each sample, the gradient."""
    steps, samples, classes = log_probs.shape
    gradient = None if factors is None else torch.empty_like(log_probs)
    lengths = task.begins, task.input_lengths, task.target_lengths
    table = np.array([*lengths, [-1] * samples], dtype=np.int64)
    scales = np.array([0.0] * samples if factors is None else factors, dtype=np.float64)
    losses = np.empty(samples)
    # Memory of a thread, in numbers: see the kernel.
    width, rows = 2 * task.longest + 5, 1 if gradient is None else steps
    room = 1 + width * (5 + 2 * rows + 2 * (rows + 1))
    slots = min(torch.get_num_threads(), samples)
    memory = torch.empty(slots * room, dtype=torch.float64)
    arguments = [
        *(0, slots, samples, steps, classes, task.blank, task.zero_infinity),
        *(log_probs.dtype is torch.float64, log_probs.data_ptr(), table.ctypes.data),
        *(task.targets.data_ptr(), losses.ctypes.data, scales.ctypes.data),
        0 if gradient is None else gradient.data_ptr(),
        *log_probs.stride(),
        *(width, rows, memory.data_ptr(), room),
        *((0, 0, 0) if gradient is None else gradient.stride()),
    ]
    handwritten.run(KERNEL, arguments, slots)
    if (table[3] >= 0).any():
        n = int((table[3] >= 0).argmax())
        raise _no_class(int(task.targets[table[0, n] + table[3, n]]), classes)
    if weights is None:
        return torch.from_numpy(losses).to(log_probs.dtype), gradient
    return number_like(log_probs, (losses * weights).sum()), gradient


def _eagerly(log_probs: Tensor, task: Task, weights: Tensor | Sequence[float] | None) -> Tensor:
    """As the kernel, by tensor operations on all samples at once, one time step after another."""
    steps, samples, classes = log_probs.shape
    device = log_probs.device
    wide = torch.float32 if device.type == "mps" else torch.float64
    begins, inputs, lengths = (
        torch.as_tensor(numbers, device=device)[:, None]
        for numbers in (task.begins, task.input_lengths, task.target_lengths)
    )
    places = torch.arange(task.longest, device=device).expand(samples, -1)
    seen = places < lengths
    labels = task.targets[torch.where(seen, begins + places, 0)]
    labels = torch.where(seen, labels, task.blank)
    if readable(log_probs, labels):
        bad = labels[(labels < 0) | (labels >= classes)]
        if bad.numel():
            raise _no_class(int(bad[0]), classes)

    # Logarithms of the alphas of blanks and of labels; blank i follows label i, and none label 0.
    none = torch.full((samples, 1), -torch.inf, dtype=wide, device=device)
    symbols = torch.cat([torch.full_like(begins, task.blank), labels], 1)
    y = log_probs.gather(2, symbols.expand(steps, -1, -1)).to(wide)
    may_skip = symbols != symbols.roll(1, 1)
    at_label = none.expand(-1, task.longest + 1)
    at_blank = torch.cat([torch.zeros_like(none), at_label[:, 1:]], 1)
    live = torch.arange(steps, device=device)[:, None, None] < inputs
    for here, symbol in zip(live.unbind(), y.unbind(), strict=True):
        before = torch.cat([none, at_label[:, :-1]], 1)
        before = torch.where(may_skip, before, -torch.inf)
        label = _log_sum(at_label, torch.cat([none, at_blank[:, :-1]], 1), before)
        blank = _log_sum(at_blank, at_label)
        at_label = torch.where(here, _times(label, symbol), at_label)
        at_blank = torch.where(here, _times(blank, symbol[:, :1]), at_blank)
    each = -_log_sum(at_blank.gather(1, lengths), at_label.gather(1, lengths)).squeeze(1)

    # The gradient's first term, of the value 0. NaN makes the whole gradient of a sample NaN.
    p = torch.where(live, log_probs.exp(), 0.0)
    p = torch.where(p < torch.inf, p, 0.0)
    first = (p - p.detach()).sum((0, 2))
    finite = each.detach() < torch.inf
    zeroed = (each.detach() == torch.inf) & task.zero_infinity
    first = first * torch.where(finite | zeroed, 1.0, torch.nan)
    each = torch.where(finite, each + first, torch.where(zeroed, 0.0, each))
    if weights is not None:
        each = (each * torch.as_tensor(weights, dtype=wide, device=device)).sum()
    return each.to(log_probs.dtype)


def _log_sum(*logs: Tensor) -> Tensor:
    """log(exp(a) + exp(b) + ...), whose derivative by -inf is 0, also where all are -inf."""
    terms = torch.stack(logs)
    highest = terms.detach().amax(0)
    highest = torch.where(highest == -torch.inf, 0.0, highest)
    total = (terms - highest).exp().sum(0)
    empty = total == 0
    return torch.where(empty, -torch.inf, torch.where(empty, 1.0, total).log() + highest)


def _times(log: Tensor, y: Tensor) -> Tensor:
    """The logarithm of a product, without a derivative where it was -inf."""
    return torch.where(log == -torch.inf, log, log + y)


def _no_class(label: int, classes: int) -> IndexError:
    return IndexError(
        f"ctc_loss: targets must be classes, >= 0 and < {classes}, got {label}; labels behind a "
        "target's length may be anything"
    )
