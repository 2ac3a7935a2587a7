"""Files that were written otherwise: by ``torch.save``, or as plain safetensors.

Nobody says what their parts are: it is told from what they hold. Files of ``torch.save`` have a sum
of 32 bits (CRC-32) for each tensor, which torch writes but does not look at; it is looked at here.
Those from before torch 1.6, those whose writer was told to leave the sums out
(``torch.serialization.set_crc32_options``) and plain safetensors have nothing of the kind.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from thalweg.checkpoint import torch_file
from thalweg.checkpoint.container import Container, opened_held, plain_tensors
from thalweg.checkpoint.header import DATA, MODULE, OPTIMIZER, broken
from thalweg.files import held

# How torch.save's files begin, the present ones and those before torch 1.6.
_ZIP, _LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF"

# Names under which programs save the same thing.
USUAL = (
    ("model", "model_state_dict", "state_dict", "module", "net"),
    ("optimizer", "optimizer_state_dict", "optim", "optim_state_dict"),
    ("scheduler", "scheduler_state_dict", "lr_scheduler", "lr_scheduler_state_dict"),
    ("step", "global_step", "iteration"),
)


@dataclass(frozen=True)
class Foreign:
    """A file without a header of ours.

    Attributes:
        path: of the file.
        kinds: part: what it is.
        parts: part: its data; tensors are views of the file.
    """

    path: Path
    kinds: dict[str, str]
    parts: dict[str, Any]

    def part(self, name: str) -> Any:
        return self.parts[name]


Source = Container | Foreign


@contextmanager
def opened_any(path: str | os.PathLike[str]) -> Iterator[Source]:
    """Open a file of any kind; a checkpoint of ours with each digest checked.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        CheckpointError: it is none of these files, or damaged.
    """
    target = Path(path)
    with held(target) as name:
        with open(name, "rb") as file:
            start = file.read(len(_LEGACY))
        if start.startswith((_ZIP, _LEGACY)):
            yield _of_torch(target, name, mapped=start != _LEGACY)
            return
        with opened_held(target, name) as container:
            if container is None:
                yield Foreign(target, {"model": MODULE}, {"model": plain_tensors(target, name)})
            else:
                container.check()
                yield container


def _of_torch(path: Path, name: str, mapped: bool) -> Foreign:
    found = torch_file.load(path, name, mapped)
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise broken(
            path,
            f"torch.save wrote a {type(found).__name__} there, no dict of parts and no state dict",
            "save a dict",
        )
    kind = _kind(found)
    parts = {kind: found} if kind == OPTIMIZER else {"model": found} if kind == MODULE else found
    return Foreign(path, {name: _kind(part) for name, part in parts.items()}, dict(parts))


def _kind(data: Any) -> str:
    if not isinstance(data, Mapping) or not data:
        return DATA
    if {"state", "param_groups"} <= data.keys():
        return OPTIMIZER
    return MODULE if all(isinstance(value, Tensor) for value in data.values()) else DATA
