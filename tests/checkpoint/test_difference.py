"""What differs between two files is what was changed between them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from thalweg import checkpoint, optim
from thalweg.checkpoint.difference import Difference

Parts = dict[str, Any]


def parts() -> Parts:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = optim.AdamW(model.named_parameters(), lr=0.1)
    model(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()
    return {
        "model": model, "optimizer": optimizer, "step": 1, "loss": math.nan,
        "data": {"names": ["a", "b"], "x": torch.ones(3), "zero": torch.zeros(2)},
    }  # fmt: skip


def found(folder: Path, a: Parts, b: Parts) -> Difference:
    """The difference of two files, which told the other way round must be the same."""
    paths = [checkpoint.save(folder / name, rng=False, **p) for name, p in (("a", a), ("b", b))]
    result, back = checkpoint.diff(*paths), checkpoint.diff(*reversed(paths))
    assert (result.only_a, result.only_b, result.same) == (back.only_b, back.only_a, back.same)
    assert [each.name for each in result.tensors] == [each.name for each in back.tensors]
    assert {(each.name, repr(each.a), repr(each.b)) for each in result.values} == {
        (each.name, repr(each.b), repr(each.a)) for each in back.values
    }
    json.dumps(result.to_dict(), allow_nan=False)
    return result


def told(result: Difference) -> dict[str, list[str]]:
    """The names of all that differs, by what is different."""
    kinds = ("only_a", "only_b", "forms", "tensors", "values")
    names = {kind: [each.name for each in getattr(result, kind)] for kind in kinds}
    return {kind: each for kind, each in names.items() if each}


def test_what_was_saved_twice_is_the_same(tmp_path: Path) -> None:
    result = found(tmp_path, parts(), parts())
    assert result.identical
    assert told(result) == {}
    contents = checkpoint.inspect(tmp_path / "a")
    tensors = sum(len(each.tensors) for each in contents.parts)
    assert result.same > tensors == 9 + 3 * 6 + 2
    assert checkpoint.diff(tmp_path / "a", tmp_path / "a").identical


def set_element(tensor: Callable[[Parts], Tensor], value: float) -> Callable[[Parts], Any]:
    return lambda p: tensor(p).data.view(-1)[1:2].fill_(value)


CHANGES: dict[str, tuple[Callable[[Parts], Any], dict[str, list[str]]]] = {
    "parameter": (
        set_element(lambda p: p["model"][0].weight, 9.0), {"tensors": ["model/0.weight"]},
    ),
    "NaN": (
        set_element(lambda p: p["model"][0].weight, math.nan), {"tensors": ["model/0.weight"]},
    ),
    "sign of zero": (lambda p: p["data"]["zero"].neg_(), {"tensors": ["data/zero"]}),
    "state": (
        set_element(lambda p: p["optimizer"].state[p["model"][2].bias]["exp_avg"], 9.0),
        {"tensors": ["optimizer/state/2.bias/exp_avg"]},
    ),
    "step": (
        lambda p: p["optimizer"].state[p["model"][2].bias]["step"].add_(1),
        {"tensors": ["optimizer/state/2.bias/step"]},
    ),
    "option": (
        lambda p: p["optimizer"].param_groups[0].update(lr=0.2),
        {"values": ["optimizer/param_groups/0/lr"]},
    ),
    "value": (lambda p: p.update(step=2), {"values": ["step"]}),
    "type of a value": (lambda p: p.update(step=1.0), {"values": ["step"]}),
    "list": (lambda p: p["data"]["names"].append("c"), {"values": ["data/names"]}),
    "shape": (lambda p: p["data"].update(x=torch.ones(4)), {"forms": ["data/x"]}),
    "dtype": (lambda p: p["data"].update(x=torch.ones(3).double()), {"forms": ["data/x"]}),
    "tensor to list": (lambda p: p["data"].update(x=[1.0, 1.0, 1.0]), {"forms": ["data/x"]}),
    "entry gone": (lambda p: p["data"].pop("x"), {"only_a": ["data/x"]}),
    "part gone": (lambda p: p.pop("data"), {"only_a": ["data"]}),
    "part new": (lambda p: p.update(new={"a": 1, "b": 2}), {"only_b": ["new"]}),
    "states gone": (
        lambda p: p["optimizer"].state.pop(p["model"][2].bias),
        {"only_a": ["optimizer/state/2.bias"]},
    ),
    "order of a dict": (
        lambda p: p.update(data={key: p["data"][key] for key in ("zero", "x", "names")}), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_told_alone(change: str, tmp_path: Path) -> None:
    a, b = parts(), parts()
    alter, expected = CHANGES[change]
    alter(b)
    assert told(found(tmp_path, a, b)) == expected


def test_tensors_of_one_number_tell_it(tmp_path: Path) -> None:
    a, b = parts(), parts()
    b["optimizer"].state[b["model"][0].bias]["step"].fill_(7)
    (each,) = found(tmp_path, a, b).tensors
    assert (each.a, each.b, each.elements, each.changed.largest) == (1.0, 7.0, 1, 6.0)


def test_parameters_go_by_name_in_any_order_and_grouping(tmp_path: Path) -> None:
    a, b = parts(), parts()
    own, old = b["model"], b["optimizer"]
    names = dict(reversed(list(own.named_parameters())))
    b["optimizer"] = optim.AdamW(
        [{"params": list(names.items())[:2]}, {"params": list(names.items())[2:]}], lr=0.1
    )
    for p in own.parameters():
        b["optimizer"].state[p] = old.state[p]
    assert told(found(tmp_path, a, b)) == {
        "only_b": ["optimizer/param_groups/1"],
        "values": [
            f"optimizer/group/{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias")
        ],
    }


def test_numbers_are_compared_with_names_in_their_order(tmp_path: Path) -> None:
    p = parts()
    path = checkpoint.save(tmp_path / "a", rng=False, optimizer=p["optimizer"])
    for group in (saved := p["optimizer"].state_dict())["param_groups"]:
        del group["param_names"]
    torch.save(saved, tmp_path / "b.pt")
    result = checkpoint.diff(path, tmp_path / "b.pt")
    assert result.by_order == ("optimizer",)
    assert told(result) == {"only_a": ["optimizer/class", "optimizer/shapes"]}
    saved["state"][0]["exp_avg"][0] = 9.0
    torch.save(saved, tmp_path / "b.pt")
    (each,) = checkpoint.diff(tmp_path / "b.pt", path).tensors
    assert each.name == "optimizer/state/0.weight/exp_avg"


def test_names_that_come_twice_hide_nothing(tmp_path: Path) -> None:
    for name, last in (("a", 1.0), ("b", 2.0)):
        states = {i: {"sum": torch.full((2,), value)} for i, value in enumerate((last, 3.0))}
        group = {"params": [0, 1], "param_names": ["same", "same"], "lr": 1.0}
        torch.save({"state": states, "param_groups": [group]}, tmp_path / name)
    (each,) = checkpoint.diff(tmp_path / "a", tmp_path / "b").tensors
    assert each.name == "optimizer/state/0/sum"
    (own,) = checkpoint.inspect(tmp_path / "a").parts
    assert own.optimizer is not None
    assert [(p.name, list(p.states)) for p in own.optimizer.parameters] == [
        ("0", ["sum"]), ("1", ["sum"]),
    ]  # fmt: skip


def test_formats_are_compared_with_each_other(tmp_path: Path) -> None:
    model = parts()["model"]
    ours = checkpoint.save(tmp_path / "a", rng=False, model=model)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "b")
    torch.save(model.state_dict(), tmp_path / "c.pt")
    for other in (tmp_path / "b", tmp_path / "c.pt"):
        assert checkpoint.diff(ours, other).identical


def test_a_broken_file_is_an_error(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "a", model=parts()["model"])
    (tmp_path / "b").write_bytes(path.read_bytes()[:-1])
    with pytest.raises(checkpoint.CheckpointError, match="truncated"):
        checkpoint.diff(path, tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        checkpoint.diff(path, tmp_path / "none")
