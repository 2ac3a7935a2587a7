"""Transforms: what can be put around the rule of any optimizer.

A transform is a function from rule to rule, with the states, options and ranges that it brings. It
becomes part of the optimizer's kernel:

>>> import torch
>>> from thalweg import optim
>>> from thalweg.transforms import averaged, decoupled_decay
>>> p = torch.nn.Parameter(torch.ones(2))
>>> p.grad = torch.zeros(2)
>>> optimizer = optim.Rprop([p], lr=0.5, transforms=[decoupled_decay(0.5), averaged(0.9)])
>>> optimizer.step()
>>> p.tolist(), optimizer.param_groups[0]["weight_decay"], optimizer.state[p]["average"].tolist()
([0.75, 0.75], 0.5, [0.75, 0.75])

Each wraps what stands before it in the list. Their options stand in the parameter groups like the
optimizer's own: groups may differ in them, ``ScheduledHyperparameters`` schedules them, and state
dicts carry them, with the states. A transform of your own is a ``Transform(wrap, ...)``.
"""

from thalweg.rule.transforms import Transform, transformed
from thalweg.rule.update import followed, update_of
from thalweg.transforms.adaptive_clipping import adaptive_clipping
from thalweg.transforms.ahead import ema_nesterov
from thalweg.transforms.average import averaged
from thalweg.transforms.caution import cautious, cautious_decay
from thalweg.transforms.centralization import centralized
from thalweg.transforms.clipping import clip_by_norm, clip_by_value
from thalweg.transforms.decays import corrected_decay, independent_decay, l1_decay
from thalweg.transforms.decoupled import decoupled_decay
from thalweg.transforms.l2 import l2_decay
from thalweg.transforms.lookahead import lookahead
from thalweg.transforms.maximize import maximized
from thalweg.transforms.norm_control import hyperball, trust_ratio, update_floor
from thalweg.transforms.norm_growth import norm_growth_limited
from thalweg.transforms.outer import outer_nesterov
from thalweg.transforms.recent_norms import clip_by_quantile
from thalweg.transforms.slow_gradients import grokfast
from thalweg.transforms.switchable import switchable_decay

__all__ = [
    "Transform",
    "adaptive_clipping",
    "averaged",
    "cautious",
    "cautious_decay",
    "centralized",
    "clip_by_norm",
    "clip_by_quantile",
    "clip_by_value",
    "corrected_decay",
    "decoupled_decay",
    "ema_nesterov",
    "followed",
    "grokfast",
    "hyperball",
    "independent_decay",
    "l1_decay",
    "l2_decay",
    "lookahead",
    "maximized",
    "norm_growth_limited",
    "outer_nesterov",
    "switchable_decay",
    "transformed",
    "trust_ratio",
    "update_floor",
    "update_of",
]
