"""Ours where it is the point: no method of torch's schedulers is used."""

import ast
import inspect
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch

from thalweg.optim import lr_scheduler

FOLDER = Path(inspect.getfile(lr_scheduler)).parent
CLASSES = [getattr(lr_scheduler, name) for name in lr_scheduler.__all__]

# What the code names of torch's module: what it inherits from, or asks isinstance of.
ALLOWED = set(torch.optim.lr_scheduler.__all__) | {"EPOCH_DEPRECATION_WARNING"}


def theirs(cls: Any) -> Any:
    """torch's class of the same name, or None."""
    module = torch.optim.swa_utils if cls.__name__ == "SWALR" else torch.optim.lr_scheduler
    return getattr(module, cls.__name__, None)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_method_is_ours(cls: Any) -> None:
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        function = found.fget if isinstance(found, property) else found
        if isinstance(function, FunctionType) and hasattr(torch.optim.lr_scheduler, cls.__name__):
            # Private helpers of torch's that nothing of ours calls do no harm.
            private = name.startswith("_") and not hasattr(object, name)
            if function.__module__.startswith("torch") and private:
                assert name not in "".join(p.read_text("utf-8") for p in FOLDER.glob("*.py")), name
            else:
                assert not function.__module__.startswith("torch"), name


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_torchs_module_is_named_for_its_classes_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "torchs":
            assert node.attr in ALLOWED
        if isinstance(node, ast.Attribute) and node.attr == "lr_scheduler":
            raise AssertionError(f"{path.name}:{node.lineno} reaches for torch's module")


@pytest.mark.parametrize("cls", [c for c in CLASSES if theirs(c)], ids=lambda cls: cls.__name__)
def test_each_is_one_of_torchs(cls: Any) -> None:
    """Trainers look for some of them with isinstance."""
    assert issubclass(cls, theirs(cls))


def test_every_scheduler_of_torch_is_there() -> None:
    names = ALLOWED | {"SWALR", "_LRScheduler"}
    assert {name for name in names if not hasattr(lr_scheduler, name)} == set()


@pytest.mark.parametrize("cls", [c for c in CLASSES if theirs(c)], ids=lambda cls: cls.__name__)
def test_signatures_are_torchs(cls: Any) -> None:
    own, other = (
        [(p.name, p.kind, p.default) for p in inspect.signature(c).parameters.values()]
        for c in (cls, theirs(cls))
    )
    assert own == other
