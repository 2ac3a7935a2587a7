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
from thalweg.losses.define import loss
from thalweg.losses.likelihood import (
    GaussianNLLLoss,
    KLDivLoss,
    PoissonNLLLoss,
    gaussian_nll_loss,
    kl_div,
    poisson_nll_loss,
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

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "BinaryFocalLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelSoftMarginLoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "hinge_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "loss",
    "margin_ranking_loss",
    "mse_loss",
    "multilabel_soft_margin_loss",
    "poisson_nll_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
]
