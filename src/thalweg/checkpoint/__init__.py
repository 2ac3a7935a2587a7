"""Checkpoints in one file: whole or not there, checked to the last bit, and without pickle.

>>> import tempfile, torch
>>> from thalweg import checkpoint, optim
>>> model = torch.nn.Linear(2, 1)
>>> optimizer = optim.AdamW(model.parameters())
>>> run = tempfile.mkdtemp()
>>> path = checkpoint.save(f"{run}/000.safetensors", model=model, optimizer=optimizer, step=0)
>>> found = checkpoint.load(checkpoint.latest(run), model=model, optimizer=optimizer)
>>> found["step"]
0
"""

from thalweg.checkpoint.contents import inspect
from thalweg.checkpoint.convert import convert
from thalweg.checkpoint.difference import Difference, diff
from thalweg.checkpoint.entries import Contents
from thalweg.checkpoint.header import CheckpointError
from thalweg.checkpoint.latest import latest
from thalweg.checkpoint.load import Loaded, load, read
from thalweg.checkpoint.save import save
from thalweg.optim.state_dict import LoadReport

__all__ = [
    "CheckpointError",
    "Contents",
    "Difference",
    "LoadReport",
    "Loaded",
    "convert",
    "diff",
    "inspect",
    "latest",
    "load",
    "read",
    "save",
]
