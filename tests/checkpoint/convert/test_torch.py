"""thalweg's state dicts become torch's and thalweg's again, and both go on as torch would."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import thalweg
from tests.checkpoint.convert.libraries import (
    MORE,
    STEPS,
    copies,
    gradients,
    grouped,
    start,
    train,
)
from tests.optim.cases import in_torch
from tests.optim.problems import SHARED_FULLEST, Case
from thalweg.checkpoint.convert import convert
from thalweg.optim.catalogue import classes
from thalweg.optim.state_dict import named
from thalweg.optim.swa_utils import CarriedAverage

CASES = [
    *SHARED_FULLEST,
    Case("SGD", "plain", {}),
    Case("Adam", "plain", {}),
    Case("RMSprop", "plain", {}),
]


def trained(optim: Any, case: Case) -> tuple[list[torch.nn.Parameter], Any]:
    params = start()
    optimizer = getattr(optim, case.name)(grouped(params), **case.options())
    train(optimizer, params, gradients(STEPS), without=(3,), late=1)
    return params, optimizer


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_goes_on_where_thalweg_stopped(case: Case) -> None:
    """With a state dict that has torch's keys and kinds, and against torch alone."""
    params, before = trained(thalweg.optim, case)
    reference, torchs = trained(torch.optim, case)
    after = getattr(torch.optim, case.name)(grouped(params), **case.options())
    converted = convert(before.state_dict(), after)
    expected = torchs.state_dict()
    assert converted["state"].keys() == expected["state"].keys()
    for key, states in expected["state"].items():
        kept = {name: value for name, value in states.items() if value is not None}
        assert converted["state"].get(key, {}).keys() == kept.keys()
        for name, value in kept.items():
            found = converted["state"][key][name]
            assert type(found) is type(value)
            torch.testing.assert_close(found.to(value), value, rtol=1e-4, atol=1e-5)
        assert getattr(converted["state"][key].get("step"), "dtype", None) == getattr(
            states.get("step"), "dtype", None
        )
    assert converted["param_groups"] == expected["param_groups"]

    after.load_state_dict(converted)
    train(after, params, gradients(MORE, seed=1))
    train(torchs, reference, gradients(MORE, seed=1))
    for mine, other in zip(params, reference, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_there_and_back_bit_for_bit(case: Case) -> None:
    params, before = trained(thalweg.optim, case)
    own = copies(params)
    to_torch = getattr(torch.optim, case.name)(grouped(copies(params)))
    after = getattr(thalweg.optim, case.name)(grouped(own))
    after.load_state_dict(convert(convert(before.state_dict(), to_torch), after))
    assert after.state_dict()["param_groups"] == before.state_dict()["param_groups"]
    train(before, params, gradients(MORE, seed=1))
    train(after, own, gradients(MORE, seed=1))
    for mine, other in zip(own, params, strict=True):
        assert torch.equal(mine, other)
    for p, q in zip(own, params, strict=True):
        assert after.state[p].keys() == before.state[q].keys()
        for name, value in before.state[q].items():
            assert torch.equal(after.state[p][name], value), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torchs_own_state_dict_stays_as_it_is(case: Case) -> None:
    _, torchs = trained(torch.optim, case)
    saved = torchs.state_dict()
    converted = convert(saved, torchs, source="torch")
    assert converted["param_groups"] == saved["param_groups"]
    for key, states in converted["state"].items():
        for name, value in states.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(saved["state"][key][name]))
            if value.ndim:
                assert value is saved["state"][key][name]  # shared


def test_how_a_step_is_carried_out_stays_as_it_is() -> None:
    saved = trained(thalweg.optim, Case("Adam", "", {"fused": True}))[1].state_dict()
    to = torch.optim.Adam(grouped(start()), foreach=True)
    group = convert(saved, to)["param_groups"][0]
    assert (group["fused"], group["foreach"]) == (None, True)


def test_a_checkpoint_of_an_older_torch() -> None:
    """Without the switches that came later; those of the optimizer stay."""
    saved = trained(torch.optim, Case("AdamW", "", {}))[1].state_dict()
    for group in saved["param_groups"]:
        for name in ("maximize", "foreach", "capturable", "differentiable", "fused"):
            del group[name]
        del group["decoupled_weight_decay"]
    for states in saved["state"].values():
        states["step"] = int(states["step"])
    to = thalweg.optim.AdamW(grouped(start()), maximize=True)
    converted = convert(saved, to)
    assert converted["param_groups"][0]["maximize"]
    assert converted["param_groups"][0]["decoupled_weight_decay"]
    assert converted["state"][0]["step"].dtype == torch.float32
    to.load_state_dict(converted)


def test_sparse_adam_counts_with_an_int() -> None:
    def run(optim: Any) -> Any:
        p = torch.nn.Parameter(torch.ones(5, 2))
        optimizer = optim.SparseAdam([p])
        for _ in range(3):
            p.grad = torch.sparse_coo_tensor([[1]], [[1.0, 2.0]], (5, 2), check_invariants=True)
            optimizer.step()
        return optimizer

    saved = run(thalweg.optim).state_dict()
    expected = run(torch.optim)
    converted = convert(saved, expected)
    assert converted["state"][0]["step"] == 3
    assert type(converted["state"][0]["step"]) is int
    expected.load_state_dict(converted)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(
            converted["state"][0][name], run(torch.optim).state_dict()["state"][0][name]
        )


def test_lbfgs() -> None:
    def run(optim: Any, p: torch.nn.Parameter, saved: Any = None) -> Any:
        optimizer = optim.LBFGS([p], lr=0.5, max_iter=3)
        if saved is not None:
            optimizer.load_state_dict(convert(saved, optimizer))

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = ((p - 1) ** 4).sum() + (p * p.flip(0)).sum() ** 2
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        return optimizer.state_dict()

    results = []
    for first in (thalweg.optim, torch.optim):
        p = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.5]))
        run(torch.optim, p, run(first, p))
        results.append(p)
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


def test_every_shared_optimizer_was_tried() -> None:
    shared = {name for name in classes() if in_torch(name)}
    assert {case.name for case in CASES} | {"SparseAdam", "LBFGS"} == shared


def averaged() -> tuple[thalweg.optim.AdamW, list[torch.nn.Parameter]]:
    params = start()
    optimizer = thalweg.optim.AdamW(grouped(params))
    CarriedAverage(optimizer, 0.9)
    train(optimizer, params, gradients(3))
    return optimizer, params


def test_an_average_goes_to_an_optimizer_that_carries_one() -> None:
    before, params = averaged()
    after, own = averaged()
    train(before, params, gradients(2, seed=3))
    after.load_state_dict(convert(before.state_dict(), after))
    for p, q in zip(params, own, strict=True):
        for name, value in before.state[p].items():
            assert torch.equal(after.state[q][name], value), name


@pytest.mark.parametrize("optim", [torch.optim, thalweg.optim], ids=["torch", "thalweg"])
def test_an_average_is_not_dropped(optim: Any) -> None:
    before, _ = averaged()
    with pytest.raises(ValueError, match="has the states of the transform averaged"):
        convert(before.state_dict(), optim.AdamW(grouped(start())))


def test_adagrad_begins_in_the_constructor() -> None:
    """torch's step needs a state for every parameter; bitsandbytes' has none before the first."""
    saved = {
        "state": {},
        "param_groups": [
            {"params": [0, 1], "lr": 0.1, "betas": (0, 0), "eps": 1e-10, "weight_decay": 0}
        ],
    }
    params = start()[:2]
    to = torch.optim.Adagrad(params)
    to.load_state_dict(convert(saved, to, source="bitsandbytes"))
    for p in params:
        p.grad = torch.ones_like(p)
    to.step()
    assert to.state[params[0]]["step"] == 1


def test_parameters_under_their_names() -> None:
    """The form that a checkpoint file has them in."""
    case = Case("AdamW", "plain", {})
    _, before = trained(thalweg.optim, case)
    names = [f"layer.{i}" for i in range(5)]
    _, after = trained(thalweg.optim, case)
    converted = convert(named(before.state_dict(), names), after)
    assert list(converted["state"]) == [name for i, name in enumerate(names) if i != 3]
    assert converted["param_groups"][1]["params"] == names[3:]
    plain = convert(before.state_dict(), after)
    for i, name in enumerate(names):
        assert converted["state"].get(name) == plain["state"].get(i)
