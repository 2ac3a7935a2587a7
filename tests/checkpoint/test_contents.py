"""What is said to be in a file is what was put there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from thalweg import checkpoint, optim
from thalweg.checkpoint.contents import leaves
from thalweg.checkpoint.entries import Contents, Part, Stored
from thalweg.optim import lr_scheduler

OPTIMIZERS = {
    "SGD": dict(lr=0.1, momentum=0.9), "Adam": {}, "AdamW": dict(amsgrad=True), "Adamax": {},
    "NAdam": {}, "RAdam": {}, "Adagrad": {}, "Adadelta": {}, "RMSprop": dict(centered=True),
    "Rprop": {}, "ASGD": {}, "LBFGS": {},
}  # fmt: skip


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3)
    return nn.Sequential(*layers)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def closure() -> float:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return float(loss.detach())

    for _ in range(steps):
        optimizer.step(closure)


def part(contents: Contents, name: str) -> Part:
    (found,) = [each for each in contents.parts if each.name == name]
    return found


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, nn.Module, torch.optim.Optimizer]:
    model = network()
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = optim.AdamW([{"params": weights}, {"params": others, "weight_decay": 0.0}])
    scheduler = lr_scheduler.StepLR(optimizer, 10)
    step(model, optimizer, 3)
    path = checkpoint.save(
        tmp_path / "a.safetensors", model=model, optimizer=optimizer, scheduler=scheduler, step=3
    )
    return path, model, optimizer


def test_every_tensor_is_told_under_its_name_in_the_file(run: Any) -> None:
    path, model, _ = run
    contents = checkpoint.inspect(path)
    told = {tensor.name: tensor for each in contents.parts for tensor in each.tensors}
    found = safetensors.torch.load_file(path)
    assert told.keys() == found.keys()
    for name, tensor in found.items():
        assert told[name].shape == tuple(tensor.shape)
        assert told[name].dtype == str(tensor.dtype).removeprefix("torch.")
        assert told[name].bytes == tensor.nbytes
        if tensor.is_floating_point():
            assert told[name].numbers.rms == pytest.approx(
                float(tensor.double().square().mean().sqrt()), rel=1e-6
            )
        if not tensor.ndim:
            assert told[name].value == tensor.item()
    assert list(told)[: len(model.state_dict())] == [f"model/{key}" for key in model.state_dict()]
    assert contents.nonfinite == ()
    assert (contents.format, contents.checked, contents.size) == (
        "thalweg", True, path.stat().st_size,
    )  # fmt: skip
    assert contents.saved is not None
    assert contents.versions["torch"] == torch.__version__


def test_parts_and_their_kinds_and_values(run: Any) -> None:
    path, model, _ = run
    contents = checkpoint.inspect(path)
    assert [(each.name, each.kind) for each in contents.parts] == [
        ("model", "module"), ("optimizer", "optimizer"), ("scheduler", "object"),
        ("step", "data"), ("_random_state", "random state"),
    ]  # fmt: skip
    assert [(each.name, each.value) for each in part(contents, "step").values] == [("step", 3)]
    scheduler = {each.name: each.value for each in part(contents, "scheduler").values}
    assert scheduler["scheduler/step_size"] == 10
    own = part(contents, "model")
    assert own.elements == sum(tensor.numel() for tensor in model.state_dict().values())
    assert own.bytes == sum(tensor.nbytes for tensor in model.state_dict().values())
    assert own.dtypes == {"float32": own.bytes - 8, "int64": 8}


def test_an_optimizer_is_told_by_parameter(run: Any) -> None:
    path, model, optimizer = run
    found = part(checkpoint.inspect(path), "optimizer").optimizer
    assert found is not None
    assert (found.made_by, found.by_name, found.steps) == ("AdamW", True, (3, 3))
    assert [group["weight_decay"] for group in found.groups] == [0.01, 0.0]
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert {p.name: p.shape for p in found.parameters} == shapes
    for p in found.parameters:
        assert p.group == (len(p.shape or ()) == 1)
        assert list(p.states) == ["step", "exp_avg", "exp_avg_sq"]
        (exp_avg,) = p.states["exp_avg"]
        own = optimizer.state[model.get_parameter(p.name)]["exp_avg"]
        assert isinstance(exp_avg, Stored)
        assert exp_avg.numbers.rms == pytest.approx(float(own.square().mean().sqrt()), rel=1e-5)


@pytest.mark.parametrize("names", [True, False], ids=["named", "numbered"])
@pytest.mark.parametrize("library", [optim, torch.optim], ids=["thalweg", "torch"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_saved_by_torch_is_told(
    name: str, library: Any, names: bool, tmp_path: Path
) -> None:
    model = network()
    parameters = model.named_parameters() if names else model.parameters()
    optimizer = getattr(library, name)(parameters, **OPTIMIZERS[name])
    step(model, optimizer, 2)
    torch.save(optimizer.state_dict(), tmp_path / "a.pt")
    contents = checkpoint.inspect(tmp_path / "a.pt")
    assert (contents.format, contents.checked, contents.saved) == ("torch.save", False, None)
    (only,) = contents.parts
    found = only.optimizer
    assert found is not None
    named = [key for key, _ in model.named_parameters()]
    assert [p.name for p in found.parameters] == (
        named if names else [f"{i}" for i in range(len(named))]
    )
    for p, own in zip(found.parameters, model.parameters(), strict=True):
        assert p.states.keys() == optimizer.state.get(own, {}).keys()
        if name not in ("LBFGS",):
            assert p.shape == tuple(own.shape)
    steps = {"SGD": None, "LBFGS": None}.get(name, (2, 2))
    assert found.steps == steps
    lost = {"lr": optimizer.param_groups[0]["lr"]}
    assert {key: found.groups[0][key] for key in lost} == lost


PLACES = {
    "parameter": lambda m, o, d: m[0].weight.data.view(-1)[5:7].fill_(math.nan),
    "buffer": lambda m, o, d: m[1].running_var.fill_(math.inf),
    "state": lambda m, o, d: o.state[m[3].weight]["exp_avg_sq"].view(-1)[-1:].fill_(-math.inf),
    "plain tensor": lambda m, o, d: d["x"][0].fill_(math.nan),
    "array": lambda m, o, d: d["array"].fill(math.nan),
    "value": lambda m, o, d: d.update(loss=math.nan),
    "option": lambda m, o, d: o.param_groups[0].update(lr=math.nan),
}
NAMES = {
    "parameter": ("model/0.weight", 2),
    "buffer": ("model/1.running_var", 4),
    "state": ("optimizer/state/3.weight/exp_avg_sq", 1),
    "plain tensor": ("data/x/0", 3),
    "array": ("data/array", 2),
    "value": ("data/loss", 1),
    "option": ("optimizer/param_groups/0/lr", 1),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_finite_is_named_wherever_it_is(place: str, tmp_path: Path) -> None:
    model = network()
    optimizer = optim.Adam(model.parameters())
    step(model, optimizer)
    data: dict[str, Any] = {"x": [torch.ones(3)], "array": np.ones(2), "best": math.inf}
    PLACES[place](model, optimizer, data)
    path = checkpoint.save(tmp_path / "a", model=model, optimizer=optimizer, data=data)
    found = checkpoint.inspect(path).nonfinite
    assert [(entry.name, entry.nonfinite) for entry in found] == [NAMES[place]]


def test_memory_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    path = checkpoint.save(tmp_path / "a", model=model)
    torch.save({"model": model.state_dict()}, tmp_path / "b.pt")
    for each in (path, tmp_path / "b.pt"):
        own = part(checkpoint.inspect(each), "model")
        assert [tensor.same_as for tensor in own.tensors] == [None, None, "model/0.weight", None]
        assert (own.elements, own.bytes, own.dtypes) == (24, 96, {"float32": 96})


def test_all_that_can_be_saved_can_be_told(tmp_path: Path) -> None:
    data = {
        "complex": torch.ones(3, dtype=torch.complex64),
        "eight": torch.ones(2).to(torch.float8_e5m2),
        "empty": torch.zeros(0, 3), "array": np.arange(6).reshape(2, 3), 5: {"deep": [{"x": 1}]},
        "none": None, "tuple": (1, (2, math.inf)), "set": {1, 2}, "bytes": b"abc", "nothing": {},
        "dtype": torch.bfloat16, "complex number": complex(math.nan, 1), "huge": 10**5000,
        ("a", 1): "tuple as key",
    }  # fmt: skip
    contents = checkpoint.inspect(checkpoint.save(tmp_path / "a", rng=False, data=data))
    (own,) = contents.parts
    assert {tensor.name: (tensor.dtype, tensor.shape) for tensor in own.tensors} == {
        "data/complex": ("complex64", (3,)),
        "data/eight": ("float8_e5m2", (2,)),
        "data/empty": ("float32", (0, 3)),
        "data/array": ("int64", (2, 3)),
    }
    assert {each.name: each.value for each in own.values if not each.nonfinite} == {
        "data/5/deep/0/x": 1, "data/none": None, "data/tuple": (1, (2, math.inf)),
        "data/set": {1, 2}, "data/bytes": b"abc", "data/nothing": {},
        "data/huge": 10**5000, "data/dtype": torch.bfloat16, "data/('a', 1)": "tuple as key",
    }  # fmt: skip
    assert [entry.name for entry in contents.nonfinite] == ["data/complex number"]
    json.dumps(contents.to_dict(), allow_nan=False)


def test_sparse_tensors_of_torch_are_told(tmp_path: Path) -> None:
    x = torch.sparse_coo_tensor(
        torch.tensor([[1, 3]]), torch.tensor([1.0, math.nan]), (5,), check_invariants=True
    )
    torch.save({"model": {"x": x}}, tmp_path / "a.pt")
    (tensor,) = checkpoint.inspect(tmp_path / "a.pt").parts[0].tensors
    assert (tensor.dtype, tensor.shape, tensor.nonfinite) == ("float32 sparse_coo of 2", (5,), 1)
    assert tensor.bytes == 2 * 8 + 2 * 4


def test_layers_of_a_plain_file_come_in_their_order(tmp_path: Path) -> None:
    names = [f"layers.{i}.weight" for i in range(12)]
    safetensors.torch.save_file({n: torch.ones(1) for n in reversed(names)}, tmp_path / "a")
    contents = checkpoint.inspect(tmp_path / "a")
    assert contents.format == "safetensors"
    assert [tensor.name for tensor in contents.parts[0].tensors] == [f"model/{n}" for n in names]


def test_an_optimizer_without_its_form_is_shown_as_data(tmp_path: Path) -> None:
    torch.save({"optimizer": {"state": {0: {}}, "param_groups": [{"lr": 1.0}]}}, tmp_path / "a.pt")
    (own,) = checkpoint.inspect(tmp_path / "a.pt").parts
    assert (own.kind, own.optimizer) == ("data", None)
    assert {each.name: each.value for each in own.values} == {
        "optimizer/state/0": {}, "optimizer/param_groups/0/lr": 1.0,
    }  # fmt: skip


def test_what_is_not_there_or_broken_is_an_error(run: Any, tmp_path: Path) -> None:
    path, _, _ = run
    with pytest.raises(FileNotFoundError):
        checkpoint.inspect(tmp_path / "none")
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)
    with pytest.raises(checkpoint.CheckpointError, match="has digest"):
        checkpoint.inspect(path)
    path.write_bytes(data[:100])
    with pytest.raises(checkpoint.CheckpointError, match="truncated"):
        checkpoint.inspect(path)


def test_json_holds_all_of_it(run: Any) -> None:
    path, _, _ = run
    contents = checkpoint.inspect(path)
    data = json.loads(json.dumps(contents.to_dict(), allow_nan=False))
    assert data["path"] == str(path)
    assert data["nonfinite"] == []
    for found, own in zip(data["parts"], contents.parts, strict=True):
        assert [each["name"] for each in found["tensors"]] == [each.name for each in own.tensors]
        assert [each["name"] for each in found["values"]] == [each.name for each in own.values]
    optimizer = data["parts"][1]["optimizer"]
    assert (optimizer["class"], optimizer["steps"]) == ("AdamW", [3, 3])
    assert optimizer["parameters"][0]["states"]["exp_avg"] == ["optimizer/state/0.weight/exp_avg"]


def test_progress_is_told_up_to_the_end(run: Any) -> None:
    path, _, _ = run
    told: list[tuple[float, str]] = []
    checkpoint.inspect(path, lambda *arguments: told.append(arguments))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert 0 == fractions[0] < fractions[-1] <= 1
    assert {what for _, what in told} == {"model", "optimizer", "_random_state"}


def test_leaves_make_up_the_whole() -> None:
    data = {"a": [1, {"b": torch.ones(1)}, [2, 3]], "c": (), "d": [[1.0], [torch.ones(1)]]}
    found = dict(leaves(data))
    assert list(found) == [("a", 0), ("a", 1, "b"), ("a", 2), ("c",), ("d", 0), ("d", 1, 0)]
    assert found["a", 2] == [2, 3]
