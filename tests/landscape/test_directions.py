"""Directions through a network's parameters: filter-normalised, principal, one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.landscape.directions import check_plane, given, principal, random


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 3)
    )


def parts(model: nn.Module, direction: np.ndarray) -> dict[str, np.ndarray]:
    found, begin = {}, 0
    for name, p in model.named_parameters():
        found[name] = direction[begin : begin + p.numel()].reshape(p.shape)
        begin += p.numel()
    assert begin == len(direction)
    return found


def test_each_filter_of_a_random_direction_has_the_networks_norm() -> None:
    model = convolutional()
    with torch.no_grad():
        model[0].weight[2] = 0  # a dead filter stays dead
    for direction in random(model, seed=3):
        found = parts(model, direction)
        for name in ("0.weight", "4.weight"):
            own = dict(model.named_parameters())[name].detach().double().numpy()
            for ours, theirs in zip(found[name], own, strict=True):
                assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=1e-12)
        for name in ("0.bias", "1.weight", "1.bias", "4.bias"):
            assert not found[name].any()


def test_random_directions_are_the_seeds_and_leave_torchs_sequence() -> None:
    model = convolutional()
    state = torch.get_rng_state()
    first, again, other = (random(model, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first[0], first[1])


def test_frozen_parameters_stay() -> None:
    model = convolutional()
    model[0].weight.requires_grad_(False)
    found = parts(model, random(model, seed=0)[0])
    assert not found["0.weight"].any()
    assert found["4.weight"].any()


def snapshots(offsets: np.ndarray, origin: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(origin + o) for o in offsets]


def test_principal_directions_are_those_of_the_greatest_spread() -> None:
    rng = np.random.default_rng(0)
    origin = rng.normal(size=50)
    axes = np.linalg.qr(rng.normal(size=(50, 3)))[0].T
    weights = rng.normal(size=(20, 3)) * [10.0, 2.0, 0.1]
    offsets = weights @ axes
    plane, explained, _ = principal(origin, snapshots(offsets, origin), 1.0)
    np.testing.assert_allclose(plane @ plane.T, np.eye(2), atol=1e-12)
    # By the covariance's eigenvectors, another way to the same.
    values, vectors = np.linalg.eigh(offsets.T @ offsets)
    for direction, vector in zip(plane, vectors[:, [-1, -2]].T, strict=True):
        assert abs(direction @ vector) == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(explained, values[[-1, -2]] / values.sum(), rtol=1e-9)
    assert 0.9 < explained[0] < 1
    assert (offsets[0] @ plane.T > 0).all()  # the sign is settled


def test_the_region_holds_all_snapshots_and_the_model_with_a_margin() -> None:
    rng = np.random.default_rng(1)
    origin = rng.normal(size=10)
    offsets = rng.normal(size=(6, 10)) + 3
    for span in (1.0, 2.0):
        plane, _, (left, right, bottom, top) = principal(origin, snapshots(offsets, origin), span)
        at = np.vstack([offsets @ plane.T, [0, 0]])
        middle = (at.max(0) + at.min(0)) / 2
        extent = 1.3 * span * np.ptp(at, axis=0)
        np.testing.assert_allclose([right - left, top - bottom], extent)
        np.testing.assert_allclose([(right + left) / 2, (top + bottom) / 2], middle)


def test_ones_own_directions_are_taken_as_they_are() -> None:
    pair = (torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 3.0, 0.0]))
    np.testing.assert_array_equal(given(pair, 3), [[1, 0, 2], [0, 3, 0]])


def test_directions_must_span_a_plane() -> None:
    with pytest.raises(ValueError, match=r"^slice_of: the two directions must span a plane"):
        check_plane(np.array([[1.0, 2.0], [-2.0, -4.0]]))
    with pytest.raises(ValueError, match=r"^slice_of: the two directions must span a plane"):
        check_plane(np.array([[1.0, 2.0], [0.0, 0.0]]))
    check_plane(np.array([[1.0, 2.0], [-2.0, -4.001]]))


@pytest.mark.parametrize("count", [None, 0, 1])
def test_principal_directions_need_snapshots(count: int | None) -> None:
    some = None if count is None else [torch.ones(4)] * count
    with pytest.raises(ValueError, match=r"^slice_of: principal directions need snapshots"):
        principal(np.zeros(4), some, 1.0)


def test_snapshots_on_one_line_are_refused() -> None:
    line = [k * torch.arange(4.0) for k in (1, 2, 3)]
    with pytest.raises(ValueError, match=r"lie on one line.*take snapshots at more steps"):
        principal(np.zeros(4), line, 1.0)
    with pytest.raises(ValueError, match=r"lie on one line"):
        principal(np.zeros(4), [torch.zeros(4)] * 3, 1.0)


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        (torch.ones(3), ValueError, r"snapshots\[1\] must have shape \(4,\)"),
        (torch.full((4,), torch.nan), ValueError, r"snapshots\[1\] must be finite"),
        ([0.0] * 4, TypeError, r"snapshots\[1\] must be a tensor, got list"),
    ],
    ids=["shape", "nan", "list"],
)
def test_snapshots_must_fit(bad: torch.Tensor, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=f"^slice_of: {words}"):
        principal(np.zeros(4), [torch.ones(4), bad], 1.0)
