"""Weight decay whose strength follows the learning rate in other ways than AdamW's in torch."""

from functools import wraps
from typing import Any

from thalweg.ranges import NON_NEGATIVE, POSITIVE, OrNone
from thalweg.rule import Transform, Update, maximum, sign


def independently_decaying(update: Update) -> Update:
    """The update of a p that was shrunk before, by a share that lr does not scale."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if not h.independent_decay:
            return update(p, g, s, h)
        schedule = 1.0 if h.peak_lr is None else h.lr / h.peak_lr
        return update(p * (1 - schedule * h.independent_decay), g, s, h)

    return rule


def independent_decay(weight_decay: float = 1e-4, peak_lr: float | None = None) -> Transform:
    """Decoupled weight decay as its authors define it: lr does not scale it, its schedule does.

    ::

        p <- p * (1 - (lr / peak_lr) * weight_decay)

    torch's AdamW multiplies by lr instead, so that whoever tunes lr changes the decay, too.

    Args:
        weight_decay: the share of p that is taken off at each step, >= 0; 0 leaves no trace in the
            kernel. Option ``independent_decay``.
        peak_lr: the largest lr of the schedule, > 0; None: the decay is constant. The optimizer
            then needs no option ``lr``.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, Algorithm 2.
    """
    return Transform(
        independently_decaying,
        options={"independent_decay": weight_decay, "peak_lr": peak_lr},
        ranges={"independent_decay": NON_NEGATIVE, "peak_lr": OrNone(POSITIVE)},
        name="independent_decay",
        every_row="independent_decay",
    )


def corrected_decaying(update: Update) -> Update:
    """The update of a p that was shrunk before, by a share that lr scales twice."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if not h.corrected_decay:
            return update(p, g, s, h)
        return update(p * (1 - h.lr * h.lr / h.peak_lr * h.corrected_decay), g, s, h)

    return rule


def corrected_decay(weight_decay: float = 0.1, *, peak_lr: float) -> Transform:
    """Decoupled weight decay that keeps the ratio of gradient and weight norm over a schedule.

    ::

        p <- p * (1 - lr * (lr / peak_lr) * weight_decay)

    For layers that a normalization follows: with ordinary decay their gradients grow at the end of
    training, where lr goes to 0.

    Args:
        weight_decay: the strength, >= 0; 0 leaves no trace in the kernel. Option
            ``corrected_decay``.
        peak_lr: the largest lr of the schedule, > 0.

    Source: Defazio, "Why Gradients Rapidly Increase Near the End of Training", 2025, Algorithm 1
    (AdamC).
    """
    return Transform(
        corrected_decaying,
        options={"corrected_decay": weight_decay, "peak_lr": peak_lr},
        ranges={"corrected_decay": NON_NEGATIVE, "peak_lr": POSITIVE},
        name="corrected_decay",
        every_row="corrected_decay",
    )


def soft_thresholding(update: Update) -> Update:
    """The update, followed by a step towards zero that stops there."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        new = update(p, g, s, h)
        if not h.l1_decay:
            return new
        size = maximum(abs(new) - h.lr * h.l1_decay, 0.0)
        return sign(new) * size

    return rule


def l1_decay(l1: float = 1e-4) -> Transform:
    """L1 regularization by its proximal step: weights become exactly 0.

    ::

        p <- sign(p') * max(|p'| - lr * l1, 0)    with p' the rule's result

    Args:
        l1: the strength, >= 0; 0 leaves no trace in the kernel. Option ``l1_decay``. The optimizer
            needs an option ``lr``.

    Source: Daubechies, Defrise and De Mol, "An Iterative Thresholding Algorithm for Linear Inverse
    Problems with a Sparsity Constraint", 2004; Duchi and Singer, "Efficient Online and Batch
    Learning Using Forward Backward Splitting", 2009.
    """
    return Transform(
        soft_thresholding,
        options={"l1_decay": l1},
        ranges={"l1_decay": NON_NEGATIVE},
        name="l1_decay",
        every_row="l1_decay",
    )
