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

from thalweg.checkpoint.container import CheckpointError
from thalweg.checkpoint.convert import convert
from thalweg.checkpoint.latest import latest
from thalweg.checkpoint.load import Loaded, load, read
from thalweg.checkpoint.save import save
from thalweg.optim.state_dict import LoadReport

__all__ = [
    "CheckpointError",
    "LoadReport",
    "Loaded",
    "convert",
    "latest",
    "load",
    "read",
    "save",
]
