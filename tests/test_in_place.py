"""``thalweg.install()``: a script that cannot be changed runs with this library's classes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import thalweg
from thalweg import optim

SCRIPT = """
import sys
import thalweg
if "install" in sys.argv:
    thalweg.install()
    thalweg.install()

import torch
from torch.optim import SGD, AdamW, Muon, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.optim.swa_utils import SWALR, AveragedModel

class Own(Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.5})

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= group["lr"] * p.grad

model = torch.nn.Linear(2, 2, bias=False)
torch.nn.init.ones_(model.weight)
average = AveragedModel(model)
optimizers = [AdamW(model.parameters(), lr=0.5), SGD(model.parameters(), lr=0.25, momentum=0.5)]
optimizers += [torch.optim.Adam(model.parameters()), Own(model.parameters())]
optimizers += [Muon(model.parameters())]
schedulers = [OneCycleLR(optimizers[0], 0.5, total_steps=5), SWALR(optimizers[1], swa_lr=0.125)]
for _ in range(3):
    for optimizer in optimizers:
        assert isinstance(optimizer, Optimizer)
        assert isinstance(optimizer, torch.optim.Optimizer)
        optimizer.zero_grad()
        model(torch.ones(1, 2)).square().sum().backward()
        optimizer.step()
    for scheduler in schedulers:
        assert isinstance(scheduler, LRScheduler)
        scheduler.step()
    average.update_parameters(model)
print(*(type(each).__module__.split(".")[0] for each in (*optimizers, *schedulers, average)))
print(*average.module.weight.flatten().tolist())
"""


def run(*arguments: str) -> tuple[list[str], list[float]]:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True
    )
    modules, numbers = found.stdout.splitlines()
    return modules.split(), [float(number) for number in numbers.split()]


def test_a_script_runs_with_classes_of_this_library() -> None:
    torchs, expected = run()
    ours, found = run("install")
    assert torchs == ["torch", "torch", "torch", "__main__", "torch", "torch", "torch", "torch"]
    assert [*ours[:3], *ours[5:]] == ["thalweg"] * 6
    assert ours[3:5] == ["__main__", "torch"], "an own class, and one that torch alone has"
    assert found == pytest.approx(expected, rel=1e-4)


def test_uninstall_puts_everything_back() -> None:
    modules = (torch.optim, torch.optim.lr_scheduler, torch.optim.swa_utils)
    before = [dict(vars(module)) for module in modules]
    thalweg.install()
    try:
        assert torch.optim.Adam is optim.Adam
        assert sys.modules["torch.optim.adam"].Adam is optim.Adam
        # What torch has made, and what derives from torch's, is still told by the base classes.
        assert issubclass(torch.optim.Muon, torch.optim.Optimizer)
        assert set(torch.optim.__all__) <= set(dir(torch.optim))
    finally:
        thalweg.uninstall()
    assert [dict(vars(module)) for module in modules] == before
    thalweg.uninstall()
    assert [dict(vars(module)) for module in modules] == before


def test_every_name_of_torchs_module_is_there() -> None:
    for name in (*torch.optim.__all__, "_functional"):
        assert hasattr(optim, name), name
    with pytest.raises(AttributeError, match="Adamm"):
        _ = optim.Adamm
