"""The autograd functions, with an evaluator that counts its calls: which pass runs when."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from thalweg import losses
from thalweg.losses.evaluation.autograd import evaluated
from thalweg.losses.evaluation.evaluator import Gradients, Needed, Tensors
from thalweg.rule.formula import BACKWARD, EACH, FACTOR, SUM


class Cube:
    """x^3 times a scale; notes the kind and scale of each call."""

    def __init__(
        self, kind: str, dtype: torch.dtype, scale: float, calls: list[tuple[str, float]]
    ) -> None:
        self.kind, self.dtype, self.scale, self.calls = kind, dtype, scale, calls

    def __call__(
        self, values: Tensors, *values_or_upstream: Tensor
    ) -> tuple[list[float], Gradients]:
        self.calls.append((self.kind, self.scale))
        x = values[0].detach().double()
        slope = 3 * x * x
        if self.kind == SUM:
            return [x.pow(3).sum().item()], [(slope * self.scale).to(self.dtype)]
        if self.kind == EACH:
            values_or_upstream[0].copy_(x.pow(3))
            return [], [None]
        return [], [(slope * values_or_upstream[0]).to(self.dtype)]

    def with_kind(self, kind: str, needed: Needed, **options: Any) -> Cube:
        assert needed == (True,)
        return Cube(kind, self.dtype, options.get(FACTOR, self.scale), self.calls)

    def arranged(self, values: list[Tensor]) -> tuple[Cube, list[Tensor]]:
        return self, values

    def new_values(self, values: Tensors) -> Tensor:
        return torch.empty_like(values[0])

    def arranged_upstream(self, upstream: Tensor, values: Tensors) -> Tensor:
        return upstream

    def by_tensor_operations(self, values: Tensors) -> Tensor:
        self.calls.append(("tensors", self.scale))
        each = values[0] ** 3
        return each if self.kind == EACH else each.sum() * self.scale


def called(kind: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, list[Any]]:
    x = torch.tensor([1.0, -2.0], dtype=dtype, requires_grad=True)
    calls: list[tuple[str, float]] = []
    return evaluated(Cube(kind, dtype, 0.5, calls), [x], (True,)), x, calls


def test_a_sum_has_its_gradient_from_the_forward_pass_once() -> None:
    loss, x, calls = called(SUM)
    assert loss.item() == -3.5
    assert calls == [(SUM, 0.5)]
    for count in (1, 2):
        (slope,) = torch.autograd.grad(2 * loss, x, retain_graph=True)
        assert slope.tolist() == [3.0, 12.0]
        slope.zero_()
        assert calls == [(SUM, 0.5)] * count


def test_a_factor_comes_before_rounding_to_float16() -> None:
    loss, x, calls = called(SUM, torch.float16)
    (slope,) = torch.autograd.grad(2**-10 * loss, x)
    assert slope.tolist() == [1.5 * 2**-10, 6 * 2**-10]
    assert calls == [(SUM, 0.5), (SUM, 0.5 * 2**-10)]


def test_values_have_a_pass_for_backward() -> None:
    loss, x, calls = called(EACH)
    assert loss.tolist() == [1.0, -8.0]
    (slope,) = torch.autograd.grad(loss, x, torch.tensor([1.0, 10.0], dtype=torch.float64))
    assert slope.tolist() == [3.0, 120.0]
    assert [kind for kind, _ in calls] == [EACH, BACKWARD]


@pytest.mark.parametrize("kind", [SUM, EACH])
def test_a_second_derivative_is_of_tensor_operations(kind: str) -> None:
    loss, x, calls = called(kind)
    (slope,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), x)
    scale = 0.5 if kind == SUM else 1.0
    assert second.tolist() == [6.0 * scale, -12.0 * scale]
    assert [kind for kind, _ in calls] == [kind, "tensors"]


@pytest.mark.parametrize("kind", [SUM, EACH])
def test_without_gradients_nothing_is_recorded(kind: str) -> None:
    x = torch.ones(2, dtype=torch.float64)
    calls: list[tuple[str, float]] = []
    loss = evaluated(Cube(kind, x.dtype, 0.5, calls), [x], ())
    assert loss.grad_fn is None
    assert len(calls) == 1


def test_a_sum_beyond_the_range_of_its_dtype_is_infinite() -> None:
    x = torch.tensor([-(2.0**15)], dtype=torch.float16)
    loss = evaluated(Cube(SUM, torch.float16, 0.5, []), [x], ())
    assert loss.item() == -torch.inf


def test_there_is_one_telling_of_autograd() -> None:
    """What evaluates a loss goes through this module; zero_one only refuses a backward."""
    root = Path(losses.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            bases = node.bases if isinstance(node, ast.ClassDef) else []
            if any(ast.unparse(base).endswith("autograd.Function") for base in bases):
                found.add(path.relative_to(root).as_posix())
    assert found == {"evaluation/autograd.py", "zero_one.py"}
