"""Evaluating connectionist temporal classification.

The kernel, written by hand, computes values and gradients in one call, a sample on each thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from thalweg.engine.passes import handwritten
from thalweg.engine.passes.memory import has_memory
from thalweg.losses.checks import readable
from thalweg.losses.evaluation.autograd import evaluated
from thalweg.losses.evaluation.evaluator import Gradients, Needed, Tensors
from thalweg.losses.evaluation.operands import HALVES, have_kernel
from thalweg.rule.formula import BACKWARD, EACH, FACTOR, SUM

Tensor = torch.Tensor

KERNEL = "_ctc.py"


@dataclass(frozen=True, eq=False)
class Task:
    """The checked arguments of a call, but for log_probs.

    Lengths are lists of integers, or tensors where their values cannot be read.

    Attributes:
        targets: the labels in one dimension.
        begins: where each sample's labels begin.
        input_lengths: of each sample.
        target_lengths: likewise.
        longest: the largest target length, or a bound of it.
        blank: a class.
        zero_infinity: whether infinite losses become 0.
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
        """Whether the lengths can be read."""
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


def evaluate_ctc(log_probs: Tensor, task: Task, reduction: str) -> Tensor:
    """The loss of each sample, or their weighted sum, in the dtype of log_probs."""
    dtype = log_probs.dtype
    if dtype in HALVES:
        return evaluate_ctc(log_probs.float(), task, reduction).to(dtype)
    weights = task.weights(reduction)
    if (
        isinstance(weights, Tensor)
        or not task.known
        or not have_kernel([log_probs])
        or not has_memory(task.targets)
    ):
        return _by_tensor_operations(log_probs, task.targets, task, weights)
    needed = (torch.is_grad_enabled() and log_probs.requires_grad, False)
    kind = EACH if weights is None else SUM
    evaluator = CTCEvaluator(kind, dtype, needed, task, weights)
    return evaluated(evaluator, [log_probs, task.targets], needed)


class CTCEvaluator(NamedTuple):
    """The loss with its settings; an :class:`Evaluator` whose operands are log_probs and targets.

    Attributes:
        kind: what the kernel does with the values.
        dtype: of log_probs.
        needed: whether log_probs needs a gradient, and False for targets.
        task: all but log_probs.
        weights: of each sample in the sum; None for ``EACH``.
        scale: what the sum is multiplied by.
    """

    kind: str
    dtype: torch.dtype
    needed: Needed
    task: Task
    weights: list[float] | None
    scale: float = 1.0

    @property
    def converts(self) -> bool:
        return False

    def __call__(
        self, values: Tensors, *values_or_upstream: Tensor
    ) -> tuple[list[float], Gradients]:
        log_probs, targets = values
        factors = None
        if self.kind == BACKWARD:
            factors = values_or_upstream[0].tolist()
        elif self.weights is not None and True in self.needed:
            factors = [weight * self.scale for weight in self.weights]
        losses, gradient = _run_kernel(log_probs, targets, self.task, factors)
        if self.weights is not None:
            return [float((losses * self.weights).sum())], [gradient, None]
        if self.kind == EACH:
            values_or_upstream[0].copy_(torch.from_numpy(losses))
        return [], [gradient, None]

    def with_kind(self, kind: str, needed: Needed, **options: Any) -> "CTCEvaluator":
        return self._replace(kind=kind, needed=needed, scale=options.get(FACTOR, self.scale))

    def arranged(self, values: list[Tensor]) -> "tuple[CTCEvaluator, list[Tensor]]":
        log_probs, targets = values  # the kernel takes any strides of log_probs
        return self, [log_probs, targets.contiguous()]

    def new_values(self, values: Tensors) -> Tensor:
        return values[0].new_empty(values[0].shape[1])

    def arranged_upstream(self, upstream: Tensor, values: Tensors) -> Tensor:
        return upstream

    def by_tensor_operations(self, values: Tensors) -> Tensor:
        log_probs, targets = values
        return _by_tensor_operations(log_probs, targets, self.task, self.weights) * self.scale


def _run_kernel(
    log_probs: Tensor, targets: Tensor, task: Task, factors: Sequence[float] | None
) -> tuple[npt.NDArray[np.float64], Tensor | None]:
    """The losses and, with a factor for each sample, the gradient."""
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
    memory = torch.empty(slots * room, dtype=torch.float64, device="cpu")
    arguments = [
        *(0, slots, samples, steps, classes, task.blank, task.zero_infinity),
        *(log_probs.dtype is torch.float64, log_probs.data_ptr(), table.ctypes.data),
        *(targets.data_ptr(), losses.ctypes.data, scales.ctypes.data),
        0 if gradient is None else gradient.data_ptr(),
        *log_probs.stride(),
        *(width, rows, memory.data_ptr(), room),
        *((0, 0, 0) if gradient is None else gradient.stride()),
    ]
    handwritten.run(KERNEL, arguments, slots)
    if (table[3] >= 0).any():
        n = int((table[3] >= 0).argmax())
        raise _no_class(int(targets[table[0, n] + table[3, n]]), classes)
    return losses, gradient


def _by_tensor_operations(
    log_probs: Tensor, targets: Tensor, task: Task, weights: Tensor | Sequence[float] | None
) -> Tensor:
    """The losses or their weighted sum: all samples at once, one time step after another."""
    steps, samples, classes = log_probs.shape
    device = log_probs.device
    wide = torch.float32 if device.type == "mps" else torch.float64
    begins, inputs, lengths = (
        torch.as_tensor(numbers, device=device)[:, None]
        for numbers in (task.begins, task.input_lengths, task.target_lengths)
    )
    places = torch.arange(task.longest, device=device).expand(samples, -1)
    seen = places < lengths
    labels = targets[torch.where(seen, begins + places, 0)]
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
    # The tracer has no operation for a tensor and a bool.
    infinite = each.detach() == torch.inf
    zeroed = infinite if task.zero_infinity else torch.zeros_like(infinite)
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
