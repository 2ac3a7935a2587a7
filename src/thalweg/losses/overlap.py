"""The loss of two masks' overlap: dice."""

from typing import Any

import torch

from thalweg.losses.checks import check_real, check_same_size
from thalweg.losses.evaluation.rows import evaluate_rows
from thalweg.losses.module import Loss
from thalweg.losses.reduction import chosen_reduction
from thalweg.ranges import NON_NEGATIVE, number
from thalweg.rule.functions import sum
from thalweg.rule.rows import RowFormula

Tensor = torch.Tensor


def dice(x: Any, y: Any, h: Any) -> Any:
    both = sum(x * y, over="row")
    either = sum(x, over="row") + sum(y, over="row")
    return 1 - (2 * both + h.smooth) / (either + h.smooth)


DICE = RowFormula(dice)


def dice_loss(
    input: Tensor,
    target: Tensor,
    smooth: float = 1.0,
    start_dim: int = 1,
    reduction: str = "mean",
) -> Tensor:
    """One minus the overlap of two masks, the same for small objects and large ones.

    ::

        1 - (2 * sum(input * target) + smooth) / (sum(input) + sum(target) + smooth)

    Args:
        input: probabilities (after a sigmoid or softmax), [N, *].
        target: 0 and 1, or probabilities, of the same size.
        smooth: what two empty masks agree in, >= 0; with 0 they give NaN.
        start_dim: the sums are over this dimension and those after it: 1 for one loss of a sample,
            2 for one of each class of [N, C, *].
        reduction: "none" (gives the sizes before start_dim), "mean" or "sum".

    Raises:
        ValueError: an unknown reduction, a target of another size, smooth < 0.
        IndexError: the input has no dimension start_dim.
        TypeError: an argument that is no tensor or number.
        NotImplementedError: a complex tensor.

    Source: Milletari et al., "V-Net: Fully Convolutional Neural Networks for Volumetric Medical
    Image Segmentation", 2016, section 3, without the squares of its denominator, as in Sudre et
    al., "Generalised Dice overlap as a deep learning loss function", 2017.

    >>> dice_loss(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.ones(2, 2), reduction="none")
    tensor([0.2500, 0.2500])
    """
    owner = "dice_loss"
    check_real(owner, input=input, target=target)
    check_same_size(owner, input, target)
    reduction = chosen_reduction(owner, reduction)
    options = {"smooth": number(owner, "smooth", smooth, NON_NEGATIVE)}
    if not isinstance(start_dim, int):
        raise TypeError(
            f"{owner}: start_dim must be an integer, got {type(start_dim).__name__} {start_dim!r}"
        )
    dim = start_dim + input.ndim if start_dim < 0 else start_dim
    if not 0 <= dim < input.ndim:
        raise IndexError(
            f"{owner}: start_dim must be a dimension of the input, {tuple(input.shape)}, got "
            f"{start_dim}"
        )
    # Of negated views, torch's forward mode takes no views.
    operands = {"x": input.resolve_neg().flatten(dim), "y": target.resolve_neg().flatten(dim)}
    return evaluate_rows(owner, DICE, operands, options, reduction, dim)


class DiceLoss(Loss):
    """One minus the overlap of two masks; see :func:`dice_loss`.

    Args:
        smooth: what two empty masks agree in, >= 0.
        start_dim: the first of the dimensions that are summed over.
        reduction: "none", "mean" or "sum".

    Both numbers are checked when the module is called.

    >>> DiceLoss()(torch.ones(2, 3), torch.ones(2, 3))
    tensor(0.)
    """

    def __init__(self, smooth: float = 1.0, start_dim: int = 1, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.smooth = smooth
        self.start_dim = start_dim

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return dice_loss(input, target, self.smooth, self.start_dim, self.reduction)
