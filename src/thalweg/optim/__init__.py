"""In place of ``torch.optim``: the same optimizers, each from one rule, run fused.

>>> import thalweg.optim as optim
>>> [cls.__name__ for cls in (optim.SGD, optim.AdamW)]
['SGD', 'AdamW']
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from thalweg.optim.adadelta import Adadelta
from thalweg.optim.adagrad import Adagrad
from thalweg.optim.adam import Adam
from thalweg.optim.adamax import Adamax
from thalweg.optim.adamw import AdamW
from thalweg.optim.adan import Adan
from thalweg.optim.ademamix import AdEMAMix
from thalweg.optim.adopt import ADOPT
from thalweg.optim.asgd import ASGD
from thalweg.optim.create import create
from thalweg.optim.grouping import Groups, groups, having, no_decay_for_vectors
from thalweg.optim.lamb import LAMB
from thalweg.optim.laprop import LaProp
from thalweg.optim.lbfgs import LBFGS
from thalweg.optim.lion import Lion
from thalweg.optim.nadam import NAdam
from thalweg.optim.nadamw import NAdamW
from thalweg.optim.optimizer import Optimizer
from thalweg.optim.radam import RAdam
from thalweg.optim.rate_multipliers import by_fan_in, layer_decay, lr_multipliers
from thalweg.optim.rmsprop import RMSprop
from thalweg.optim.rprop import Rprop
from thalweg.optim.sgd import SGD
from thalweg.optim.signum import Signum
from thalweg.optim.sparse_adam import SparseAdam

if TYPE_CHECKING:
    from thalweg.optim import lr_scheduler, swa_utils

__all__ = [
    "ADOPT",
    "ASGD",
    "LAMB",
    "LBFGS",
    "SGD",
    "AdEMAMix",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Groups",
    "LaProp",
    "Lion",
    "NAdam",
    "NAdamW",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "Signum",
    "SparseAdam",
    "by_fan_in",
    "create",
    "groups",
    "having",
    "layer_decay",
    "lr_multipliers",
    "lr_scheduler",
    "no_decay_for_vectors",
    "swa_utils",
]

TORCHS_MODULES = ("_functional", "_multi_tensor")  # what scripts take private functions from


def __getattr__(name: str) -> Any:
    """Import what not every script needs when it is first asked for; the rest is torch's own."""
    if name in ("lr_scheduler", "swa_utils"):
        return import_module(f"thalweg.optim.{name}")
    if name in torch.optim.__all__ or name in TORCHS_MODULES:
        return getattr(torch.optim, name)
    raise AttributeError(f"module 'thalweg.optim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
