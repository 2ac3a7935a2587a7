"""Losses: each one formula, its value and its derivatives computed in one pass over the elements.

The functions stand in for those of ``torch.nn.functional``, the classes for those of ``torch.nn``;
:func:`loss` makes one of a formula of your own.

>>> import torch
>>> from thalweg import losses
>>> x = torch.tensor([1.0, 5.0], requires_grad=True)
>>> losses.mse_loss(x, torch.tensor([2.0, 2.0])).backward()
>>> x.grad
tensor([-1.,  3.])
"""

from thalweg.losses.binary import (
    BCELoss,
    BCEWithLogitsLoss,
    BinaryFocalLoss,
    MultiLabelSoftMarginLoss,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    multilabel_soft_margin_loss,
    sigmoid_focal_loss,
)
from thalweg.losses.boxes import (
    CIoULoss,
    DIoULoss,
    GIoULoss,
    IoULoss,
    ciou_loss,
    diou_loss,
    giou_loss,
    iou_loss,
)
from thalweg.losses.classification import (
    CrossEntropyLoss,
    FocalLoss,
    NLLLoss,
    cross_entropy,
    focal_loss,
    nll_loss,
)
from thalweg.losses.ctc import (
    CTCLoss,
    ctc_loss,
)
from thalweg.losses.define import loss
from thalweg.losses.embedding import (
    CosineEmbeddingLoss,
    TripletMarginLoss,
    TripletMarginWithDistanceLoss,
    cosine_embedding_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from thalweg.losses.likelihood import (
    GaussianNLLLoss,
    KLDivLoss,
    PoissonNLLLoss,
    gaussian_nll_loss,
    kl_div,
    poisson_nll_loss,
)
from thalweg.losses.linear_cross_entropy import (
    LinearCrossEntropyLoss,
    linear_cross_entropy,
)
from thalweg.losses.margin import (
    HingeEmbeddingLoss,
    HingeLoss,
    MarginRankingLoss,
    SoftMarginLoss,
    hinge_embedding_loss,
    hinge_loss,
    margin_ranking_loss,
    soft_margin_loss,
)
from thalweg.losses.multi_margin import (
    MultiMarginLoss,
    multi_margin_loss,
)
from thalweg.losses.multilabel_margin import (
    MultiLabelMarginLoss,
    multilabel_margin_loss,
)
from thalweg.losses.overlap import (
    DiceLoss,
    dice_loss,
)
from thalweg.losses.regression import (
    HuberLoss,
    L1Loss,
    MSELoss,
    SmoothL1Loss,
    huber_loss,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from thalweg.losses.zero_one import (
    ZeroOneLoss,
    zero_one_loss,
)
from thalweg.rule.rows import Kind

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "BinaryFocalLoss",
    "CIoULoss",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "DiceLoss",
    "FocalLoss",
    "GIoULoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "IoULoss",
    "KLDivLoss",
    "Kind",
    "L1Loss",
    "LinearCrossEntropyLoss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "ZeroOneLoss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "ciou_loss",
    "cosine_embedding_loss",
    "cross_entropy",
    "ctc_loss",
    "dice_loss",
    "diou_loss",
    "focal_loss",
    "gaussian_nll_loss",
    "giou_loss",
    "hinge_embedding_loss",
    "hinge_loss",
    "huber_loss",
    "iou_loss",
    "kl_div",
    "l1_loss",
    "linear_cross_entropy",
    "loss",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "poisson_nll_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "zero_one_loss",
]
