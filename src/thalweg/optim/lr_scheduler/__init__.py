"""In place of ``torch.optim.lr_scheduler``: the same schedulers, each from one pure function.

>>> import torch
>>> from thalweg.optim.lr_scheduler import CosineAnnealingLR
>>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
>>> scheduler = CosineAnnealingLR(optimizer, T_max=2)
>>> for _ in range(2):
...     print(scheduler.get_last_lr())
...     optimizer.step()
...     scheduler.step()
[0.5]
[0.25]
"""

from torch.optim import lr_scheduler as torchs

from thalweg.optim.lr_scheduler.base import LRScheduler
from thalweg.optim.lr_scheduler.by_function import LambdaLR, MultiplicativeLR
from thalweg.optim.lr_scheduler.compositions import ChainedScheduler, SequentialLR
from thalweg.optim.lr_scheduler.cycles import CyclicLR, OneCycleLR
from thalweg.optim.lr_scheduler.decays import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from thalweg.optim.lr_scheduler.hyperparameters import ScheduledHyperparameters
from thalweg.optim.lr_scheduler.plateau import ReduceLROnPlateau
from thalweg.optim.lr_scheduler.restarts import CosineAnnealingWarmRestarts
from thalweg.optim.lr_scheduler.swa import SWALR

EPOCH_DEPRECATION_WARNING = torchs.EPOCH_DEPRECATION_WARNING  # a text that tests look for
_LRScheduler = LRScheduler  # its name before torch 2.0

__all__ = [
    "SWALR",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "ScheduledHyperparameters",
    "SequentialLR",
    "StepLR",
]
