"""Steps made in the backward pass are those made after it, with one gradient at a time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thalweg.optim as optim
from tests.engine.interrupting import traced
from tests.optim.cases import DENSE
from thalweg.optim.lr_scheduler import StepLR
from thalweg.transforms import averaged, clip_by_norm


class Net(nn.Module):
    """Layers of several kinds, one used twice and one not at every step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.twice = nn.Linear(4, 8), nn.Linear(8, 8)
        self.odd, self.last = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor, odd: bool = True) -> Tensor:
        x = torch.tanh(self.twice(torch.tanh(self.twice(torch.tanh(self.first(x))))))
        return self.last(self.odd(x) if odd else x)  # type: ignore[no-any-return]


def loss_of(model: Net, step: int) -> Tensor:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
    return model(x, odd=step % 2 == 0).square().sum()


def grouped(model: Net) -> list[dict[str, Any]]:
    names, params = zip(*model.named_parameters(), strict=True)
    return [
        {"params": list(zip(names[:3], params[:3], strict=True))},
        {"params": list(zip(names[3:], params[3:], strict=True)), "lr": 0.005},
    ]


def content(model: Net, optimizer: Any) -> list[Tensor]:
    entries = [optimizer.state.get(p, {}) for p in model.parameters()]
    states = [torch.as_tensor(e[key]) for e in entries for key in sorted(e)]
    return [x.detach().clone() for x in (*model.parameters(), *states)]


def trained(in_backward: bool, name: str, steps: int = 5, **options: Any) -> tuple[Net, Any, Any]:
    model = Net()
    optimizer = getattr(optim, name)(grouped(model), lr=0.01, **options)
    scheduler = StepLR(optimizer, 2, gamma=0.5)
    handle = optimizer.step_in_backward(model) if in_backward else None
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        if in_backward:
            assert all(p.grad is None for p in model.parameters())
        optimizer.step()
        scheduler.step()
    return model, optimizer, handle


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.mark.parametrize("backend", ["cpu", "eager"])
@pytest.mark.parametrize("name", DENSE)
def test_the_steps_are_those_made_after_the_backward_pass(name: str, backend: str) -> None:
    options = {"fused": False} if backend == "eager" else {}
    found = []
    for in_backward in (False, True):
        model, optimizer, _ = trained(in_backward, name, **options)
        found.append(content(model, optimizer))
        choices = (
            [optimizer._engine.choices]
            if not in_backward
            else [alone.engine.choices for alone in optimizer._in_backward._alone]
        )
        assert {c.backend for each in choices for c in each.values()} == {backend}
    if backend == "cpu" and name != "LAMB":
        assert same(*found)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)
    assert not same(found[0][:8], list(Net().parameters()))


def test_clips_of_each_tensor_averages_and_measures() -> None:
    options: dict[str, Any] = {
        "transforms": [clip_by_norm(0.1, over="tensor"), averaged(0.9)],
        "measure": ("gradient_norm", "update_ratio"),
    }
    found = [trained(in_backward, "AdamW", **options) for in_backward in (False, True)]
    assert same(*(content(model, optimizer) for model, optimizer, _ in found))
    after, within = (optimizer.measured for _, optimizer, _ in found)
    assert within["gradient_norm"] > 0
    p = found[1][0].last.weight
    assert within.of(p) == pytest.approx(after.of(found[0][0].last.weight), rel=1e-12)


def test_no_two_gradients_are_there_at_one_time() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    present: list[int] = []

    def count(_: Tensor) -> None:
        present.append(sum(p.grad is not None for p in model.parameters()))

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(count)
    optimizer.step_in_backward(model)
    loss_of(model, 0).backward()
    assert present == [1] * 8


def test_loading_copying_and_ending() -> None:
    model, optimizer, handle = trained(True, "Adam")
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    loss_of(model, 0).backward()
    wanted = content(model, optimizer)
    model.load_state_dict(weights)
    optimizer.load_state_dict(saved)
    loss_of(model, 0).backward()
    assert same(wanted, content(model, optimizer))
    handle.remove()
    loss_of(model, 1).backward()
    assert same(wanted, content(model, optimizer))
    assert model.last.weight.grad is not None
    optimizer.step()
    assert not same(wanted, content(model, optimizer))
    optimizer.zero_grad()
    again = optimizer.step_in_backward(model)
    before = content(model, optimizer)
    loss_of(model, 0).backward()
    assert not same(before, content(model, optimizer))
    again.remove()
    other = copy.deepcopy(optimizer)
    assert other._in_backward is None


def test_plans_are_kept_where_the_optimizer_has_stepped_before() -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters())
    loss_of(model, 0).backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.step_in_backward(model)
    plans = []
    for step in (0, 2, 4, 6):
        loss_of(model, step).backward()
        optimizer.step()
        plans.append([alone.engine._plan for alone in optimizer._in_backward._alone])
    assert all(a is b for a, b in zip(plans[-2], plans[-1], strict=True))


def test_options_are_those_of_the_groups_at_each_step() -> None:
    model = Net()
    optimizer = optim.SGD(grouped(model), lr=0.1)
    optimizer.step_in_backward(model)
    optimizer.param_groups[0]["lr"] = 0.0
    before = content(model, optimizer)
    loss_of(model, 0).backward()
    assert same(before[:3], content(model, optimizer)[:3])
    assert not same(before[3:], content(model, optimizer)[3:])
    optimizer.nonfinite = "zero"  # another engine
    optimizer.param_groups[1]["lr"] = 0.0
    before = content(model, optimizer)
    loss_of(model, 0).backward()
    assert same(before, content(model, optimizer))


def test_sparse_gradients() -> None:
    table = nn.Embedding(6, 2, sparse=True)
    optimizer = optim.SparseAdam(table.parameters(), lr=0.1)
    optimizer.step_in_backward(table)
    before = table.weight.detach().clone()
    table(torch.tensor([1, 4])).sum().backward()
    moved = (table.weight != before).any(1)
    assert moved.tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"transforms": [clip_by_norm(1.0)]}, 'over="tensor"'),
        ({"transforms": [clip_by_norm(1.0, "group")]}, "sum over 'group'"),
        ({"nonfinite": "skip"}, 'leave out nonfinite="skip"'),
        ({"differentiable": True}, "differentiable=True"),
    ],
)
def test_what_needs_other_gradients_is_refused(options: dict[str, Any], words: str) -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters(), **options)
    before = content(model, optimizer)
    with pytest.raises(RuntimeError, match=words):
        optimizer.step_in_backward(model)
    loss_of(model, 0).backward()
    assert same(before, content(model, optimizer))
    assert model.last.weight.grad is not None


def test_a_clip_that_is_switched_on_later_is_no_other_clip() -> None:
    model = Net()
    clip = clip_by_norm(float("inf"))
    optimizer = optim.AdamW(model.parameters(), transforms=[clip])
    optimizer.step_in_backward(model)
    optimizer.param_groups[0]["max_norm"] = 1.0
    before = content(model, optimizer)
    with pytest.raises(RuntimeError, match="gradients of other parameters"):
        loss_of(model, 0).backward()
    assert same(before, content(model, optimizer))


def test_a_scaler_is_told_of_at_its_first_step() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1, fused=True)
    optimizer.step_in_backward(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(loss_of(model, 0)).backward()
    with pytest.raises(RuntimeError, match=r"SGD: the loss was scaled.*without a GradScaler"):
        scaler.step(optimizer)


def test_bad_input() -> None:
    model, other = Net(), Net()
    optimizer = optim.AdamW([*model.parameters(), *other.parameters()])
    with pytest.raises(ValueError, match="holds 8 parameters that the model has not, the first"):
        optimizer.step_in_backward(model)
    optimizer = optim.AdamW(model.parameters())
    optimizer.step_in_backward(model)
    with pytest.raises(RuntimeError, match="already"):
        optimizer.step_in_backward(model)
    with pytest.raises(TypeError, match="LBFGS: step_in_backward is for optimizers with a rule"):
        optim.LBFGS(other.parameters()).step_in_backward(other)


def interrupted_backward(instruction: int) -> tuple[bool, bool, bool]:
    """A backward pass before an instruction of which Ctrl-C comes.

    Returns:
        whether it had so many, whether the weight was updated, and whether its gradient is there.
    """
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    model(torch.ones(1, 2)).sum().backward()
    before = model.weight.detach().clone()
    loss = model(torch.ones(1, 2)).sum()
    try:
        reached = traced(loss.backward, "/thalweg/", instruction) > instruction
    except KeyboardInterrupt:
        reached = True
    return reached, not torch.equal(model.weight, before), model.weight.grad is not None


def test_a_gradient_that_is_used_up_is_gone_when_the_pass_is_interrupted() -> None:
    instruction, reached, seen = 0, True, set()
    while reached:
        reached, updated, kept = interrupted_backward(instruction)
        assert not (updated and kept), instruction
        seen.add(updated)
        instruction += 29
    assert seen == {False, True}
