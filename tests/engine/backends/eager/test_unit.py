"""What the eager back end takes beyond the contract: autograd, rows, any layout, what raises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.engine.backends.contract import Stepper
from thalweg import optim
from thalweg.engine.backends.eager.backend import EagerBackend
from thalweg.engine.backends.eager.differentiable import DifferentiableUnit
from thalweg.rule import Rule, mean, norm


def sgd(p: Any, g: Any, s: Any, h: Any) -> Any:
    return p - h.lr * g


def momentum(p: Any, g: Any, s: Any, h: Any) -> Any:
    s.velocity = 0.5 * s.velocity + g
    return p - h.lr * s.velocity


def stepper(rule: Rule, params: list[Any], **options: Any) -> Stepper:
    return Stepper(EagerBackend(), rule, [{"params": params, "lr": 0.25, **options}])


# ---------------------------------------------------------------------------------------- autograd


def test_autograd_sees_a_tensor_option_and_sums() -> None:
    """The derivative of the sum of p - lr · ‖p‖ · g by lr is -‖p‖ · sum(g)."""

    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return p - h.lr * norm(p) * g

    lr = torch.tensor(0.5, requires_grad=True)
    p = torch.tensor([3.0, 4.0], requires_grad=True) * 1
    p.grad = torch.tensor([1.0, 2.0])
    run = stepper(Rule(rule), [p], lr=lr, differentiable=True)
    (unit,) = run.step()
    assert isinstance(unit, DifferentiableUnit)
    torch.testing.assert_close(p.detach(), torch.tensor([0.5, -1.0]))
    (found,) = torch.autograd.grad(p.sum(), lr)
    assert found.item() == pytest.approx(-5.0 * 3.0)


def test_states_of_a_differentiable_step_are_part_of_the_graph() -> None:
    p = torch.ones(2, requires_grad=True) * 1
    weight = torch.tensor(2.0, requires_grad=True)
    run = stepper(Rule(momentum, {"velocity": 0.0}), [p], differentiable=True)
    for _ in range(2):
        p.grad = weight * torch.ones(2)
        run.step()
    # Velocities are weight and 1.5 weight.
    (found,) = torch.autograd.grad(p.sum(), weight)
    assert found.item() == pytest.approx(2 * -0.25 * 2.5)


def test_autograd_sees_rows() -> None:
    p = torch.ones(3, 2, requires_grad=True) * 1
    values = torch.ones(1, 2, requires_grad=True)
    p.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), values, (3, 2), check_invariants=True)
    run = stepper(Rule(momentum, {"velocity": 1.0}), [p], differentiable=True)
    run.step(rows=True)
    torch.testing.assert_close(p.detach(), torch.tensor([[1.0, 1.0], [0.625, 0.625], [1.0, 1.0]]))
    (found,) = torch.autograd.grad(p.sum(), values)
    torch.testing.assert_close(found, torch.full((1, 2), -0.25))
    assert run.state[p]["velocity"].detach().tolist() == [[1, 1], [1.5, 1.5], [1, 1]]


# -------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_only_the_rows_present_are_updated(dtype: torch.dtype) -> None:
    start = torch.randn(6, 3, dtype=dtype)
    p, few = Parameter(start.clone()), Parameter(start[[1, 4]].clone())
    values = torch.randn(3, 3, dtype=dtype)
    # Row 4 twice: its values are added.
    g = torch.sparse_coo_tensor(torch.tensor([[4, 1, 4]]), values, (6, 3), check_invariants=True)
    rule = Rule(momentum, {"velocity": 0.0})
    whole, rows = stepper(rule, [p]), stepper(rule, [few])
    for _ in range(2):
        p.grad, few.grad = g, torch.stack([values[1], values[0] + values[2]])
        whole.step(rows=True)
        rows.step()
    assert torch.equal(p[[1, 4]], few)
    assert torch.equal(p[[0, 2, 3, 5]], start[[0, 2, 3, 5]])
    assert not torch.equal(few, start[[1, 4]])
    assert torch.equal(whole.state[p]["velocity"][[1, 4]], rows.state[few]["velocity"])
    assert whole.state[p]["velocity"][0].abs().sum() == 0


def test_sums_over_a_sparse_gradients_rows() -> None:
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        return p - h.lr * norm(g) * mean(g) * g

    p = Parameter(torch.zeros(4, 2))
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    p.grad = torch.sparse_coo_tensor(torch.tensor([[0, 2]]), values, (4, 2), check_invariants=True)
    stepper(Rule(rule), [p]).step(rows=True)
    torch.testing.assert_close(p.detach()[[0, 2]], -0.25 * 30**0.5 * 2.5 * values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_sparse_gradients_may_be_filled_up_with_zeros(dtype: torch.dtype) -> None:
    start, g = torch.randn(6, 3, dtype=dtype), torch.randn(6, 3, dtype=dtype)
    g[::2] = 0
    params = [Parameter(start.clone()) for _ in range(2)]
    params[0].grad, params[1].grad = g.to_sparse(), g
    for p in params:
        stepper(Rule(sgd), [p]).step()
    assert torch.equal(*params)
    assert not torch.equal(params[0], start)


# ------------------------------------------------------------------------- layouts, views, failures


def test_views_that_conjugate_and_negate() -> None:
    z = torch.randn(5, dtype=torch.complex64)
    start, g = z.conj(), torch.randn(5, dtype=torch.complex64).conj()
    assert start.is_conj()
    assert g.is_conj()
    expected = start.resolve_conj() - 0.25 * g.resolve_conj()
    p = Parameter(start)
    p.grad = g
    stepper(Rule(sgd), [p]).step()
    torch.testing.assert_close(p.detach().resolve_conj(), expected)
    negated = torch.randn(5, dtype=torch.complex64).conj().imag
    assert negated.is_neg()
    q = Parameter(torch.zeros(5))
    q.grad = negated
    stepper(Rule(sgd), [q]).step()
    torch.testing.assert_close(q.detach(), -0.25 * negated.resolve_neg())


class Stubborn(Tensor):
    """A gradient that no arithmetic is done with."""

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.add_:
            raise RuntimeError("stubborn")
        return super().__torch_function__(function, types, args, kwargs or {})


def test_what_was_updated_before_an_error_is_counted() -> None:
    params = [Parameter(torch.zeros(2)) for _ in range(4)]
    run = stepper(Rule(sgd), params)
    for p in params:
        p.grad = torch.ones(2)
    run.step()
    params[2].grad = torch.ones(2).as_subclass(Stubborn)
    with pytest.raises(RuntimeError, match="stubborn"):
        run.step()
    moved = [p.detach()[0].item() for p in params]
    assert moved == [-0.5, -0.5, -0.25, -0.25]
    assert run.scalars.table[:, 0].tolist() == [2, 2, 1, 1]


def test_a_tensor_that_changed_asks_for_another_unit() -> None:
    p = Parameter(torch.zeros(2))
    p.grad = torch.ones(2)
    adam = optim.Adam([p])
    run = Stepper(EagerBackend(), adam.rule, adam.param_groups)
    (unit,) = run.step()
    assert unit.look(True)
    p.data = torch.zeros(2, dtype=torch.float64)
    assert not unit.look(False)
    p.data = torch.zeros(2)
    p.grad = torch.ones(2)
    assert unit.look(False)
    run.state[p]["exp_avg"].data = torch.zeros(3)
    assert unit.look(False)
    assert not unit.look(True)
