"""A second operand that the owner gives in place of gradients: looked at at every step alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg.engine.backends.cpu import addresses as native
from thalweg.engine.backends.cpu.unit import KernelUnit
from thalweg.engine.backends.eager.backend import EagerUnit
from thalweg.engine.engine import Engine
from thalweg.engine.state import OptimizerState
from thalweg.rule import Rule, lerp


@pytest.fixture(params=[True, False], ids=["native", "python"], autouse=True)
def _native(request, monkeypatch) -> None:
    """Tensors are looked at through torch's C functions, or from Python."""
    if not request.param:
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("this torch does not export the functions")


def halfway(p, g, s, h):
    s.seen = g
    return lerp(p, g, h.weight)


class Owner:
    """Two groups, and the engine of a rule that moves each parameter towards its value."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        shapes = [[(4, 3), (5,)], [(), (2, 3, 4), (0, 2)]]
        self.param_groups: list[dict[str, Any]] = [
            {"params": [Parameter(draw(*shape)) for shape in group], "weight": weight}
            for group, weight in zip(shapes, (0.25, 0.75), strict=True)
        ]
        self.state = OptimizerState()
        self.fused: bool | None = None
        self.values = [[draw(*shape) for shape in group] for group in shapes]
        self.engine = Engine(Rule(halfway, {"seen": 0.0}), self, self.values)
        self.plans = 0

    def check_program(self, rule: Any, program: Any) -> None:
        pass

    def before_plan(self) -> None:
        self.plans += 1

    def sparse_gradient(self, options: Any) -> str:
        return "dense"

    def dense_gradient(self, options: Any) -> None:
        """Dense values are fine."""

    def check_options(self, options: Any) -> None:
        """Options are fine."""

    def pairs(self) -> list[tuple[Tensor, Tensor, float]]:
        return [
            (p, value, group["weight"])
            for group, values in zip(self.param_groups, self.engine.values, strict=True)
            for p, value in zip(group["params"], values, strict=True)
        ]

    def step(self) -> None:
        """Step, and check every parameter and its state."""
        with torch.no_grad():
            wanted = [
                (torch.lerp(p.double(), value.to_dense().double(), weight), value.clone())
                for p, value, weight in self.pairs()
            ]
        self.engine.step()
        for (p, value, _), (want, before) in zip(self.pairs(), wanted, strict=True):
            torch.testing.assert_close(p.detach().double(), want, rtol=1e-2, atol=1e-2)
            seen = self.state[p]["seen"]
            assert torch.equal(seen, before.to_dense().to(seen.dtype))
            assert torch.equal(value.to_dense(), before.to_dense())
            assert p.grad is None


def another_value(owner: Owner) -> None:
    owner.values[0][1] = torch.randn(5)


def moved_value(owner: Owner) -> None:
    owner.values[0][0].data = torch.randn(4, 3)


def written_value(owner: Owner) -> None:
    owner.values[1][1].fill_(3.0)


def swapped_value(owner: Owner) -> None:
    torch.utils.swap_tensors(owner.values[0][1], torch.randn(5))


def exchanged_values(owner: Owner) -> None:
    owner.values[0][0].data, owner.values[1][1].data = torch.ones(4, 3), torch.zeros(2, 3, 4)


def turned_value(owner: Owner) -> None:
    owner.values[0][0].data = torch.randn(3, 4).t()


def expanded_value(owner: Owner) -> None:
    owner.values[0][1].data = torch.randn(()).expand(5)


def negated_value(owner: Owner) -> None:
    owner.values[0][1].data = torch._neg_view(torch.randn(5))


def wider_value(owner: Owner) -> None:
    owner.values[0][1] = torch.randn(5, dtype=torch.float64)


def narrower_values(owner: Owner) -> None:
    owner.engine.values = [[v.bfloat16() for v in values] for values in owner.values]


def whole_numbers(owner: Owner) -> None:
    owner.values[0][1] = torch.arange(5)


def sparse_value(owner: Owner) -> None:
    owner.values[0][0] = torch.randn(4, 3).to_sparse()


def a_subclass(owner: Owner) -> None:
    owner.values[0][1] = torch.randn(5).as_subclass(type("Own", (torch.Tensor,), {}))


def moved_parameter(owner: Owner) -> None:
    owner.param_groups[0]["params"][0].data = torch.randn(4, 3)


def negated_parameter(owner: Owner) -> None:
    p = owner.param_groups[0]["params"][1]
    p.data = torch._neg_view(p.data)  # the same memory, read otherwise


def another_parameter(owner: Owner) -> None:
    owner.param_groups[1]["params"][1] = Parameter(torch.randn(2, 3, 4))


def one_pair_less(owner: Owner) -> None:
    owner.param_groups[0]["params"].pop()
    owner.values[0].pop()


def one_pair_more(owner: Owner) -> None:
    owner.param_groups[0]["params"].append(Parameter(torch.randn(6)))
    owner.values[0].append(torch.randn(6))


CHANGES = [
    another_value, moved_value, written_value, swapped_value, exchanged_values, turned_value,
    expanded_value, negated_value, wider_value, narrower_values, whole_numbers, sparse_value,
    a_subclass, moved_parameter, negated_parameter, another_parameter, one_pair_less,
    one_pair_more,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_values_are_looked_at_at_every_step(change: Callable[[Owner], None]) -> None:
    owner = Owner()
    for _ in range(3):
        owner.step()
    torch.manual_seed(1)
    change(owner)
    for _ in range(3):
        owner.step()


@pytest.mark.parametrize("dtype", native.SCALAR_TYPES, ids=str)
def test_every_format(dtype: torch.dtype) -> None:
    owner = Owner(dtype)
    for _ in range(3):
        owner.step()
    assert {type(unit) for unit in owner.engine.units} == {KernelUnit}


def test_a_plan_is_kept_while_nothing_changes() -> None:
    owner = Owner()
    for _ in range(5):
        owner.step()
        written_value(owner)
    assert owner.plans == 1
    owner.engine.plan_anew()
    owner.step()
    assert owner.plans == 2


def test_a_gradient_is_not_what_the_rule_is_given() -> None:
    owner = Owner()
    for p, _, _ in owner.pairs():
        p.grad = torch.full_like(p, float("nan"))
    owner.engine.step()
    assert all(bool(p.isfinite().all()) for p, _, _ in owner.pairs())


def test_complex_values_may_be_conjugated_later() -> None:
    owner = Owner(torch.complex64)
    value = torch.tensor([1 + 2j, 3 - 1j, 0j, 1j, 2 + 0j], dtype=torch.complex64)
    for given in (value, value.conj()):
        owner.values[0][1] = given
        owner.param_groups[0]["params"][1].data.zero_()
        owner.engine.step()
        torch.testing.assert_close(owner.param_groups[0]["params"][1].detach(), 0.25 * given)


def test_a_conjugated_parameter_runs_eagerly() -> None:
    owner = Owner(torch.complex64)
    owner.engine.step()
    p, value = owner.param_groups[0]["params"][1], owner.values[0][1]
    p.data = p.data.conj()
    want = p.detach() + 0.25 * (value - p.detach())
    owner.engine.step()
    torch.testing.assert_close(p.detach().resolve_conj(), want.resolve_conj())
    assert {type(unit) for unit in owner.engine.units} == {KernelUnit, EagerUnit}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(4), r"the value of parameter 1 of group 0, .* has shape \(4,\).*Replace it"),
        (torch.ones(5, device="meta"), "the value of parameter 1 of group 0, .* is on meta"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_anything_changes(
    value: Tensor, message: str
) -> None:
    owner = Owner()
    owner.step()
    owner.values[0][1] = value
    before = [p.detach().clone() for p, _, _ in owner.pairs()]
    for _ in range(2):
        with pytest.raises(RuntimeError, match=message):
            owner.engine.step()
    assert all(torch.equal(p, b) for (p, _, _), b in zip(owner.pairs(), before, strict=True))
    owner.values[0][1] = torch.ones(5)
    owner.step()
