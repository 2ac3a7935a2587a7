"""Saving: the parts as nested data, in one file."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from thalweg.checkpoint import random_state
from thalweg.checkpoint.container import write
from thalweg.checkpoint.header import RANDOM_STATE
from thalweg.checkpoint.parts import data_of, kind_of
from thalweg.ranges import flag

RESERVED = ("rng", "strict", "rename")  # arguments of save and load


def save(path: str | os.PathLike[str], /, *, rng: bool = True, **parts: Any) -> Path:
    """Save models, optimizers and all else that a run needs to go on, in one file.

    The file takes the path's place when it is safe on the disk; until then, and if anything goes
    wrong, what was there stays. It is a safetensors file that holds no code, and a digest of
    everything in it.

    Optimizers are saved under the names of their parameters: their own (``named_parameters()``),
    or those of the first module in this call that holds all of them. Memory that several names
    stand for, as of tied weights, is written once. Of tensors that are not on the CPU or not
    contiguous a copy is made, of one at a time; nothing may change them meanwhile.

    Args:
        path: of the file, by custom ``*.safetensors``; missing folders are made.
        rng: also save the states of the generators that programs share: Python's ``random``,
            NumPy's global one, torch's of the CPU, and of CUDA where it is in use.
        parts: the parts by name: anything with ``state_dict`` and ``load_state_dict`` (modules,
            optimizers, schedulers, averages), ``torch.Generator``, or plain data: None, numbers,
            strings, bytes, tensors, NumPy arrays, and lists, tuples, dicts and sets of such, nested
            up to 64 levels. NumPy's scalars are saved as Python's.

    Returns:
        The path.

    Raises:
        TypeError: something cannot be saved; the message tells where it is.
        ValueError: no parts, a name that cannot be used, or more than 100 MB of plain data.
        OSError: the file cannot be written.

    >>> import tempfile, torch
    >>> from thalweg import checkpoint, optim
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = optim.AdamW(model.parameters())
    >>> folder = tempfile.mkdtemp()
    >>> path = checkpoint.save(f"{folder}/a.safetensors", model=model, optimizer=optimizer, step=10)
    >>> checkpoint.load(path, model=model, optimizer=optimizer)["step"]
    10
    """
    flag("save", "rng", rng)
    if not parts:
        raise ValueError("save: there is nothing to save; give parts, such as model=model")
    check_names("save", parts)
    data = {name: data_of(part, parts) for name, part in parts.items()}
    kinds = {name: kind_of(part) for name, part in parts.items()}
    if rng:
        data[RANDOM_STATE] = random_state.capture()
    return write(path, data, kinds)


def check_names(owner: str, names: Iterable[str]) -> None:
    """Raise ValueError for what cannot be a part's name."""
    for name in names:
        if not name or "/" in name or name[0] in "$_" or name in RESERVED:
            raise ValueError(
                f"{owner}: a part's name must not be empty, hold '/', begin with '$' or '_', or be "
                f"one of {', '.join(RESERVED)}; got {name!r}"
            )
