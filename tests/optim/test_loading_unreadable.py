"""State tensors that cannot be read, or only by code that may fail: all of a load, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.optim.exact import snapshot
from thalweg import checkpoint, optim

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse"),
    pytest.mark.filterwarnings("ignore:.*torch.quantize"),
]


class Failing(Tensor):
    """Its numbers cannot be copied."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "copy_":
            raise RuntimeError("no copy of this")
        return super().__torch_function__(func, types, args, kwargs or {})


def sparse(index: int, **kwargs: Any) -> Tensor:
    """Two rows of two, of which one is given."""
    return torch.sparse_coo_tensor(
        torch.tensor([[index]]), torch.full((1, 2), 3.0), (2, 2), check_invariants=False, **kwargs
    )


def freed() -> Tensor:
    found = torch.ones(2, 2)
    found.untyped_storage().resize_(0)
    return found


BAD: dict[str, Callable[[], Tensor]] = {
    "sparse": lambda: sparse(10**9),
    "csr": lambda: torch.sparse_csr_tensor(
        torch.tensor([0, 1, 2]), torch.tensor([0, 10**9]), torch.ones(2), (2, 2),
        check_invariants=False,
    ),
    "freed": freed,
    "meta": lambda: torch.ones(2, 2, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.quint8),
    "failing": lambda: torch.ones(2, 2).as_subclass(Failing),
}  # fmt: skip


def begun(library: Any, name: str = "SGD") -> torch.optim.Optimizer:
    options = {"momentum": 0.9} if name == "SGD" else {}
    params = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(3)]
    optimizer: torch.optim.Optimizer = getattr(library, name)(params, lr=0.1, **options)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    return optimizer


def spoilt(optimizer: torch.optim.Optimizer, number: int, value: Tensor) -> dict[str, Any]:
    """Its state dict with other values, the last state of one parameter spoilt."""
    saved: dict[str, Any] = deepcopy(optimizer.state_dict())
    for entry in saved["state"].values():
        for state in entry.values():
            state.fill_(7)
    entry = saved["state"][number]
    entry[list(entry)[-1]] = value
    return saved


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("bad", BAD)
def test_a_load_that_fails_changes_nothing(bad: str, name: str, number: int) -> None:
    optimizer = begun(optim, name)
    saved, before = spoilt(optimizer, number, BAD[bad]()), snapshot(optimizer)
    with pytest.raises((ValueError, RuntimeError)):
        optimizer.load_state_dict(saved)
    assert snapshot(optimizer) == before


@pytest.mark.parametrize("library", [optim, torch.optim])
@pytest.mark.parametrize("bad", [each for each in BAD if each not in ("quantized", "failing")])
def test_no_part_of_a_checkpoint_is_loaded_then(library: Any, bad: str, tmp_path: Any) -> None:
    optimizer, model = begun(library), torch.nn.Linear(2, 2)
    weights = {name: torch.full_like(p, 7) for name, p in model.state_dict().items()}
    saved, before = spoilt(optimizer, 1, BAD[bad]()), deepcopy(optimizer.state_dict())
    kept = deepcopy(model.state_dict())
    torch.save({"model": weights, "optimizer": saved}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt"):
        checkpoint.load(tmp_path / "a.pt", model=model, optimizer=optimizer)
    assert str(optimizer.state_dict()) == str(before)
    assert all(torch.equal(p, kept[name]) for name, p in model.state_dict().items())


def test_sound_sparse_states_become_dense() -> None:
    optimizer = begun(optim)
    first = optimizer.param_groups[0]["params"][0]
    saved = spoilt(optimizer, 0, sparse(1))
    optimizer.load_state_dict(saved)
    assert optimizer.state[first]["momentum_buffer"].tolist() == [[0, 0], [3, 3]]


@pytest.mark.parametrize("key", ["d", "prev_flat_grad", "old_dirs", "old_stps"])
def test_vectors_of_lbfgs(key: str) -> None:
    p = torch.nn.Parameter(torch.arange(3.0))
    optimizer = optim.LBFGS([p], max_iter=4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (p**4).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    saved = deepcopy(optimizer.state_dict())
    bad = torch.sparse_coo_tensor(
        torch.tensor([[10**9]]), torch.ones(1), (3,), check_invariants=False
    )
    entry = saved["state"][0]
    entry[key] = [bad, *entry[key][1:]] if isinstance(entry[key], list) else bad
    with pytest.raises(ValueError, match="no sound tensor"):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("bad", BAD)
def test_a_module_takes_all_of_its_tensors_or_none(bad: str) -> None:
    from thalweg.checkpoint.module import prepare_module

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    before = deepcopy(model.state_dict())
    saved = {name: torch.full_like(p, 7) for name, p in before.items()}
    saved["1.weight"] = BAD[bad]()
    with pytest.raises(RuntimeError, match=r"does not fit|no copy"):
        prepare_module(model, saved).commit()
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_states_on_meta_belong_to_parameters_on_meta() -> None:
    """As torch has them; elsewhere they would be states without numbers."""
    p = torch.nn.Parameter(torch.ones(2, 2, device="meta"))
    optimizer = optim.Adam([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state[p]["exp_avg"].is_meta
    assert optimizer.step_count == 1
