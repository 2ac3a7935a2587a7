"""How the losses behave within autograd, and their modules when they are copied."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch

from tests.losses.examples import CASES, MODULES, Case, Tensor
from thalweg import losses

EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=str)
REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])


def ready(case: Case, shape: tuple[int, ...] = (6, 5)) -> tuple[dict[str, Tensor], Tensor]:
    """Operands, the first of which requires a gradient; and that one."""
    operands = case.make(shape)
    first = next(iter(operands.values())).requires_grad_()
    return operands, first


def torchs_gradient(case: Case, operands: dict[str, Tensor], reduction: str) -> Tensor:
    first, *others = operands
    leaf = operands[first].detach().requires_grad_()
    given = {first: leaf, **{n: operands[n] for n in others}}
    loss = case.torchs(given, reduction=reduction).sum()
    return torch.autograd.grad(loss, leaf)[0]


def assert_backward_repeats(loss: Tensor, first: Tensor, wanted: Tensor) -> None:
    loss.backward(retain_graph=True)
    assert first.grad is not None
    kept = first.grad
    kept.mul_(3.0)  # a gradient in use must not be what the second backward hands out
    first.grad = None
    loss.backward(retain_graph=True)
    torch.testing.assert_close(first.grad, wanted)
    torch.testing.assert_close(kept, 3 * wanted)
    first.grad = None
    loss.backward()
    torch.testing.assert_close(first.grad, wanted)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@EVERY_CASE
@REDUCTIONS
def test_backward_twice_gives_the_gradient_twice(case: Case, reduction: str) -> None:
    operands, first = ready(case)
    wanted = torchs_gradient(case, operands, reduction)
    assert_backward_repeats(case.ours(operands, reduction=reduction).sum(), first, wanted)


@EVERY_CASE
def test_gradients_accumulate(case: Case) -> None:
    operands, first = ready(case)
    loss = case.ours(operands, reduction="mean")
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(first.grad, 2 * torchs_gradient(case, operands, "mean"))


@pytest.mark.parametrize("factor", [2.5, 0.0, -1.0, 65536.0])
def test_scaled_loss(factor: float) -> None:
    for case in CASES:
        operands, first = ready(case)
        (case.ours(operands, reduction="mean") * factor).backward()
        wanted = factor * torchs_gradient(case, operands, "mean")
        torch.testing.assert_close(first.grad, wanted, rtol=1e-5, atol=1e-6 * abs(factor))


@EVERY_CASE
@REDUCTIONS
def test_differentiable_gradient(case: Case, reduction: str) -> None:
    found = []
    for call in (case.ours, case.torchs):
        torch.manual_seed(0)
        operands, first = ready(case)
        loss = call(operands, reduction=reduction)
        (slope,) = torch.autograd.grad((loss * loss).sum(), first, create_graph=True)
        assert slope.requires_grad
        found.append((slope.detach(), *torch.autograd.grad((slope * slope).sum(), first)))
    torch.testing.assert_close(*found, rtol=2e-5, atol=1e-6)


@EVERY_CASE
@REDUCTIONS
def test_without_gradients(case: Case, reduction: str) -> None:
    operands, _ = ready(case)
    wanted = case.ours(operands, reduction=reduction).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = case.ours(operands, reduction=reduction)
        assert not found.requires_grad
        assert torch.equal(found, wanted)
    plain = {name: t.detach() for name, t in operands.items()}
    assert case.ours(plain, reduction=reduction).grad_fn is None


@pytest.mark.parametrize("case", [c for c in CASES if "target" not in c.undifferentiated], ids=str)
@REDUCTIONS
def test_gradient_of_the_target_only(case: Case, reduction: str) -> None:
    operands = case.make((6, 5))
    operands["target"].requires_grad_()
    ours = case.ours(operands, reduction=reduction).sum()
    torchs = case.torchs(operands, reduction=reduction).sum()
    torch.testing.assert_close(
        torch.autograd.grad(ours, operands["target"]),
        torch.autograd.grad(torchs, operands["target"]),
    )


@pytest.mark.parametrize(
    "name", ["mse_loss", "l1_loss", "huber_loss", "binary_cross_entropy", "kl_div"]
)
@REDUCTIONS
@pytest.mark.filterwarnings("ignore:.*reduction.*mean.*:UserWarning")
def test_one_tensor_as_input_and_target(name: str, reduction: str) -> None:
    x = (torch.rand(7) * 0.9 + 0.05).requires_grad_()
    found = []
    for module in (losses, torch.nn.functional):
        loss = getattr(module, name)(x, x, reduction=reduction)
        found.append((loss.detach(), *torch.autograd.grad(loss.sum(), x)))
    torch.testing.assert_close(*found)


@EVERY_CASE
def test_operands_are_left_as_they_are(case: Case) -> None:
    operands, _ = ready(case)
    before = {name: t.detach().clone() for name, t in operands.items()}
    case.ours(operands, reduction="mean").backward()
    assert all(torch.equal(operands[name], t) for name, t in before.items())


def assert_change_is_noticed(
    ours: Callable[..., Tensor],
    operands: dict[str, Tensor],
    first: Tensor,
    reduction: str,
    wanted: Tensor,
) -> None:
    """A reduced loss has its gradient from the forward pass; what is computed later refuses."""
    middle = first * 1.0
    loss = ours({**operands, next(iter(operands)): middle}, reduction=reduction).sum()
    with torch.no_grad():
        middle.mul_(0.5)
    if reduction != "none":
        loss.backward(retain_graph=True)
        torch.testing.assert_close(first.grad, wanted)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@EVERY_CASE
@REDUCTIONS
def test_change_of_an_operand_gives_no_wrong_gradient(case: Case, reduction: str) -> None:
    operands, first = ready(case)
    wanted = torchs_gradient(case, operands, reduction)
    assert_change_is_noticed(case.ours, operands, first, reduction, wanted)


def test_operands_may_change_after_backward() -> None:
    operands, first = ready(CASES[2])
    middle = first * 1.0
    CASES[2].ours({**operands, "input": middle}, reduction="mean").backward()
    with torch.no_grad():
        middle.zero_()
        operands["target"].zero_()
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["MSELoss", "HuberLoss", "BCEWithLogitsLoss", "BCELoss"])
# The compiler itself looks at the gradient of the loss, and uses what it deprecates.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_compiled_training_step(name: str) -> None:
    x, y = torch.randn(8, 3), torch.rand(8, 1)
    found = []
    for compiled in (False, True):
        torch.manual_seed(1)
        net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Sigmoid())
        loss = getattr(losses, name)()

        def step(net=net, loss=loss) -> Tensor:
            total: Tensor = loss(net(x), y)
            total.backward()
            return total

        run: Callable[[], Tensor] = step
        if compiled:
            run = torch.compile(step, backend="eager", fullgraph=False)
        total = run()
        found.append((total.detach(), *[p.grad for p in net.parameters()]))
    torch.compiler.reset()
    torch.testing.assert_close(*found)


# ------------------------------------------------------------------------------ modules


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_modules(name: str, copied: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    module = getattr(losses, name)(reduction="sum")
    if hasattr(module, "weight"):
        module.weight = torch.tensor([2.0, 3.0])
    twin = copied(module)
    assert type(twin) is type(module)
    assert repr(twin) == repr(module)
    assert str(twin.state_dict()) == str(module.state_dict())
    arguments = [
        torch.rand(4, 2) for _ in range(2 + (name in ("GaussianNLLLoss", "MarginRankingLoss")))
    ]
    assert torch.equal(twin(*arguments), module(*arguments))
