"""The learning-rate range test: a short run at growing rates that shows which of them work.

>>> import torch
>>> from thalweg import optim
>>> from thalweg.range_test import lr_find
>>> rows = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
>>> batches = [(x, x.sum(1, keepdim=True)) for x in rows.split(16)]
>>> model = torch.nn.Linear(3, 1)
>>> optimizer = optim.SGD(model.parameters())
>>> found = lr_find(model, batches, optimizer, torch.nn.MSELoss())
>>> 0.01 < found.suggestion < 1
True
"""

from thalweg.range_test.found import LRFound
from thalweg.range_test.run import lr_find, range_test
from thalweg.range_test.unchanged import unchanged

__all__ = ["LRFound", "lr_find", "range_test", "unchanged"]
