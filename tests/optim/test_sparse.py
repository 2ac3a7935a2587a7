"""Sparse COO gradients: SGD, Adagrad and SparseAdam against torch in float64 and the papers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import thalweg.optim as optim
from tests.optim.problems import (
    DENSE,
    bits,
    default_dtype,
    defaults,
    largest,
    snapshot,
    torchs_sparse_warning,
    ulp,
)
from tests.references.optimizers import RULES

pytestmark = torchs_sparse_warning

TAKES_SPARSE: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "maximize": True}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": torch.tensor(0.01)}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.5, "eps": 1e-6}),
    ("Adagrad", {"initial_accumulator_value": 0.1, "maximize": True}),
    ("SparseAdam", {}),
    ("SparseAdam", {"lr": 0.01}),
    ("SparseAdam", {"lr": torch.tensor(0.001)}),
    ("SparseAdam", {"maximize": True, "betas": (0.8, 0.9), "eps": 1e-4}),
]
every_configuration = pytest.mark.parametrize(
    ("name", "options"), TAKES_SPARSE, ids=lambda v: v if isinstance(v, str) else ",".join(v) or "-"
)

# (shape, sparse dimensions)
SHAPES = [((7, 3), 1), ((5, 4), 2), ((6,), 1), ((4, 3, 2), 2), ((4, 3, 2), 1)]
STEPS = 12


def gradients(dtype: torch.dtype) -> list[list[Tensor]]:
    """For every step and shape a gradient: uncoalesced with repeats, coalesced, or of nothing."""
    generator = torch.Generator().manual_seed(5)

    def draw(step: int, shape: tuple[int, ...], sparse: int) -> Tensor:
        count = 0 if step % 5 == 3 else 4
        indices = torch.stack(
            [torch.randint(0, n, (count,), generator=generator) for n in shape[:sparse]]
        )
        if count:
            indices[:, -1] = indices[:, 0]
        values = torch.randn(count, *shape[sparse:], generator=generator, dtype=torch.float32).to(
            dtype
        )
        made = torch.sparse_coo_tensor(indices, values, shape, check_invariants=True)
        return made.coalesce() if step % 5 == 2 else made

    return [[draw(step, *shape) for shape in SHAPES] for step in range(STEPS)]


def starts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(6)
    return [torch.randn(s, generator=generator, dtype=torch.float32) for s, _ in SHAPES]


def follow(make: Any, options: dict[str, Any], dtype: torch.dtype) -> tuple[list[Tensor], Any]:
    parameters = [start.to(dtype).requires_grad_() for start in starts()]
    optimizer = make(parameters, **options)
    points = []
    for step, given in enumerate(gradients(dtype)):
        if step == STEPS // 2:
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"] * 0.5
        for p, g in zip(parameters, given, strict=True):
            p.grad = g
        optimizer.step()
        points.append(torch.cat([p.detach().double().reshape(-1) for p in parameters]))
    return points, optimizer


def doubled(options: dict[str, Any]) -> dict[str, Any]:
    return {k: v.double() if isinstance(v, Tensor) else v for k, v in options.items()}


def exactly(name: str, options: dict[str, Any]) -> Tensor:
    with default_dtype(torch.float64):
        return torch.stack(follow(getattr(torch.optim, name), doubled(options), torch.float64)[0])


@every_configuration
def test_agrees_with_torch(name: str, options: dict[str, Any]) -> None:
    exact = exactly(name, options)
    double = torch.stack(follow(getattr(optim, name), options, torch.float64)[0])
    assert largest(double - exact) <= 1e-12 * largest(exact)
    ours = torch.stack(follow(getattr(optim, name), options, torch.float32)[0])
    theirs = torch.stack(follow(getattr(torch.optim, name), options, torch.float32)[0])
    allowed = max(1.5 * largest(theirs - exact), 4 * ulp(largest(exact), torch.float32))
    assert largest(ours - exact) <= allowed


@every_configuration
def test_the_papers_agree_with_torch(name: str, options: dict[str, Any]) -> None:
    """SGD and Adagrad leave a row with a zero gradient and no history alone, so their dense rules
    serve; SparseAdam's rule is for the rows present. A step without rows counts for Adagrad's decay
    and SparseAdam's bias correction.
    """  # fmt: skip
    known = defaults(name) | options
    h = SimpleNamespace(**{k: v.item() if isinstance(v, Tensor) else v for k, v in known.items()})
    points = [start.double().numpy() for start in starts()]
    states: list[dict[str, Any]] = [{} for _ in SHAPES]
    sign = -1.0 if h.maximize else 1.0
    for step, given in enumerate(gradients(torch.float64)):
        if step == STEPS // 2:
            h.lr *= 0.5
        for i, g in enumerate(given):
            dense = sign * g.to_dense().numpy()
            if name != "SparseAdam":
                points[i] = RULES[name](points[i], dense, states[i], step + 1, h)
                continue
            pattern = torch.ones_like(g.coalesce().values())
            rows = torch.sparse_coo_tensor(
                g.coalesce().indices(), pattern, g.shape, check_invariants=True
            )
            here = rows.to_dense().numpy() > 0
            full = {k: states[i].get(k, np.zeros_like(dense)) for k in ("exp_avg", "exp_avg_sq")}
            part = {key: value[here] for key, value in full.items()}
            points[i] = points[i].copy()
            points[i][here] = RULES[name](points[i][here], dense[here], part, step + 1, h)
            for key, value in full.items():
                value[here] = part[key]
            states[i] = full
    last = torch.cat([torch.from_numpy(point).reshape(-1) for point in points])
    exact = exactly(name, options)[-1]
    assert largest(last - exact) <= 1e-12 * largest(exact)


@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_sparse_and_dense_gradients_side_by_side(name: str) -> None:
    def train(cls: Any) -> list[Tensor]:
        torch.manual_seed(3)
        embedding, head = nn.Embedding(9, 4, sparse=True), nn.Linear(4, 1)
        optimizer = cls([*embedding.parameters(), *head.parameters()], lr=0.1)
        for step in range(5):
            optimizer.zero_grad()
            head(embedding(torch.tensor([step, 2, step]))).square().sum().backward()
            assert embedding.weight.grad.is_sparse
            optimizer.step()
        return [embedding.weight.detach(), *(p.detach() for p in head.parameters())]

    for ours, theirs in zip(
        train(getattr(optim, name)), train(getattr(torch.optim, name)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_gradient_may_change_from_sparse_to_dense() -> None:
    """Adagrad's state is dense in both cases, so torch allows it."""

    def train(cls: Any) -> Tensor:
        p = torch.ones(4, 2, requires_grad=True)
        optimizer = cls([p], lr=0.1)
        for step in range(4):
            g = torch.zeros(4, 2)
            g[step % 3] = 0.5 + step
            p.grad = g if step % 2 else g.to_sparse(1)
            optimizer.step()
        return p.detach()

    torch.testing.assert_close(train(optim.Adagrad), train(torch.optim.Adagrad))


@every_configuration
def test_rows_that_are_absent_do_not_move(name: str, options: dict[str, Any]) -> None:
    p = torch.arange(8.0).reshape(4, 2).requires_grad_()
    before = p.detach().clone()
    optimizer = getattr(optim, name)([p], **options)
    p.grad = torch.sparse_coo_tensor(
        torch.tensor([[2, 2]]), torch.ones(2, 2), (4, 2), check_invariants=True
    )
    held = p.grad
    optimizer.step()
    assert p.grad is held
    assert not p.grad.is_coalesced(), "the gradient was changed"
    assert bits(p[[0, 1, 3]]) == bits(before[[0, 1, 3]])
    assert (p[2] != before[2]).all()


def two(second: Tensor) -> list[Tensor]:
    """Two parameters of shape (3, 2); the first has a good gradient, the second this one."""
    parameters = [torch.ones(3, 2, requires_grad=True) for _ in range(2)]
    parameters[0].grad = torch.ones(3, 2)
    parameters[1].grad = second
    return parameters


def assert_step_refused(optimizer: Any) -> None:
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match=r"sparse|dense"):
        optimizer.step()
    assert snapshot(optimizer) == before, "a refused step changed something"


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("name", [name for name in DENSE if name not in ("SGD", "Adagrad")])
def test_sparse_gradients_are_refused_where_the_rule_has_none(name: str, fused: Any) -> None:
    parameters = two(torch.ones(3, 2).to_sparse())
    assert_step_refused(getattr(optim, name)(parameters, fused=fused))


@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_weight_decay_excludes_sparse_gradients(name: str) -> None:
    """As in torch: it would touch every row."""
    parameters = two(torch.ones(3, 2).to_sparse())
    assert_step_refused(getattr(optim, name)(parameters, weight_decay=0.1))


def test_sparse_adam_refuses_dense_gradients() -> None:
    parameters = two(torch.ones(3, 2))
    parameters[0].grad = torch.ones(3, 2).to_sparse()
    assert_step_refused(optim.SparseAdam(parameters))
