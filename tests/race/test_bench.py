"""Timing steps on a model of one's own: what is timed, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg.race import find
from thalweg.race.bench import SMALL, bench, parameters_of

MODULE = """
import torch
from torch import nn

built = []

def model():
    built.append(1)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(3, 2)).to(torch.bfloat16)
    net[0].to(memory_format=torch.channels_last)
    net[1].bias.requires_grad_(False)
    return net

def table():
    return nn.Sequential(nn.Embedding(64, 3, sparse=True), nn.Linear(3, 2))

def generated():
    return (p for p in [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2) * 1j)])

def one():
    return nn.Parameter(torch.ones(3))

def frozen():
    return nn.Linear(2, 2).requires_grad_(False)

def elsewhere():
    return nn.Linear(2, 2, device="meta")

def nothing():
    return "a model"

def mixed():
    return [torch.ones(2, requires_grad=True), 3]

def failing():
    raise OSError("no weights here")

text = "model"
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "bench_models.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "bench_models", raising=False)


def test_parameters_are_copies_with_the_same_gradients_each_time() -> None:
    make = parameters_of("bench_models:model")
    first, second = make(), make()
    assert sys.modules["bench_models"].built == [1]  # a large model is not built twice
    assert len(first) == 3  # the frozen one takes no part
    for a, b in zip(first, second, strict=True):
        assert a is not b
        assert a.data_ptr() != b.data_ptr()
        assert torch.equal(a, b)
        assert a.grad is not None
        assert a.grad is not b.grad
        assert torch.equal(a.grad, b.grad)  # type: ignore[arg-type]
        assert (a.grad.dtype, a.grad.stride()) == (torch.bfloat16, a.stride())
    assert first[0].is_contiguous(memory_format=torch.channels_last)
    assert not first[0].is_contiguous()


def test_gradients_are_standard_normal_and_depend_on_the_seed() -> None:
    gradients = [p.grad for p in parameters_of(SMALL)()]
    whole = torch.cat([g.flatten() for g in gradients if g is not None])
    assert abs(whole.mean()) < 0.01
    assert abs(whole.std() - 1) < 0.01
    other = parameters_of(SMALL, seed=1)()[0].grad
    assert not torch.equal(gradients[0], other)  # type: ignore[arg-type]


def test_a_sparse_embedding_gets_a_sparse_gradient() -> None:
    weight, *rest = parameters_of("bench_models:table")()
    assert weight.grad is not None
    assert weight.grad.is_sparse
    assert weight.grad.coalesce().indices().shape == (1, 4)
    assert all(p.grad is not None and not p.grad.is_sparse for p in rest)
    sgd, adam = bench(parameters_of("bench_models:table"), [find("sgd"), find("adam")], repeats=1)
    assert sgd.time is not None
    assert adam.time is None
    assert "does not support sparse gradients" in str(adam.failed)


@pytest.mark.parametrize(("name", "count"), [("generated", 2), ("one", 1)])
def test_parameters_without_a_model(name: str, count: int) -> None:
    parameters = parameters_of(f"bench_models:{name}")()
    assert len(parameters) == count
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in parameters)


def test_bench_measures_every_racer_in_turn() -> None:
    told: list[tuple[int, str]] = []
    racers = [find("adamw"), find("torch.optim.SGD"), find("lbfgs")]
    timed = bench(
        parameters_of("bench_models:one"), racers, repeats=2,
        progress=lambda done, name: told.append((done, name)),
    )  # fmt: skip
    assert told == [(0, "AdamW"), (1, "SGD (torch)"), (2, "LBFGS")]
    assert [each.name for each in timed] == ["AdamW", "SGD (torch)", "LBFGS"]
    adamw, theirs, lbfgs = (each.time for each in timed)
    assert adamw is not None
    assert theirs is not None
    assert lbfgs is not None
    assert adamw.own_us > 0
    assert adamw.torch_us is not None
    assert theirs.torch_us is None  # it is torch's
    state = _state_bytes(torch.optim.AdamW)
    assert adamw.state_bytes == pytest.approx((state + 4) / 3, rel=1e-4)  # our count is a float64


def _state_bytes(cls: Any) -> int:
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = cls([p])
    optimizer.step()
    tensors = [v for v in optimizer.state[p].values() if isinstance(v, Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("modle", "did you mean model?"),
        ("text", "must be a function without arguments, got str"),
        ("nothing", "must return a torch.nn.Module or its parameters, got str"),
        ("mixed", "must return a torch.nn.Module or its parameters, got int"),
        ("frozen", "gives no parameters that require a gradient"),
        ("elsewhere", "gives parameters on meta; steps are timed on the CPU only"),
        ("failing", "bench_models:failing failed: OSError: no weights here"),
    ],
)
def test_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match="bench: ") as caught:
        parameters_of(f"bench_models:{name}")
    assert message in str(caught.value)
