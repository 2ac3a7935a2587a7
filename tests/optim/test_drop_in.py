"""What surrounds the update: hooks, closures, schedulers, scalers, tensors as options, autograd."""

from __future__ import annotations

import copy
import pickle
from collections import UserList
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer

import thalweg.optim as optim
from tests.optim.problems import SHARED, SHARED_FULLEST, Case, bits, snapshot

ALL = (*SHARED, "SparseAdam", "LBFGS")
every_optimizer = pytest.mark.parametrize("name", SHARED)


def parameters(count: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    made = [torch.linspace(-1, 1, 3 + i).to(dtype).requires_grad_() for i in range(count)]
    for p in made:
        p.grad = (p.detach() - 0.3) * 0.5
    return made


def test_it_is_a_torch_optimizer() -> None:
    """GradScaler, schedulers and trainers ask for one."""
    for name in ALL:
        cls = getattr(optim, name)
        assert issubclass(cls, getattr(torch.optim, name))
        assert issubclass(cls, torch.optim.Optimizer)
        assert cls.__name__ == name
    assert issubclass(optim.AdamW, optim.Adam)


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_torchs_class_of_the_same_name_runs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cls in getattr(torch.optim, name).__mro__:
        if cls in (torch.optim.Optimizer, object):
            break
        for method in [key for key, value in vars(cls).items() if callable(value)]:
            monkeypatch.setattr(cls, method, None)
    params = parameters()
    if name == "SparseAdam":
        for p in params:
            p.grad = p.detach().to_sparse()
    optimizer = getattr(optim, name)(params)
    for each in (optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        for p, given in zip(each.param_groups[0]["params"], params, strict=True):
            p.grad = given.grad
        each.step(lambda: torch.tensor(1.0))
        each.load_state_dict(each.state_dict())
        each.zero_grad()
        assert repr(each).startswith(name)


# ------------------------------------------------------------------------------------------ groups


@pytest.mark.parametrize("name", ALL)
def test_groups_and_defaults_have_torchs_keys(name: str) -> None:
    ours, theirs = (getattr(library, name)(parameters()) for library in (optim, torch.optim))
    assert ours.defaults.keys() == theirs.defaults.keys()
    assert ours.param_groups[0].keys() == theirs.param_groups[0].keys()
    saved, other = (o.state_dict()["param_groups"][0] for o in (ours, theirs))
    assert saved.keys() == other.keys()


@pytest.mark.parametrize("name", ["Rprop", "NAdam"])
def test_fused_is_kept_where_groups_have_no_place_for_it(name: str) -> None:
    def backends(optimizer: Any) -> set[str]:
        optimizer.step()
        return {choice.backend for choice in optimizer._engine.choices.values()}

    params = parameters()
    optimizer = getattr(optim, name)(params, fused=False)
    for each in (optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        for p in each.param_groups[0]["params"]:
            p.grad = torch.ones_like(p)
        assert backends(each) == {"eager"}
    other = getattr(optim, name)(params)
    assert backends(other) == {"cpu"}
    optimizer.load_state_dict(other.state_dict())
    assert backends(optimizer) == {"eager"}
    optimizer.param_groups[0]["fused"] = None  # a group may say otherwise
    assert backends(optimizer) == {"cpu"}


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, UserList])
def test_a_pair_may_be_any_sequence(kind: Any) -> None:
    params, twins = parameters(), parameters()
    optimizer = optim.Adam(params, betas=kind([0.5, 0.75]))
    twin = optim.Adam(twins, betas=(0.5, 0.75))
    for each in (optimizer, twin):
        each.step()
        each.step()
    assert bits(params) == bits(twins)
    optimizer.load_state_dict(optimizer.state_dict())


def test_a_tensor_lr_goes_with_foreach_but_for_adam() -> None:
    for name in SHARED:
        for library in (torch.optim, optim):
            if name in ("Adam", "AdamW"):
                with pytest.raises(ValueError, match="lr as a Tensor is not supported"):
                    getattr(library, name)(parameters(), lr=torch.tensor(0.1), foreach=True)
            else:
                getattr(library, name)(parameters(), lr=torch.tensor(0.1), foreach=True).step()


# ------------------------------------------------------------------------------------------- hooks


@every_optimizer
def test_step_hooks_fire_once_in_torchs_order(name: str) -> None:
    def record(library: Any) -> list[str]:
        calls: list[str] = []
        optimizer = getattr(library, name)(parameters())
        handles = [
            torch_optimizer.register_optimizer_step_pre_hook(lambda *_: calls.append("global pre")),
            torch_optimizer.register_optimizer_step_post_hook(
                lambda *_: calls.append("global post")
            ),
            optimizer.register_step_pre_hook(lambda *_: calls.append("pre")),
            optimizer.register_step_post_hook(lambda *_: calls.append("post")),
        ]
        optimizer.step()
        for handle in handles:
            handle.remove()
        optimizer.step()
        return calls

    assert record(optim) == record(torch.optim) == ["global pre", "pre", "post", "global post"]


@pytest.mark.parametrize("name", [*SHARED, "LBFGS"])
def test_hooks_run_once_around_a_subclasss_step(name: str) -> None:
    class Own(getattr(optim, name)):  # type: ignore[misc]
        def step(self, closure: Any = None) -> Any:
            calls.append("before")
            loss = super().step(closure)
            calls.append("after")
            return loss

    calls: list[str] = []
    params = parameters()
    getattr(optim, name)(params)  # torch wraps a class's step when it first makes an instance
    optimizer = Own(params)
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    for each in (optimizer, copy.deepcopy(optimizer)):
        each.step(lambda: torch.tensor(1.0))
    assert calls == ["pre", "before", "after", "post", "before", "after"]


def test_a_pre_hook_may_replace_the_arguments() -> None:
    optimizer = optim.SGD(parameters())
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: ((opt, lambda: 42.0), {}))
    assert optimizer.step() == 42.0


def test_state_dict_hooks() -> None:
    optimizer = optim.Adam(parameters())
    calls: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda opt: calls.append("pre"))
    optimizer.register_state_dict_post_hook(lambda opt, d: {**d, "note": "added"})
    assert optimizer.state_dict()["note"] == "added"
    assert calls == ["pre"]


# ---------------------------------------------------------------------------------------- closures


@every_optimizer
def test_a_closure_runs_first_with_gradients_and_its_value_is_returned(name: str) -> None:
    p = torch.tensor([2.0, -1.0], requires_grad=True)
    optimizer = getattr(optim, name)([p])
    seen: list[Tensor] = []

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        seen.append(p.detach().clone())
        loss = p.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss is not None
    assert loss.item() == 5.0
    assert seen[0].tolist() == [2.0, -1.0]
    assert (p != seen[0]).all()
    assert optimizer.step() is None


# ----------------------------------------------------------------------------- options as tensors


@every_optimizer
def test_changing_a_tensor_lr_in_place_takes_effect(name: str) -> None:
    lr = torch.tensor(0.25)
    ours, twin = parameters(), parameters()
    with_tensor, with_float = getattr(optim, name)(ours, lr=lr), getattr(optim, name)(twin, lr=0.25)
    for optimizer in (with_tensor, with_float):
        optimizer.step()
    assert bits(ours) == bits(twin)
    lr.fill_(0.0625)
    with_float.param_groups[0]["lr"] = 0.0625
    for optimizer in (with_tensor, with_float):
        optimizer.step()
        optimizer.step()  # ASGD uses an lr from its second update on
    assert bits(ours) == bits(twin)
    assert with_tensor.param_groups[0]["lr"] is lr


def test_changing_tensor_betas_in_place_takes_effect() -> None:
    betas = (torch.tensor(0.5), torch.tensor(0.75))
    ours, twin = parameters(), parameters()
    with_tensors, with_floats = optim.Adam(ours, betas=betas), optim.Adam(twin, betas=(0.5, 0.75))
    with_tensors.step()
    with_floats.step()
    betas[0].fill_(0.25)
    with_floats.param_groups[0]["betas"] = (0.25, 0.75)
    with_tensors.step()
    with_floats.step()
    assert bits(ours) == bits(twin)


# Options that switch parts of the rule on and off while training.
SWITCHES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("SGD", {"momentum": 0.9}, {"momentum": 0.0}),
    ("SGD", {}, {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True}, {"nesterov": False}),
    ("Adam", {}, {"weight_decay": 0.1}),
    ("AdamW", {"amsgrad": True}, {"amsgrad": False}),
    ("RAdam", {"weight_decay": 0.1}, {"decoupled_weight_decay": True}),
    ("RMSprop", {"centered": True, "momentum": 0.5}, {"momentum": 0.0}),
    ("Adagrad", {}, {"maximize": True}),
    ("ASGD", {}, {"t0": 1, "lambd": 0.1}),
]


@pytest.mark.parametrize(("name", "options", "change"), SWITCHES, ids=str)
def test_options_may_change_between_steps(
    name: str, options: dict[str, Any], change: dict[str, Any]
) -> None:
    def train(library: Any) -> Tensor:
        given = parameters(dtype=torch.float64)
        optimizer = getattr(library, name)(given, **options)
        for step in range(6):
            if step == 3:
                optimizer.param_groups[0].update(change)
            optimizer.step()
        return torch.cat([p.detach() for p in given])

    torch.testing.assert_close(train(optim), train(torch.optim), rtol=1e-9, atol=1e-9)


# ----------------------------------------------------------------------------------------- groups


@every_optimizer
def test_groups_added_later_and_frozen_parameters(name: str) -> None:
    """Freezing is a gradient of None: neither the value, nor the state, nor its count moves."""

    def train(library: Any) -> tuple[list[Tensor], list[int]]:
        given = [p.detach().requires_grad_() for p in parameters(3, torch.float64)]
        optimizer = getattr(library, name)(given[:2])
        for step in range(9):
            if step == 3:
                optimizer.add_param_group({"params": given[2:], "lr": 0.02})
            for i, p in enumerate(given):
                frozen = (i == 0 and 2 <= step < 6) or (i == 2 and step < 3)
                p.grad = None if frozen else torch.full_like(p, 0.25 * (step + 1) - i)
            before = given[0].detach().clone()
            optimizer.step()
            assert (given[0].grad is None) == bool((given[0] == before).all())
        steps = [int(optimizer.state[p].get("step", 0)) for p in given]
        return [p.detach() for p in given], steps

    (ours, our_steps), (theirs, their_steps) = train(optim), train(torch.optim)
    assert our_steps == their_steps
    if name != "SGD":
        assert our_steps == [5, 9, 6]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)  # torch's float32 scalars


def test_named_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    ours = optim.Adam(model.named_parameters())
    theirs = torch.optim.Adam(model.named_parameters())
    expected = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert ours.param_groups[0]["param_names"] == expected
    assert ours.state_dict()["param_groups"][0]["param_names"] == expected
    assert [id(p) for p in ours.param_groups[0]["params"]] == [
        id(p) for p in theirs.param_groups[0]["params"]
    ]
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["param_names"] == expected


def test_a_parameter_named_twice_is_updated_as_in_torch() -> None:
    """Twice in one group is a warning only, so it has to do something definite."""
    p = torch.ones(2, requires_grad=True)
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = optim.SGD([p, p], lr=0.5)
    p.grad = torch.ones(2)
    optimizer.step()
    assert p.isfinite().all()
    assert len(optimizer.param_groups[0]["params"]) == 2


@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad(to_none: bool) -> None:
    given = [*parameters(), torch.ones(2, requires_grad=True)]
    held = [p.grad for p in given[:2]]
    optim.SGD(given).zero_grad(set_to_none=to_none)
    assert given[2].grad is None
    for p, g in zip(given, held, strict=False):
        assert p.grad is (None if to_none else g)
        assert to_none or not g.any()


@every_optimizer
def test_step_count(name: str) -> None:
    optimizer = getattr(optim, name)(parameters())
    counts = [optimizer.step_count]
    for _ in range(3):
        optimizer.step()
        counts.append(optimizer.step_count)
    assert counts == [0, 1, 2, 3]
    assert copy.deepcopy(optimizer).step_count == 3


@every_optimizer
def test_a_parameters_storage_may_be_replaced(name: str) -> None:
    """``p.data = ...`` keeps the Parameter and moves its memory; gradients move all the time."""
    ours, twin = parameters(), parameters()
    moving, still = getattr(optim, name)(ours), getattr(optim, name)(twin)
    for _ in range(3):
        for p in ours:
            p.data = p.data.clone()
            p.grad = p.grad.clone()
        moving.step()
        still.step()
    assert bits(ours) == bits(twin)


# ------------------------------------------------------------------------- schedulers and scalers

SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(
        o, 0.1, total_steps=8, cycle_momentum="momentum" in o.defaults or "betas" in o.defaults
    ),
    "CyclicLR": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, 2, cycle_momentum=False),
    "CosineAnnealingWarmRestarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        o, 3
    ),
    "ExponentialLR": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.7),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", ["SGD", "Adam", "NAdam", "Rprop"])
def test_torchs_schedulers_drive_ours(name: str, scheduler: str) -> None:
    def train(library: Any) -> tuple[list[float], Tensor]:
        given = parameters(dtype=torch.float64)
        options = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(library, name)(given, **options)
        schedule = SCHEDULERS[scheduler](optimizer)
        rates = []
        for _ in range(6):
            optimizer.step()
            schedule.step()
            rates.append(optimizer.param_groups[0]["lr"])
        return rates, torch.cat([p.detach() for p in given])

    (our_rates, ours), (their_rates, theirs) = train(optim), train(torch.optim)
    assert our_rates == their_rates
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)  # torch's float32 mu_product


def test_reduce_on_plateau_drives_ours() -> None:
    optimizer = optim.Adam(parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for loss in (1.0, 2.0, 3.0):
        optimizer.step()
        schedule.step(loss)
    assert optimizer.param_groups[0]["lr"] == 0.125


@every_optimizer
def test_grad_scaler_skips_and_unscales(name: str) -> None:
    """A step with an infinite gradient is skipped, the others see gradients without the scale."""
    p = torch.ones(3, requires_grad=True)
    q = torch.ones(3, requires_grad=True)
    scaled, plain = getattr(optim, name)([p]), getattr(optim, name)([q])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        scaled.zero_grad()
        factor = float("inf") if step == 1 else 0.5 + step
        scaler.scale((p * factor).sum()).backward()
        before = snapshot(scaled)[0]
        scaler.step(scaled)
        scaler.update()
        if step == 1:
            assert snapshot(scaled)[0] == before
            continue
        q.grad = torch.full((3,), factor)
        plain.step()
    assert bits(p.detach()) == bits(q.detach())


# ---------------------------------------------------------------------------------- differentiable


def unrolled(case: Case, steps: int) -> Any:
    """The parameter after ``steps`` updates as a function of itself, the gradient and lr."""

    def of(p: Tensor, g: Tensor, lr: Tensor) -> Tensor:
        q = p.clone()
        q.retain_grad()
        options = {**case.options(), "lr": lr}
        optimizer = getattr(optim, case.name)([q], differentiable=True, **options)
        for step in range(steps):
            q.grad = g * (1 + step)
            optimizer.step()
        return q

    return of


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("case", SHARED_FULLEST, ids=str)
def test_differentiable_steps(case: Case, steps: int) -> None:
    """Derivatives by p, g and lr, against finite differences; torch's fail by lr for half of them.

    Rprop and ASGD have lr in a state's initial value, which is a number: there lr is a constant.
    Values stay away from the corners of maximum, abs and sign.
    """
    p = torch.tensor([0.9, -1.3, 0.4], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([0.7, 1.1, -0.6], dtype=torch.float64, requires_grad=True)
    lr = torch.tensor(0.05, dtype=torch.float64)
    lr.requires_grad_(case.name not in ("Rprop", "ASGD"))
    assert torch.autograd.gradcheck(unrolled(case, steps), (p, g, lr))


@every_optimizer
def test_steps_are_not_recorded_otherwise(name: str) -> None:
    given = parameters()
    optimizer = getattr(optim, name)(given)
    optimizer.step()
    for p in given:
        assert p.is_leaf
        assert p.requires_grad
        assert all(not v.requires_grad for v in optimizer.state[p].values())


# ------------------------------------------------------------------------------------------ copies


@pytest.mark.parametrize("name", ["Adam", "NAdam", "SGD"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_shallow_copy_shares_groups_and_state(name: str, begun: bool) -> None:
    """Whichever of the two is stepped, it is one sequence of updates, as with torch."""
    found = []
    for library in (torch.optim, optim):
        params = parameters()
        options = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(library, name)(params, lr=0.25, **options)
        if begun:
            optimizer.step()
        other = copy.copy(optimizer)
        assert other.state is optimizer.state
        assert other.param_groups is optimizer.param_groups
        for each in (other, optimizer, optimizer, other, other, optimizer):
            each.step()
        steps = [float(s["step"]) for s in optimizer.state.values() if "step" in s]
        found.append([*(v for p in params for v in p.tolist()), *steps])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_a_state_that_is_put_back_is_the_same() -> None:
    params = parameters()
    optimizer = optim.Adam(params)
    optimizer.step()
    before = optimizer.state
    optimizer.state = {}
    optimizer.step()
    optimizer.state = before
    assert optimizer.state is before
    optimizer.step()
    assert float(optimizer.state[params[0]]["step"]) == 2
