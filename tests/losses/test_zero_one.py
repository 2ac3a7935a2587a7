"""The share of errors: against counting, and what becomes of training with it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import forward_ad

from thalweg.losses.zero_one import ZeroOneLoss, zero_one_loss

Tensor = torch.Tensor
NAN, INF = math.nan, math.inf


def counted(scores: Tensor, target: Tensor) -> Tensor:
    """Row by row: right if the target's score is above those before and not below those after."""
    rows = scores.movedim(1, -1).reshape(-1, scores.shape[1]).tolist()
    found = []
    for row, y in zip(rows, target.reshape(-1).tolist(), strict=True):
        right = all(s < row[y] for s in row[:y]) and all(s <= row[y] for s in row[y:])
        found.append(0.0 if right else 1.0)
    return torch.tensor(found, dtype=scores.dtype).reshape(target.shape)


@pytest.mark.parametrize("size", [(7, 3), (1, 5), (0, 3), (4, 1), (5, 3, 2), (2, 4, 3, 6)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_classes(size: tuple[int, ...], dtype: torch.dtype) -> None:
    scores = torch.randint(-3, 3, size).to(dtype)  # with ties
    target = torch.randint(0, size[1], (size[0], *size[2:]))
    each = counted(scores, target)
    for reduction, wanted in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
        found = zero_one_loss(scores, target, reduction)
        torch.testing.assert_close(found, wanted, equal_nan=True)
        assert torch.equal(zero_one_loss(scores, target.int(), reduction).isnan(), found.isnan())
    strided = scores.movedim(1, -1).contiguous().movedim(-1, 1)
    assert torch.equal(zero_one_loss(strided, target, "none"), each)


def test_one_row_of_scores() -> None:
    scores = torch.tensor([0.1, 0.7, 0.2])
    assert [zero_one_loss(scores, torch.tensor(y)).item() for y in range(3)] == [1.0, 0.0, 1.0]
    assert zero_one_loss(scores, torch.tensor(1), "none").shape == ()


def test_odd_scores_of_classes() -> None:
    scores = torch.tensor(
        [[INF, 1.0], [-INF, -INF], [NAN, 1.0], [1.0, NAN], [NAN, NAN], [0.0, -0.0]]
    )
    for y, wanted in ((0, [0, 0, 1, 1, 1, 0]), (1, [1, 1, 1, 1, 1, 1])):
        assert zero_one_loss(scores, torch.full((6,), y), "none").tolist() == wanted


def test_signs() -> None:
    scores = [2.0, -2.0, 0.0, -0.0, 1e-45, -1e-45, INF, -INF, NAN]
    of_one, of_minus_one = [0, 1, 1, 1, 0, 1, 0, 1, 1], [1, 0, 1, 1, 1, 0, 1, 0, 1]
    for sign, wanted in ((1, of_one), (-1, of_minus_one)):
        for dtype in (torch.int64, torch.float32):
            target = torch.full((9,), sign, dtype=dtype)
            assert zero_one_loss(torch.tensor(scores), target, "none").tolist() == wanted
    shape = (3, 2, 4)
    x, y = torch.randn(shape), torch.where(torch.rand(shape) < 0.5, -1.0, 1.0)
    assert zero_one_loss(x, y).item() == pytest.approx((x.sign() != y).float().mean().item())
    assert zero_one_loss(x, y, "sum").item() == (x.sign() != y).sum().item()


def test_never_above_the_hinge() -> None:
    x = torch.cat([torch.linspace(-3, 3, 121), torch.zeros(1)])
    for sign in (-1.0, 1.0):
        y = torch.full_like(x, sign)
        assert (zero_one_loss(x, y, "none") <= (1 - y * x).clamp_min(0)).all()


def test_dtypes_of_the_result() -> None:
    y = torch.tensor([1, 0, 1])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert zero_one_loss(torch.eye(2)[y].to(dtype), y).dtype is dtype
    assert zero_one_loss(torch.eye(2, dtype=torch.int64)[y], y).dtype is torch.float32
    many = torch.ones(200_000, dtype=torch.float16)
    assert zero_one_loss(many, -torch.ones(200_000)).item() == 1.0  # their number is no float16
    thirds = zero_one_loss(torch.eye(2, dtype=torch.float64)[y], torch.tensor([1, 0, 0]))
    assert thirds.item() == 1 / 3


def test_none_at_all() -> None:
    assert zero_one_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).isnan()
    assert zero_one_loss(torch.zeros(0), torch.zeros(0), "sum").item() == 0.0


# ------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_training_with_it_fails(reduction: str) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    y = torch.tensor([0, 1, 2, 0])
    loss = zero_one_loss(x, y, reduction)
    assert loss.requires_grad
    assert loss.grad_fn is not None
    for total in (loss.sum(), loss.sum() + x.sum()):
        with pytest.raises(RuntimeError, match=r"^zero_one_loss has no gradient.*cross_entropy"):
            total.backward()
    assert x.grad is None
    with pytest.raises(RuntimeError, match="zero_one_loss has no gradient"):
        torch.autograd.grad(zero_one_loss(x, y), x, create_graph=True)
    signs = torch.ones(4, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="zero_one_loss has no gradient"):
        zero_one_loss(x.detach(), signs).backward()


def test_reporting_it() -> None:
    x, y = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0])
    wanted = counted(x.detach(), y).mean()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = zero_one_loss(x, y)
        assert not found.requires_grad
        assert torch.equal(found, wanted)
    assert zero_one_loss(x.detach(), y).grad_fn is None
    loss = torch.nn.functional.cross_entropy(x, y)
    assert zero_one_loss(x, y).item() == wanted.item()  # beside what is trained with
    loss.backward()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transforms_and_compilers() -> None:
    x, y = torch.randn(5, 4, 3), torch.randint(0, 3, (5, 4))
    each = torch.stack([counted(a, b).mean() for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(torch.vmap(zero_one_loss)(x, y), each)
    for transform in (torch.func.grad, torch.func.jacfwd):
        with pytest.raises(RuntimeError, match="zero_one_loss has no gradient"):
            transform(lambda a: zero_one_loss(a, y[0]))(x[0])
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x[0], torch.ones(4, 3))
        with pytest.raises(RuntimeError, match="zero_one_loss has no gradient"):
            zero_one_loss(dual, y[0])
    torch.compiler.reset()
    run = torch.compile(zero_one_loss, backend="eager")
    assert torch.equal(run(x[0], y[0]), counted(x[0], y[0]).mean())
    leaf = x[0].clone().requires_grad_()
    with pytest.raises(RuntimeError, match="zero_one_loss has no gradient"):
        run(leaf, y[0]).backward()


# ------------------------------------------------------------------------------------- refusals

X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("input", "target", "error", "message"),
    [
        (X, torch.tensor([0, 3]), IndexError, "target must hold class indices from 0 to 2, got 3"),
        (X, torch.tensor([-100, 0]), IndexError, "target must hold class indices .*, got -100"),
        (X, torch.tensor([0.0, 1.0]), RuntimeError, "target must hold class indices as integers"),
        (X, torch.tensor([True, False]), RuntimeError, "target must hold class indices as"),
        (X, torch.zeros(3, dtype=torch.int64), ValueError, "target must hold a class for each"),
        (X, torch.zeros(2, 1, dtype=torch.int64), ValueError, "target must hold a class for each"),
        (torch.zeros(2), torch.zeros(3), ValueError, "target must hold a class for each row"),
        (torch.zeros(()), torch.zeros(3), ValueError, "target must hold a class for each row"),
        (torch.zeros(2, 0), torch.zeros(2).long(), ValueError, "input must have at least one"),
        (X, torch.zeros(2, 3), ValueError, "target of the input's size must hold the signs"),
        (X, torch.full((2, 3), NAN), ValueError, r"target .* signs -1 and 1, got nan"),
        (X, torch.full((2, 3), 2), ValueError, r"target .* signs -1 and 1, got 2"),
        (X.tolist(), torch.zeros(2), TypeError, "input must be a Tensor, got list"),
        (X, [0, 1], TypeError, "target must be a Tensor, got list"),
        (X.to(torch.cfloat), torch.zeros(2), NotImplementedError, "input must hold real numbers"),
    ],
)
def test_bad_arguments(input, target, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^zero_one_loss: {message}"):
        zero_one_loss(input, target)


def test_reductions_and_the_module() -> None:
    y = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"^zero_one_loss: reduction must be one of"):
        zero_one_loss(X, y, "median")
    with pytest.raises(ValueError, match="reduction must be one of"):
        ZeroOneLoss("median")(X, y)
    assert ZeroOneLoss()(X, y).item() == 0.5
    assert ZeroOneLoss("sum")(X, y).item() == 1.0
    assert repr(ZeroOneLoss()) == "ZeroOneLoss()"
