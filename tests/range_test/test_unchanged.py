"""Model and optimizer are as they were, bit for bit, however the range test ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.range_test.subjects import OPTIMIZERS, batches, everything, subjects, train
from thalweg import optim
from thalweg.optim.lr_scheduler import StepLR
from thalweg.optim.swa_utils import CarriedAverage
from thalweg.range_test import lr_find
from thalweg.range_test.unchanged import _Memory, unchanged

find = partial(lr_find, loss=nn.MSELoss(), steps=8)

EVERY = pytest.mark.parametrize("name", OPTIMIZERS)


@EVERY
@pytest.mark.parametrize("steps", [0, 4])
def test_everything_is_as_it_was(name: str, steps: int) -> None:
    net, optimizer = subjects(name, steps)
    before = everything(net, optimizer)
    found = find(net, batches(), optimizer)
    assert len(set(found.losses)) > 1
    assert everything(net, optimizer) == before


@EVERY
@pytest.mark.parametrize("steps", [0, 4])
def test_training_goes_on_as_without_it(name: str, steps: int) -> None:
    ends = []
    for test in (False, True):
        net, optimizer = subjects(name, steps)
        torch.manual_seed(5)
        if test:
            find(net, batches(), optimizer)
        train(net, optimizer, 5)
        ends.append([t.detach().clone() for t in (*net.parameters(), *net.buffers())])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


class Stop(BaseException):
    """Neither an Exception nor expected."""


def interrupted_data(error: BaseException) -> Iterator[tuple[Tensor, Tensor]]:
    yield from batches(3)
    raise error


class Failing(nn.Module):
    """A loss that has a parameter and fails at its fourth call."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.error, self.calls = error, 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 4:
            raise self.error
        return ((x - y) ** 2).mean() * self.weight.sum()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Stop(), RuntimeError("no")], ids=repr)
@pytest.mark.parametrize("name", ["SGD+momentum", "Adam", "LBFGS", "wrapped"])
def test_also_when_it_is_interrupted(name: str, error: BaseException) -> None:
    net, optimizer = subjects(name, 2)
    before = everything(net, optimizer)
    with pytest.raises(type(error)):
        find(net, interrupted_data(error), optimizer)
    assert everything(net, optimizer) == before
    loss = Failing(error)
    with pytest.raises(type(error)):
        find(net, batches(), optimizer, loss=loss)
    assert everything(net, optimizer) == before
    assert loss.weight.grad is None
    assert loss.calls == 0  # a module: put back like the model


def test_a_signal_in_the_middle_of_putting_back_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = _Memory.restore

    def interrupted(memory: _Memory) -> None:
        signal.raise_signal(signal.SIGINT)
        restore(memory)

    monkeypatch.setattr(_Memory, "restore", interrupted)
    net, optimizer = subjects("Adam", 2)
    before = everything(net, optimizer)
    with pytest.raises(KeyboardInterrupt):
        find(net, batches(), optimizer)
    assert everything(net, optimizer) == before


def test_gradients_that_were_there_are_the_same_objects() -> None:
    net, optimizer = subjects("SGD", 1)
    gradients = [p.grad for p in net.parameters()]
    copies = [None if g is None else g.clone() for g in gradients]
    find(net, batches(), optimizer)
    for p, gradient, copy in zip(net.parameters(), gradients, copies, strict=True):
        assert p.grad is gradient
        assert copy is None or torch.equal(p.grad, copy)  # type: ignore[arg-type]


def test_a_graph_from_before_can_still_be_used() -> None:
    net, optimizer = subjects("SGD", 1)
    x, y = batches(1)[0]
    loss = nn.functional.mse_loss(net(x), y)
    find(net, batches(), optimizer)
    loss.backward()  # refuses parameters that have changed since


@pytest.mark.parametrize("training", [True, False])
def test_modes_of_all_parts_are_as_they_were(training: bool) -> None:
    net, optimizer = subjects("SGD")
    net.train(training)
    net.norm.eval()
    modes: list[bool] = []
    net.norm.register_forward_hook(lambda module, *rest: modes.append(module.training))
    find(net, batches(), optimizer)
    assert (net.training, net.drop.training, net.norm.training) == (training, training, False)
    assert set(modes) == {not training}  # evaluated as a whole: tested in training mode


def test_schedulers_and_hooks_are_left_alone() -> None:
    net, optimizer = subjects("Adam", 1)
    scheduler = StepLR(optimizer, 2)
    calls: list[int] = []
    optimizer.register_step_post_hook(lambda *arguments: calls.append(1))
    state = {key: value for key, value in vars(scheduler).items() if key != "optimizer"}
    before = everything(net, optimizer)
    find(net, batches(), optimizer)
    assert everything(net, optimizer) == before
    assert {k: v for k, v in vars(scheduler).items() if k != "optimizer"} == state
    assert len(calls) == 8  # one for each step, as in any training


def test_a_carried_average_is_as_it_was() -> None:
    net, optimizer = subjects("Adam")
    assert isinstance(optimizer, optim.Optimizer)
    average = CarriedAverage(optimizer, decay=0.5)
    train(net, optimizer, 2)
    before = [average.of(p).clone() for p in net.parameters()]
    find(net, batches(), optimizer)
    assert all(torch.equal(average.of(p), b) for p, b in zip(net.parameters(), before, strict=True))


def test_parameters_outside_of_the_model_are_put_back_too() -> None:
    net, _ = subjects("SGD")
    scale = nn.Parameter(torch.ones(1))
    optimizer = optim.SGD([*net.parameters(), scale], lr=0.1)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return ((x * scale - y) ** 2).mean()

    find(net, batches(), optimizer, loss=loss)
    assert scale.item() == 1.0
    assert scale.grad is None


def test_tied_and_replaced_memory() -> None:
    class Replacing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data = self.weight.data.clone()
            return super().forward(x)

    first, second = Replacing(2, 2), nn.Linear(2, 2)
    second.weight.data = first.weight.data  # one memory, two parameters
    net = nn.Sequential(first, second)
    before, place = first.weight.detach().clone(), first.weight.data_ptr()
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    data = [(torch.ones(1, 2), torch.zeros(1, 2))]
    find(net, data, optimizer)
    assert first.weight.data_ptr() == second.weight.data_ptr() == place
    assert torch.equal(first.weight, before)


def test_a_sparse_gradient_and_its_rows() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(10, 2, sparse=True)
    optimizer = optim.SparseAdam(table.parameters(), lr=0.1)
    before = table.weight.detach().clone()
    data = [(torch.tensor([1, 2]), torch.ones(2, 2)), (torch.tensor([3, 1]), torch.ones(2, 2))]
    found = find(table, data, optimizer, low=1e-4, high=0.1)
    assert found.losses[-1] < found.losses[0]
    assert torch.equal(table.weight, before)
    assert not optimizer.state


def test_what_a_block_without_a_test_does_is_undone() -> None:
    net, optimizer = subjects("Adam", 2)
    before = everything(net, optimizer)
    with unchanged(net, optimizer):
        train(net, optimizer, 3)
        optimizer.param_groups[0]["betas"] = (0.5, 0.5)
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
        net.extra = nn.Parameter(torch.ones(2))
        net.first.bias.requires_grad_(False)
        torch.rand(3)
    assert everything(net, optimizer) == before


def test_random_numbers_go_on_as_without_it() -> None:
    net, optimizer = subjects("SGD")
    torch.manual_seed(3)
    expected: Any = torch.rand(2)
    torch.manual_seed(3)
    find(net, batches(), optimizer)
    assert torch.equal(torch.rand(2), expected)


def test_gradients_do_not_add_to_those_that_were_there() -> None:
    net, optimizer = subjects("SGD", 1)
    before = everything(net, optimizer)
    x, y = batches(1)[0]
    with unchanged(net, optimizer):
        nn.functional.mse_loss(net(x), y).backward()  # without zero_grad
    assert everything(net, optimizer) == before


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_model_keeps_its_mode() -> None:
    net = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 1)))
    net.eval()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    find(net, batches(), optimizer)
    assert not net.training
    assert not any(part.training for part in net.children())
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
