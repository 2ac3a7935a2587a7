"""Private parts of torch: found where they are, and done without where they are not."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import thalweg
from thalweg.engine import torch_internals
from thalweg.engine.torch_internals import native
from thalweg.engine.torch_internals.parts import looked_for

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
    monkeypatch.setattr(native, "exported_functions", lambda: None)
    assert getattr(native, part).__wrapped__() is None


def test_no_function_is_looked_for_when_switched_off(monkeypatch) -> None:
    found = native.exported_functions.__wrapped__
    monkeypatch.setenv("THALWEG_NATIVE", "0")
    assert found() is None


def test_a_missing_symbol_is_told(monkeypatch) -> None:
    places = {**native._EXPORTED, "dim": ("torch_cpu", "no_such_symbol")}
    monkeypatch.setattr(native, "_EXPORTED", places)
    assert native.exported_functions.__wrapped__() is None


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


LOSSES = """
import sys
import torch

kept = {}
for part in sys.argv[1:]:  # torch itself does not do without: hidden from thalweg alone
    holder = torch
    *path, name = part.split(".")
    for each in path:
        holder = getattr(holder, each)
    kept[name] = holder, getattr(holder, name)
    delattr(holder, name)
import thalweg
from thalweg import losses, optim
from thalweg.engine import torch_internals
from thalweg.optim.state_dict import loading
from thalweg.range_test.unchanged import unchanged

for name, (holder, value) in kept.items():
    setattr(holder, name, value)
x = torch.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()
y, classes = torch.zeros(3, 4), torch.tensor([0, 3, 1])
for loss, target in ((losses.mse_loss, y), (losses.cross_entropy, classes)):
    value = loss(x, target)
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    print(value.item(), first.tolist(), second.tolist())
    print(torch.func.grad(loss)(x.detach(), target).tolist())
    with torch.autocast("cpu"):
        print(loss(x.bfloat16(), target).dtype)
    tangent = torch.func.jvp(lambda x: loss(x, target), (x.detach(),), (torch.ones(3, 4),))
    print([t.item() for t in tangent])
p = torch.nn.Parameter(torch.ones(4))
optimizer = optim.Adam([p], lr=0.1)
for _ in range(3):
    p.grad = torch.ones(4)
    optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
with unchanged(torch.nn.ParameterList([p]), optimizer):
    p.grad = torch.ones(4)
    optimizer.step()
print(p.tolist(), torch.is_grad_enabled(), torch.is_inference_mode_enabled())
"""


def printed(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, (arguments, found.stderr)
    return found.stdout


@pytest.mark.slow
def test_the_step_is_the_same_without_any_of_them() -> None:
    assert len({printed(STEPS, part) for part in ["nothing", *PARTS]}) == 1


def found_parts() -> list[str]:
    """What is looked for by name and is private: what stands in for it is public."""
    return sorted(name for name in looked_for if "_" in {each[0] for each in name.split(".")})


@pytest.mark.slow
def test_losses_and_steps_are_the_same_without_any_of_torchs_parts() -> None:
    expected = printed(LOSSES)
    parts = found_parts()
    assert len(parts) > 8
    for without in [*([part] for part in parts), parts]:
        assert printed(LOSSES, *without) == expected, without


def private_parts(source: str) -> Iterable[str]:
    """Private names of torch in a source: ``torch._C``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            names, inner = [node.attr], node.value
            while isinstance(inner, ast.Attribute):
                names.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id == "torch" and "__" not in node.attr:
                yield ".".join(["torch", *reversed(names)])


def test_a_private_part_is_found() -> None:
    assert list(private_parts("torch.autograd._enabled(torch.ones(1)._version)")) == [
        "torch.autograd._enabled"
    ]


# Documented as what lists of tensors are for, or the bases of torch's modules.
KNOWN = {
    *("torch._foreach_copy_", "torch._foreach_mul_", "torch._foreach_norm"),
    *("torch.nn.modules.loss._Loss", "torch.nn.modules.loss._WeightedLoss"),
}


def test_private_parts_of_torch_are_touched_in_one_place() -> None:
    root = Path(thalweg.__file__).parent
    found = {
        (str(path.relative_to(root)), name)
        for path in root.rglob("*.py")
        if path.parent.name != "torch_internals" and "torch." in (source := path.read_text())
        for name in private_parts(source)
    }
    assert {each for each in found if each[1] not in KNOWN} == set()
