"""Values and gradients: at least as close to float64 as torch's, and odd ones where torch's are."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch.testing._internal.common_modules import module_db

from tests.losses import examples
from tests.losses.examples import (
    CASES,
    INF,
    NAN,
    REFERENCES,
    Case,
    Make,
    Tensor,
    count,
    differentiated,
    log_probability,
    logit,
    positive,
    probability,
    real,
    sign,
)
from thalweg import losses

SHAPES = [(), (0,), (1,), (7,), (64, 33)]
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=str)


def assert_close_to_float64(case: Case, operands: dict[str, Tensor], reduction: str) -> None:
    """Our error is at most one and a half of torch's, or 4 ulps of the largest number involved."""
    wanted = [name for name in operands if name not in case.undifferentiated]
    numbers = [t for t in operands.values() if t.is_floating_point()]
    wide = {n: t.double() if t.is_floating_point() else t for n, t in operands.items()}
    exact = differentiated(case.torchs, wide, wanted, reduction=reduction)
    torchs = differentiated(case.torchs, operands, wanted, reduction=reduction)
    ours = differentiated(case.ours, operands, wanted, reduction=reduction)
    dtype = ours[0].dtype
    assert dtype is torchs[0].dtype
    # Of many elements the largest result is larger than what the operands are in a mean of them.
    count = max(1, *(t.numel() for t in numbers))
    least = max([t.abs().max().item() / count for t in numbers if t.numel()], default=0.0)
    compare("value", ours[0], torchs[0], exact[0], least)
    for name in wanted:
        assert ours[1][name].dtype is operands[name].dtype
        compare(name, ours[1][name], torchs[1][name], exact[1][name], least)


def compare(name: str, ours: Tensor, torchs: Tensor, exact: Tensor, least: float) -> None:
    assert ours.shape == torchs.shape == exact.shape, name
    if not exact.numel() or exact.isnan().any():  # the mean of nothing
        assert torch.equal(ours.isnan(), torchs.isnan()), name
        return
    ulp = torch.finfo(ours.dtype).eps * max(least, exact.abs().max().item())
    error = (ours.double() - exact).abs()
    allowed = 1.5 * (torchs.double() - exact).abs() + 4 * ulp
    assert (error <= allowed).all(), f"{name}: {error.max()} against {allowed.max()}"


@pytest.mark.parametrize(
    ("case", "shape"), [(c, s) for c in CASES for s in SHAPES if s or not c.classes], ids=str
)
def test_shapes(case: Case, shape: tuple[int, ...]) -> None:
    for reduction in case.reductions:
        assert_close_to_float64(case, case.make(shape), reduction)


def transposed(make: Make) -> Tensor:
    return make((9, 6)).t()


def sliced(make: Make) -> Tensor:
    return make((12, 14))[::2, 1::2]


def channels_last(make: Make) -> Tensor:
    return make((2, 3, 4, 5)).contiguous(memory_format=torch.channels_last)


def expanded(make: Make) -> Tensor:
    return make((1, 6)).expand(5, 6)


@EVERY_CASE
@pytest.mark.parametrize("layout", [transposed, sliced, channels_last, expanded])
def test_layouts(case: Case, layout: Callable[[Make], Tensor]) -> None:
    operands = {name: layout(make) for name, make in case.operands.items()}
    for reduction in case.reductions:
        assert_close_to_float64(case, operands, reduction)
    mixed = {**operands, next(iter(operands)): operands[next(iter(operands))].contiguous()}
    assert_close_to_float64(case, mixed, "mean")


@pytest.mark.parametrize("case", [c for c in CASES if c.broadcasts], ids=str)
def test_broadcast_target(case: Case) -> None:
    operands = case.make((6, 5))
    for target in (case.operands["target"]((1, 5)), case.operands["target"]((6, 1))):
        for reduction in case.reductions:
            assert_close_to_float64(case, {**operands, "target": target}, reduction)


@pytest.mark.parametrize(
    "case", [c for c in CASES if "pos_weight" in c.operands or c.classes], ids=str
)
def test_broadcast_weights(case: Case) -> None:
    operands = case.make((6, 5))
    for name in operands.keys() - {"input", "target"}:
        operands[name] = case.operands[name]((5,))
    for reduction in case.reductions:
        assert_close_to_float64(case, operands, reduction)


@EVERY_CASE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_dtypes(case: Case, dtype: torch.dtype) -> None:
    operands = {name: t.to(dtype) for name, t in case.make((13, 5)).items()}
    for reduction in case.reductions:
        assert_close_to_float64(case, operands, reduction)


@EVERY_CASE
def test_operands_of_several_dtypes(case: Case) -> None:
    operands = case.make((4, 3))
    first = next(iter(operands))
    operands[first] = operands[first].half()
    wanted = [name for name in operands if name not in case.undifferentiated]
    wide = {name: t.double() for name, t in operands.items()}
    value, slopes = differentiated(case.ours, operands, wanted, reduction="sum")
    exact, exact_slopes = differentiated(case.torchs, wide, wanted, reduction="sum")
    assert value.dtype is torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)
    for name in wanted:
        assert slopes[name].dtype is operands[name].dtype
        tolerance = 2e-3 if name == first else 1e-5
        torch.testing.assert_close(
            slopes[name].double(), exact_slopes[name], rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_many_elements_and_threads(reduction: str) -> None:
    operands = {"input": torch.randn(1_000_003), "target": torch.rand(1_000_003)}
    case = next(c for c in CASES if c.name == "binary_cross_entropy_with_logits")
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(differentiated(case.ours, operands, ["input"], reduction=reduction))
    for value, slopes in found[1:]:
        torch.testing.assert_close(value, found[0][0], rtol=1e-7, atol=0)
        assert torch.equal(slopes["input"], found[0][1]["input"])
    assert_close_to_float64(case, operands, reduction)


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss", "hinge_embedding_loss"])
def test_integer_targets(name: str) -> None:
    input, target = torch.randn(9), torch.randint(-1, 2, (9,))
    wanted = getattr(losses, name)(input, target.float())
    assert torch.equal(getattr(losses, name)(input, target), wanted)


def test_complex_absolute_error() -> None:
    x, y = (torch.randn(7, dtype=torch.cfloat, requires_grad=True) for _ in "xy")
    ours, torchs = losses.l1_loss(x, y), torch.nn.functional.l1_loss(x, y)
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, [x, y]), torch.autograd.grad(torchs, [x, y])
    )


# ------------------------------------------------------------------------------ odd numbers

TINY = 1e-40
NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e4, -1e4, 200.0, -200.0, INF, -INF, NAN, TINY, -TINY, 1e15]
SPECIAL: dict[Make, list[float]] = {
    real: NUMBERS,
    logit: NUMBERS,
    probability: [0.0, 1.0, 0.5, TINY, 1 - 2**-24],
    log_probability: [0.0, -1.0, -200.0, -INF, NAN],
    sign: [1.0, -1.0],
    positive: [1.0, 0.0, TINY, 2.5, NAN],  # infinite ones: by the order of the factors
    count: [0.0, 1.0, 2.5, NAN, INF],
}

Where = Callable[[dict[str, Tensor]], Tensor]


def _at_an_end(o: dict[str, Tensor]) -> Tensor:
    return (o["input"] == 0) | (o["input"] == 1)


def _any_not_finite(*names: str) -> Where:
    return lambda o: sum(~o[name].isfinite() for name in names) > 0


# Where torch has NaN or inf and we something else, and why.
KNOWN: dict[tuple[str, str], Where] = {
    # The logarithms are clamped in the derivative by the target as they are in the value.
    ("binary_cross_entropy", "target"): _at_an_end,
    # Infinite is the limit, and 0 where none of the target is there; torch has inf - inf.
    ("binary_cross_entropy_with_logits", "value"): lambda o: o["input"].isinf(),
    ("binary_cross_entropy_with_logits", "target"): lambda o: o["input"].isinf(),
    ("binary_cross_entropy_with_logits", "input"): lambda o: o["input"].isinf(),
    ("multilabel_soft_margin_loss", "target"): lambda o: o["input"].isinf(),
    ("multilabel_soft_margin_loss", "weight"): lambda o: o["input"].isinf(),
    ("multilabel_soft_margin_loss", "value"): lambda o: o["input"].isinf().squeeze(-1),
    # No share of an infinite cost is 0; torch multiplies 0 by inf.
    ("poisson_nll_loss", "value"): lambda o: (o["target"] == 0) & (o["input"] == -INF),
    ("kl_div", "value"): lambda o: (o["input"] == -INF) | (o["target"] == -INF),
    ("kl_div", "input"): lambda o: o["target"] == -INF,
    # Neither 0 * log(0) nor the Stirling term is chosen there; torch multiplies 0 by inf.
    ("poisson_nll_loss", "target"): lambda o: o["target"] == 0,
    ("kl_div", "target"): lambda o: (o["target"] == 0) | (o["target"] == -INF),
    # torch overflows.
    ("soft_margin_loss", "value"): lambda o: o["input"] * o["target"] < -88,
    ("soft_margin_loss", "input"): lambda o: o["input"] * o["target"] < -88,
    # What is clamped contributes nothing; torch multiplies 0 by inf or NaN.
    ("margin_ranking_loss", "target"): _any_not_finite("input1", "input2"),
    ("hinge_loss", "target"): _any_not_finite("input"),
}


def kinds(t: Tensor) -> Tensor:
    """0 for a finite number, 2 for NaN, the sign of an infinite one."""
    return torch.where(t.isnan(), 2.0, torch.where(t.isinf(), t.sign(), 0.0)).flatten()


def odd(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """Every choice of odd numbers, one a row; and the operands."""
    rows = torch.tensor(list(itertools.product(*(SPECIAL[m] for m in case.operands.values()))))
    columns = (t[:, None] if case.classes else t for t in rows.unbind(1))
    return rows, dict(zip(case.operands, columns, strict=True))


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "sigmoid_focal_loss"], ids=str)
def test_odd_numbers_as_torch(case: Case) -> None:
    rows, operands = odd(case)
    for name in operands.keys() - set(case.undifferentiated):
        ours = differentiated(case.ours, operands, [name], reduction="none")
        torchs = differentiated(case.torchs, operands, [name], reduction="none")
        for what, a, b in [("value", ours[0], torchs[0]), (name, ours[1][name], torchs[1][name])]:
            unknown = kinds(a) != kinds(b)
            if known := KNOWN.get((case.name, what)):
                unknown &= ~known(operands).flatten()
            assert not unknown.any(), f"{what} at {rows[unknown][:5].tolist()}"


@EVERY_CASE
def test_odd_numbers_in_kernels_and_as_tensor_operations(case: Case) -> None:
    """A gradient that is differentiated again is computed by tensor operations.

    Where ours is not torch's (KNOWN), that of tensor operations may be.
    """
    rows, operands = odd(case)
    for name in operands:
        if case.name == "hinge_embedding_loss" and name == "target":
            continue  # it only chooses
        leaves = {n: t.clone().requires_grad_(n == name) for n, t in operands.items()}
        value = case.ours(leaves, reduction="none").sum()
        (kernel,) = torch.autograd.grad(value, leaves[name], retain_graph=True)
        (again,) = torch.autograd.grad(
            value, leaves[name], create_graph=True, materialize_grads=True
        )
        differ = kinds(kernel) != kinds(again)
        if known := KNOWN.get((case.name, name)):
            differ &= ~known(operands).flatten()
        assert not differ.any(), f"{name} at {rows[differ][:5].tolist()}"


def test_odd_numbers_that_differ_from_torchs() -> None:
    def grads(loss: Tensor, by: Tensor) -> list[float]:
        (found,) = torch.autograd.grad(loss, by)
        return found.tolist()

    x = torch.tensor([-1e4, -INF], requires_grad=True)
    one = torch.ones(2)
    for name in ("soft_margin_loss", "binary_cross_entropy_with_logits"):
        each = getattr(losses, name)(x, one, reduction="none")
        assert each.tolist() == [1e4, INF], name
        assert grads(each.sum(), x) == [-1.0, -1.0], name
    y = torch.tensor([1.0, 0.0], requires_grad=True)
    p = torch.tensor([0.0, 1.0])
    assert grads(losses.binary_cross_entropy(p, y, reduction="sum"), y) == [100.0, -100.0]


def test_probabilities_of_0_and_1_are_moved_as_torch_moves_them() -> None:
    x = torch.tensor([0.0, 1.0, 0.5, 1e-13, 0.0, 1.0], requires_grad=True)
    y = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0, 1.0])
    (found,) = torch.autograd.grad(losses.binary_cross_entropy(x, y, reduction="sum"), x)
    assert found.tolist() == pytest.approx([-1e12, 1e12, 0.0, -1e12, 0.0, 0.0], rel=1e-6)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 3.5])
@pytest.mark.parametrize("alpha", [0.25, -1])
def test_focal_loss_is_finite_and_right_far_out(gamma: float, alpha: float) -> None:
    x = torch.tensor([-1e4, -200.0, -50.0, -20.0, 0.0, 20.0, 50.0, 200.0, 1e4], requires_grad=True)
    for y in (0.0, 1.0):
        options = {"alpha": alpha, "gamma": gamma, "reduction": "none"}
        each = losses.sigmoid_focal_loss(x, torch.full_like(x, y), **options)
        (slope,) = torch.autograd.grad(each.sum(), x)
        assert torch.stack([each, slope]).isfinite().all()
        # log(1 - p_t) and log(p_t) by the sign of the margin, in float64
        m = (x.detach().double() * (2 * y - 1)).requires_grad_()
        soft = torch.nn.functional.softplus
        weight = 1.0 if alpha < 0 else alpha * y + (1 - alpha) * (1 - y)
        right = weight * torch.exp(-gamma * soft(m)) * soft(-m)
        (by_margin,) = torch.autograd.grad(right.sum(), m)
        torch.testing.assert_close(each.double(), right, rtol=1e-5, atol=1e-30)
        torch.testing.assert_close(slope.double(), by_margin * (2 * y - 1), rtol=1e-5, atol=1e-30)


def test_clamped_variance_keeps_its_derivative() -> None:
    x, y = torch.zeros(3), torch.ones(3)
    var = torch.tensor([0.0, 1e-9, 2.0], requires_grad=True)
    ours = losses.gaussian_nll_loss(x, y, var, reduction="sum")
    torchs = torch.nn.functional.gaussian_nll_loss(x, y, var, reduction="sum")
    torch.testing.assert_close(torch.autograd.grad(ours, var), torch.autograd.grad(torchs, var))


@pytest.mark.parametrize("shape", [(4, 3), (4,), (4, 1), (1, 3)], ids=str)
def test_variances_of_each_size(shape: tuple[int, ...]) -> None:
    x, y, var = torch.randn(4, 3), torch.randn(4, 3), positive(shape)
    for v in (var, 0.5):
        for reduction in ("none", "mean", "sum"):
            torch.testing.assert_close(
                losses.gaussian_nll_loss(x, y, v, reduction=reduction),
                torch.nn.functional.gaussian_nll_loss(x, y, v, reduction=reduction),
            )


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1), (3, 1, 1), (5,)], ids=str)
def test_variances_broadcast(shape: tuple[int, ...]) -> None:
    x, y = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    var = positive(shape).requires_grad_()
    found = losses.gaussian_nll_loss(x, y, var)
    right = losses.gaussian_nll_loss(x, y, var.expand(x.shape))
    torch.testing.assert_close(found, right)
    slopes = [torch.autograd.grad(value, var)[0] for value in (found, right)]
    torch.testing.assert_close(*slopes)


# --------------------------------------------------------------------- torch's own examples

MODULES = [m for m in module_db if m.module_cls.__name__ in examples.MODULES]


def test_torch_has_examples_for_each_module_of_ours() -> None:
    found = {m.module_cls.__name__ for m in MODULES}
    own = {"HingeLoss", "BinaryFocalLoss"}
    assert found == set(examples.MODULES) - own
    assert set(REFERENCES) == {"hinge_loss", "sigmoid_focal_loss"}


@pytest.mark.parametrize("info", MODULES, ids=lambda m: m.module_cls.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.filterwarnings("ignore:.*reduction.*mean.*:UserWarning")
def test_torchs_own_examples(info, dtype: torch.dtype) -> None:
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=True
    )
    assert inputs
    for example in inputs:
        built, called = example.constructor_input, example.forward_input
        ours = getattr(losses, info.module_cls.__name__)(*built.args, **built.kwargs)
        torchs = info.module_cls(*built.args, **built.kwargs)
        a, b = (m(*called.args, **called.kwargs) for m in (ours, torchs))
        torch.testing.assert_close(a, b, equal_nan=True)
        leaves = [t for t in called.args if isinstance(t, torch.Tensor) and t.requires_grad]
        torch.testing.assert_close(
            torch.autograd.grad(a.sum(), leaves),
            torch.autograd.grad(b.sum(), leaves),
            equal_nan=True,
        )
