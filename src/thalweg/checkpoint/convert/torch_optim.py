"""torch.optim, and thalweg.optim, whose state dicts have the same layout but for dtypes."""

from thalweg.checkpoint.convert.library import Layout, Library, Saved, same
from thalweg.optim.catalogue import classes
from thalweg.optim.optimizer import MODES

STATES = {
    "SGD": ("momentum_buffer",),
    "Adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
}
