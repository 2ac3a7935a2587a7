"""A slice through a network's loss: values, gradients, and a model that is left as it was."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thalweg import losses, optim
from thalweg.landscape import NetworkSlice, slice_of, snapshot, trace

X = torch.linspace(-1, 1, 60).reshape(20, 3)
Y = (X.sum(1) > 0).long()


def network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))


def loss(model: nn.Module) -> Tensor:
    return losses.cross_entropy(model(X), Y)


def number(value: Tensor) -> float:
    return float(value.detach())


def moved(model: nn.Module, to: np.ndarray) -> nn.Module:
    """A copy of the model with these parameters."""
    copied = copy.deepcopy(model)
    nn.utils.vector_to_parameters(torch.from_numpy(to).float(), copied.parameters())
    return copied


def value(found: NetworkSlice, a: float, b: float) -> float:
    at = torch.tensor([a, b], dtype=torch.float64)
    return float(found.surface(at[0], at[1]))


def training(steps: int = 8) -> tuple[nn.Sequential, list[Tensor]]:
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    seen = [snapshot(model)]
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
        seen.append(snapshot(model))
    return model, seen


def test_the_surface_is_the_loss_of_the_network_moved_in_the_plane() -> None:
    model = network()
    found = slice_of(model, loss)
    for a, b in ((0.0, 0.0), (0.5, 0.0), (-0.3, 0.8)):
        theta = found.origin + a * found.directions[0] + b * found.directions[1]
        assert value(found, a, b) == pytest.approx(number(loss(moved(model, theta))), rel=1e-6)
    assert value(found, 0.0, 0.0) == number(loss(model))  # exactly


def test_points_broadcast_and_come_back_in_float64() -> None:
    found = slice_of(network(), loss)
    x, y, z = found.surface.grid(5)
    assert z.shape == (5, 5)
    assert z.dtype == np.float64
    assert z[1, 3] == value(found, x[3], y[1])
    assert found.surface.resolution <= 50  # each point is a pass over the data


def test_gradients_are_those_along_the_directions() -> None:
    model = network().double()
    found = slice_of(model, lambda m: (m(X.double()) ** 2).mean())
    at = torch.tensor([0.2, -0.4], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(found.surface(at[0], at[1]), at)
    h = 1e-6
    for k, step in enumerate(((h, 0.0), (0.0, h))):
        rise = value(found, 0.2 + step[0], -0.4 + step[1]) - value(
            found, 0.2 - step[0], -0.4 - step[1]
        )
        assert float(slope[k]) == pytest.approx(rise / (2 * h), rel=1e-6)


def test_optimizers_can_be_traced_on_it() -> None:
    found = slice_of(network(), loss)
    path = trace(found.surface, partial(optim.Adam, lr=0.1), start=(0.8, -0.8), steps=15)
    assert path.values[-1] < path.values[0]


@pytest.fixture
def normalised() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_the_model_is_left_bit_for_bit(normalised: nn.Module, train: bool) -> None:
    model = normalised.train(train)
    loss(model).backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    objects = [id(p) for p in model.parameters()]
    state = torch.get_rng_state()

    def turns_to_eval(m: nn.Module) -> Tensor:
        kept = loss(m)
        m.eval()
        return kept

    found = slice_of(model, turns_to_eval)
    found.surface.grid(3)
    at = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    found.surface(at[0], at[1]).backward()

    assert torch.equal(state, torch.get_rng_state())
    assert model.training is train
    assert [id(p) for p in model.parameters()] == objects
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for p, g in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(p.grad, g)


def test_dropout_and_batch_normalisation_make_no_noise(normalised: nn.Module) -> None:
    def warmed_up(m: nn.Module) -> Tensor:
        kept = loss(m.train())  # dropout, and the running averages move
        return kept + loss(m.eval())  # the running averages count

    found = slice_of(normalised, warmed_up)
    before = value(found, 0.3, 0.2)
    torch.rand(1)
    assert value(found, 0.3, 0.2) == before
    _, _, z = found.surface.grid(3)
    _, _, again = found.surface.grid(3)
    np.testing.assert_array_equal(z, again)


def test_the_slice_stays_where_it_was_when_training_goes_on() -> None:
    model = network()
    found = slice_of(model, loss)
    before = value(found, 0.0, 0.0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    assert value(found, 0.0, 0.0) == before


def test_a_failing_loss_leaves_the_model_too() -> None:
    model = network()
    before = snapshot(model)
    calls = []

    def fails_later(m: nn.Module) -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("no more")
        return loss(m)

    found = slice_of(model, fails_later)
    with pytest.raises(RuntimeError, match="no more"):
        value(found, 0.5, 0.5)
    assert torch.equal(snapshot(model), before)


def test_a_loss_that_is_a_module_keeps_its_own_parameters() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, m: nn.Module) -> Tensor:
            return self.scale * loss(m)

    model = network()
    found = slice_of(model, Scaled())
    assert len(found.origin) == len(snapshot(model))
    assert value(found, 0.0, 0.0) == pytest.approx(2 * number(loss(model)), rel=1e-6)


def test_shared_parameters_are_moved_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(3, 3, bias=False)
            self.two = nn.Linear(3, 3, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))

    model = Twice()
    found = slice_of(model, lambda m: (m(X) ** 2).mean())
    assert len(found.origin) == 9
    theta = found.origin + 0.5 * found.directions[0]
    want = number((moved(model, theta)(X) ** 2).mean())
    assert value(found, 0.5, 0.0) == pytest.approx(want, rel=1e-6)


def test_snapshots_are_projected_by_least_squares() -> None:
    rng = np.random.default_rng(0)
    model = network()
    count = len(snapshot(model))
    pair = tuple(torch.from_numpy(rng.normal(size=count)) for _ in range(2))  # not at right angles
    found = slice_of(model, loss, directions=pair)
    d1, d2 = (d.numpy() for d in pair)
    aside = rng.normal(size=count)
    aside -= np.linalg.qr(np.stack([d1, d2], 1))[0] @ (
        np.linalg.qr(np.stack([d1, d2], 1))[0].T @ aside
    )
    there = torch.from_numpy(found.origin + 1.5 * d1 - 0.25 * d2 + aside)
    np.testing.assert_allclose(found.project(there), (1.5, -0.25), atol=1e-10)


def test_a_training_run_becomes_a_trajectory() -> None:
    model, seen = training()
    found = slice_of(model, loss, directions="principal", snapshots=seen)
    assert found.explained is not None
    assert 0.8 < sum(found.explained) <= 1 + 1e-12
    path = found.trajectory(seen, "Adam")
    assert path.name == "Adam"
    assert path.points.shape == (len(seen), 2)
    np.testing.assert_allclose(path.points[-1], 0, atol=1e-12)  # the model is the last of them
    assert path.values[-1] == pytest.approx(number(loss(model)), rel=1e-6)
    for point, at in zip(path.points, path.values, strict=True):
        assert value(found, *point) == at
    left, right, bottom, top = found.surface.region
    assert ((path.points > [left, bottom]) & (path.points < [right, top])).all()
    assert path.values[0] > path.values[-1]


def test_random_directions_have_no_share_and_the_region_is_the_span() -> None:
    found = slice_of(network(), loss, span=0.5, name="mine")
    assert found.explained is None
    assert found.surface.region == (-0.5, 0.5, -0.5, 0.5)
    assert found.surface.name == "mine"


def test_a_snapshot_is_a_copy_in_the_order_of_the_parameters() -> None:
    model = network()
    taken = snapshot(model)
    want = nn.utils.parameters_to_vector(model.parameters()).detach().double()
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(taken, want)
    assert taken.dtype == torch.float64


NOT_LINEAR = nn.BatchNorm1d(3)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model": nn.ReLU()}, ValueError, "model must have parameters"),
        ({"model": "network"}, TypeError, "model must be a torch.nn.Module, got str"),
        ({"model": NOT_LINEAR}, ValueError, "the two directions must span a plane"),
        ({"loss": lambda m: m(X)}, ValueError, "loss must return one number, got a tensor"),
        ({"loss": lambda m: 0.5}, TypeError, "loss must return a tensor, got float 0.5"),
        ({"loss": lambda m: loss(m) * torch.nan}, ValueError, "the loss at the model's parameters"),
        ({"directions": "steepest"}, ValueError, "directions must be one of 'random', 'principal'"),
        ({"directions": torch.ones(2, 38)}, ValueError, "directions must be 'random'"),
        ({"directions": (torch.ones(3),) * 2}, ValueError, r"directions\[0\] must have shape"),
        ({"directions": (torch.ones(38),) * 2}, ValueError, "the two directions must span"),
        ({"directions": "principal"}, ValueError, "principal directions need snapshots"),
        ({"span": 0}, ValueError, "span must be a finite number > 0"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
    ],
    ids=[
        *("none", "string", "one-dimensional", "many", "float", "nan", "unknown", "matrix"),
        *("short", "parallel", "no-snapshots", "span", "seed"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    settings: dict[str, Any] = {"model": network(), "loss": loss, **changes}
    with pytest.raises(kind, match=f"^slice_of: {words}"):
        slice_of(settings.pop("model"), settings.pop("loss"), **settings)


def test_a_run_without_snapshots_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^trajectory: snapshots must hold at least one"):
        slice_of(network(), loss).trajectory([])


def test_a_snapshot_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^project: snapshot must have shape \(38,\)"):
        slice_of(network(), loss).project(torch.ones(5))


def test_parameters_that_are_complex_or_not_made_yet_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"slice_of: the model's parameters must be real .* call it"
    ):
        slice_of(torch.nn.LazyLinear(2), lambda model: torch.zeros(()))
    turned = torch.nn.Linear(2, 2, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"must be real .*, got torch.complex64"):
        slice_of(turned, lambda model: torch.zeros(()))
