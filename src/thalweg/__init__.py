"""thalweg: PyTorch optimizers written once, as the formula in their paper, run fused.

>>> import thalweg.optim as optim  # in place of: import torch.optim as optim
"""

__version__ = "0.1.0"

from thalweg import schedules
from thalweg.engine.explain import explain, show_config
from thalweg.optim.define import optimizer

__all__ = ["__version__", "explain", "optimizer", "schedules", "show_config"]
