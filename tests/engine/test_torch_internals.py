"""Private parts of torch: found where they are, and done without where they are not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from thalweg.engine import torch_internals

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere symbols may be hidden")
PARTS = [
    "exported_functions",
    "undefined_impl",
    "impl_offset",
    "list_layout",
    "impl_layout",
    "plain_keys",
]


@on_linux
@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_found(part: str) -> None:
    assert getattr(torch_internals, part)() is not None, "then Python asks, one by one"


@pytest.mark.parametrize("part", PARTS[1:])
def test_a_part_needs_the_functions(part: str, monkeypatch) -> None:
    monkeypatch.setattr(torch_internals, "exported_functions", lambda: None)
    assert getattr(torch_internals, part).__wrapped__() is None


def test_no_function_is_looked_for_when_switched_off(monkeypatch) -> None:
    found = torch_internals.exported_functions.__wrapped__
    monkeypatch.setenv("THALWEG_NATIVE", "0")
    assert found() is None


def test_a_missing_symbol_is_told(monkeypatch) -> None:
    places = {**torch_internals._EXPORTED, "dim": ("torch_cpu", "no_such_symbol")}
    monkeypatch.setattr(torch_internals, "_EXPORTED", places)
    assert torch_internals.exported_functions.__wrapped__() is None


STEPS = """
import sys
import torch
import thalweg.optim as optim
from thalweg.engine import torch_internals

if sys.argv[1] != "nothing":
    setattr(torch_internals, sys.argv[1], lambda: None)
torch.manual_seed(0)
params = [torch.nn.Parameter(torch.randn(5)) for _ in range(20)]
optimizer = optim.AdamW(params, lr=0.1)
for step in range(4):
    for k, p in enumerate(params):
        p.grad = None if step == 2 and k == 3 else torch.randn(5)
    if step == 3:
        params[0].data = torch.ones(5)
    optimizer.step()
assert {c.backend for c in optimizer._engine.choices.values()} == {"cpu"}
print([p.tolist() for p in params])
"""


@pytest.mark.slow
def test_the_step_is_the_same_without_any_of_them() -> None:
    def printed(part: str) -> str:
        command = [sys.executable, "-c", STEPS, part]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert len({printed(part) for part in ["nothing", *PARTS]}) == 1
