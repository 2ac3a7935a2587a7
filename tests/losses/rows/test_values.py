"""Values and gradients of row losses: at least as close to float64 as torch's."""

from __future__ import annotations

import inspect
import types
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.testing._internal import common_nn
from torch.testing._internal.common_modules import module_db

from tests.losses.examples import INF, NAN, Tensor, differentiated, logit, positive, probability
from tests.losses.rows.examples import (
    CROSS_ENTROPIES,
    FOCALS,
    LAYOUTS,
    NAMES,
    ROW_CASES,
    Layout,
    RowCase,
    classes,
    dice_reference,
    distribution,
    each_case,
    floating,
    focal_reference,
    in_dtype,
    quick_or_slow,
    sliced,
    transposed,
)
from tests.losses.test_values import assert_close_to_float64, compare, kinds
from thalweg import losses

OF_CLASSES = [*CROSS_ENTROPIES, *FOCALS]


@pytest.mark.parametrize(
    ("case", "shape"),
    [quick_or_slow(case, shape) for case in ROW_CASES for shape in case.shapes()],
    ids=str,
)
def test_shapes(case: RowCase, shape: tuple[int, ...]) -> None:
    if case.name == "multi_margin_loss" and 0 in shape:
        pytest.skip("torch's is what its memory held")
    operands = case.make(shape)
    for reduction in case.reductions:
        assert_close_to_float64(case, operands, reduction)


@each_case()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(case: RowCase, layout: Layout) -> None:
    shapes: list[tuple[int, ...]] = [(6, 9)] + [(2, 3, 4, 5)] * case.spatial
    for shape in shapes:
        plain = case.make(shape)
        every = {name: layout(t) for name, t in plain.items()}
        first = next(iter(plain))
        for operands in (every, {**plain, first: every[first]}, {**every, first: plain[first]}):
            for reduction in ("none", "mean"):
                assert_close_to_float64(case, operands, reduction)


def test_memory_format_of_gradients() -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    (slope,) = torch.autograd.grad(losses.cross_entropy(x, classes(x.shape)), x)
    assert slope.stride() == x.stride()


@pytest.mark.slow
@each_case()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_dtypes(case: RowCase, dtype: torch.dtype) -> None:
    shapes: list[tuple[int, ...]] = [(13, 5)] + [(2, 5, 7)] * case.spatial
    for shape in shapes:
        operands = in_dtype(case.make(shape), dtype)
        for reduction in case.reductions:
            if dtype is not torch.float64 and case.halves:
                assert_close_to_float64(case, operands, reduction)
                continue
            wanted = floating(case, operands)
            wide = in_dtype(operands, torch.float64)
            ours = differentiated(case.ours, operands, wanted, reduction=reduction)
            exact = differentiated(case.torchs, wide, wanted, reduction=reduction)
            eps = torch.finfo(dtype).eps * (2 if dtype.itemsize == 2 else 64)
            torch.testing.assert_close(ours[0].double(), exact[0], rtol=eps, atol=eps)
            for name in wanted:
                slopes = ours[1][name].double(), exact[1][name]
                torch.testing.assert_close(*slopes, rtol=eps, atol=eps)


@pytest.mark.parametrize("other", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@each_case(*(c for c in ROW_CASES if c.name != "multi_margin_loss"))
def test_operands_of_several_dtypes(case: RowCase, other: torch.dtype) -> None:
    """The dtype of the result is torch's, and so is the value; classes' weights are refused."""
    operands = case.make((4, 5))
    for name in operands:
        if not operands[name].is_floating_point() or (case in FOCALS and "weight" in operands):
            continue
        given = {**operands, name: operands[name].to(other)}
        try:
            wanted = case.torchs(given)
        except RuntimeError:
            with pytest.raises(RuntimeError, match="weight must have the input's dtype"):
                case.ours(given)
            continue
        found = case.ours(given)
        assert found.dtype is wanted.dtype, name
        torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.uint8, torch.bool], ids=str)
def test_the_targets_dtype_has_no_part_in_the_cosines(dtype: torch.dtype) -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    target = torch.tensor([1, 0, 1]).to(dtype)
    for half in (x, x.half()):
        found = losses.cosine_embedding_loss(half, y.to(half.dtype), target, reduction="none")
        wanted = F.cosine_embedding_loss(half, y.to(half.dtype), target, reduction="none")
        assert found.dtype is wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=2e-3, atol=2e-3)


def test_classes_as_bytes() -> None:
    x = torch.randn(300, 256, requires_grad=True)
    y = torch.randint(0, 256, (300,), dtype=torch.uint8)
    for options in ({}, {"ignore_index": 255}):
        ours = losses.cross_entropy(x, y, **options)
        torch.testing.assert_close(ours, F.cross_entropy(x, y.long(), **options))


def test_integers_for_vectors() -> None:
    x, y, z = torch.randint(-5, 5, (3, 4, 6))
    torch.testing.assert_close(
        losses.triplet_margin_loss(x, y, z), F.triplet_margin_loss(x, y, z), rtol=1e-6, atol=1e-6
    )
    target = torch.tensor([1, -1, 1, -1])
    torch.testing.assert_close(
        losses.cosine_embedding_loss(x, y, target), F.cosine_embedding_loss(x, y, target)
    )


@pytest.mark.parametrize("size", [(200_000, 3), (7, 40_000), (2, 21, 300, 301)], ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_threads_give_the_same_bits(size: tuple[int, ...], reduction: str) -> None:
    operands = {"input": logit(size), "target": classes(size)}
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(
            differentiated(
                lambda o, **more: losses.cross_entropy(**o, **more),
                operands,
                ["input"],
                reduction=reduction,
            )
        )
    for value, slopes in found[1:]:
        assert torch.equal(value, found[0][0])
        assert torch.equal(slopes["input"], found[0][1]["input"])
    assert_close_to_float64(CROSS_ENTROPIES[0], operands, reduction)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_weights_of_many_16_bit_rows(half: torch.dtype) -> None:
    """Their sum is more than float16 holds, and than bfloat16 counts to."""
    x, y, weight = torch.randn(100_000, 3).to(half), classes((100_000, 3)), torch.ones(3)
    exact = F.cross_entropy(x.double(), y, weight.double()).item()
    assert losses.cross_entropy(x, y, weight.to(half)).item() == pytest.approx(exact, rel=5e-3)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_means_of_many_16_bit_rows_as_tensor_operations(half: torch.dtype) -> None:
    x, y = torch.randn(100_000, 3).to(half), classes((100_000, 3))
    weight = torch.ones(3).to(half).requires_grad_()  # which has no kernel
    found = losses.cross_entropy(x, y, weight)
    assert found.dtype is half
    exact = F.cross_entropy(x.double(), y).item()
    assert found.item() == pytest.approx(exact, rel=1e-2)


def test_more_than_the_largest_float_is_infinite() -> None:
    x = torch.tensor([[3e38, -3e38]], requires_grad=True)
    for reduction in ("none", "mean", "sum"):
        ours = losses.cross_entropy(x, torch.tensor([1]), reduction=reduction)
        torchs = F.cross_entropy(x, torch.tensor([1]), reduction=reduction)
        assert torch.equal(ours, torchs)
        assert ours.isinf().all()
        slopes = [torch.autograd.grad(v.sum(), x)[0] for v in (ours, torchs)]
        assert torch.equal(*slopes)
    half = torch.zeros(100_000, 2, dtype=torch.float16)
    assert losses.cross_entropy(half, classes(half.shape), reduction="sum").item() == INF


# ------------------------------------------------------------------------------ odd numbers

ROWS = [
    [1e4, -1e4, 0.0],
    [INF, 0.0, 1.0],
    [-INF, 0.0, 1.0],
    [-INF, -INF, -INF],
    [INF, INF, INF],
    [NAN, 0.0, 1.0],
    [0.0, 0.0, 0.0],
    [1e-40, -1e-40, 0.0],
    [88.0, 89.0, 90.0],
    [-200.0, 0.0, 0.0],
    [3.0, 3.0, -INF],
]
DISTRIBUTIONS = [[1.0, 0, 0], [0.0, 0, 0], [0.2, 0.3, 0.5], [NAN, 0, 0], [INF, 0, 0], [-1.0, 1, 1]]
WEIGHTS = [None, torch.tensor([1.0, 0.0, 2.0])]


def same_kinds(call: Any, *tensors: Tensor, by: int = 1) -> None:
    """NaN and infinities of ours are those of torch; finite numbers are close."""
    found = []
    for module in (losses, F):
        leaves = [t.clone().requires_grad_(k < by) for k, t in enumerate(tensors)]
        value = call(module, *leaves)
        found.append([value.detach(), *torch.autograd.grad(value.sum(), leaves[:by])])
    for ours, torchs in zip(*found, strict=True):
        assert torch.equal(kinds(ours), kinds(torchs))
        finite = torchs.isfinite()
        torch.testing.assert_close(ours[finite], torchs[finite], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("weight", WEIGHTS, ids=["equal", "weighted"])
@pytest.mark.parametrize("across", [False, True], ids=["along", "across"])
def test_odd_logits(weight: Tensor | None, across: bool) -> None:
    for row in ROWS:
        x = torch.tensor([row])
        for c in range(3):
            y = torch.tensor([c])
            if across:
                x, y = x.reshape(1, 3, 1).repeat(1, 1, 2), y.reshape(1, 1).repeat(1, 2)
            for reduction in ("none", "sum"):
                for smoothing in (0, 0.1, 1):
                    same_kinds(
                        lambda m, a, y=y, s=smoothing, r=reduction: m.cross_entropy(
                            a, y, weight, label_smoothing=s, reduction=r
                        ),
                        x,
                    )
                same_kinds(lambda m, a, y=y, r=reduction: m.nll_loss(a, y, weight, reduction=r), x)
                for p in () if across else (1, 2):
                    same_kinds(
                        lambda m, a, y=y, p=p, r=reduction: m.multi_margin_loss(
                            a, y, p, weight=weight, reduction=r
                        ),
                        x,
                    )
            x = torch.tensor([row])


@pytest.mark.parametrize("weight", WEIGHTS, ids=["equal", "weighted"])
def test_odd_distributions(weight: Tensor | None) -> None:
    for row in ROWS:
        for probabilities in DISTRIBUTIONS:
            for smoothing in (0, 0.1):
                x, y = torch.tensor([row]), torch.tensor([probabilities])
                share = y if weight is None else y * weight
                # No share of an infinite cost is 0, and so is its derivative; in torch NaN and inf.
                masked = (share == 0) & (x == -INF) & (x.amax() > -INF) & (smoothing == 0)
                if not share.isnan().any():
                    x = torch.where(masked, -1e4, x)
                same_kinds(
                    lambda m, a, b, s=smoothing: m.cross_entropy(
                        a, b, weight, label_smoothing=s, reduction="sum"
                    ),
                    x,
                    y,
                    by=1 if masked.any() else 2,
                )


def test_a_masked_class_without_a_share() -> None:
    x = torch.tensor([[0.0, -INF, 0.0]], requires_grad=True)
    y = torch.tensor([[0.5, 0.0, 0.5]])
    value = losses.cross_entropy(x, y)
    torch.testing.assert_close(value, torch.tensor(2.0).log())
    value.backward()
    torch.testing.assert_close(x.grad, torch.zeros(1, 3))
    log_p = torch.tensor([[0.5, 0.0, 0.5]]).log().requires_grad_()
    for target, log_target in ((y, False), (y.log(), True)):
        value = losses.kl_div(log_p, target, reduction="sum", log_target=log_target)
        assert value.item() == 0
        (slope,) = torch.autograd.grad(value, log_p)
        torch.testing.assert_close(slope, -y)


@pytest.mark.parametrize("p", [3.0, 20.0, 100.0, -20.0])
def test_norms_of_large_order_stay_in_range(p: float) -> None:
    a, b = 1e5 * torch.randn(4, 6), 1e-5 * torch.randn(4, 6)
    found = losses.triplet_margin_loss(a, torch.zeros_like(a), b, p=p, eps=0.0, reduction="none")
    wide = [t.double() for t in (a, torch.zeros_like(a), b)]

    def norm(t: Tensor) -> Tensor:  # in logarithms
        return torch.logsumexp(p * t.abs().log(), 1).div(p).exp()

    right = (1 + norm(wide[0] - wide[1]) - norm(wide[0] - wide[2])).clamp_min(0)
    torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("index", [-(2**63), -1, 3, 2**63 - 1])
def test_no_class_is_none(index: int) -> None:
    x, y = torch.ones(2, 3), torch.full((2,), index)
    with pytest.raises(RuntimeError, match="out of bounds"):
        losses.multi_margin_loss(x, y)
    with pytest.raises(RuntimeError, match="out of bounds"):
        losses.multi_margin_loss(x.requires_grad_(), y, reduction="none")
    assert losses.cross_entropy(x, y, ignore_index=index, reduction="sum").item() == 0


@pytest.mark.slow
@pytest.mark.parametrize("p", [2, 1, 0.5, 3, INF, -INF, -1, -2.5])
@pytest.mark.parametrize("swap", [False, True])
def test_odd_vectors_of_triplets(p: float, swap: bool) -> None:
    """Equal vectors, equal elements, infinite ones: values, and gradients where nothing is NaN."""
    a = torch.tensor([[1.0, 2.0, 3.0]])
    others = [a, a + torch.tensor([0.0, -2.0, 2.0]), a + torch.tensor([-1.0, -1.0, 2.0]), 0 * a]
    for b in others:
        for eps in (0.0, 1e-6):
            same_kinds(
                lambda m, x, y, z, eps=eps: m.triplet_margin_loss(
                    x, y, z, p=p, swap=swap, eps=eps, margin=1e3
                ),
                a,
                b,
                a + torch.tensor([40.0, 50.0, 70.0]),
                by=3,
            )
    for bad in (INF, -INF, NAN):
        b = torch.tensor([[bad, 1.0, 5.0]])
        found = [
            m.triplet_margin_loss(a, b, a + 40, p=p, swap=swap, margin=1e3) for m in (losses, F)
        ]
        torch.testing.assert_close(*found, equal_nan=True)


def test_triplets_of_norm_0_count() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 5.0])
    x = a.clone().requires_grad_()
    loss = losses.triplet_margin_loss(x, b, a + 1, p=0, eps=0.0, margin=2.0)
    assert loss.item() == 2 + 2 - 3
    assert torch.autograd.grad(loss, x)[0].tolist() == [0.0, 0.0, 0.0]  # torch has no graph


@pytest.mark.parametrize("margin", [0, 0.5, -1, 1])
def test_odd_vectors_of_cosines(margin: float) -> None:
    a = torch.tensor([[1.0, 2.0, 3.0]])
    sides = [(0 * a, a), (0 * a, 0 * a), (a, a), (a, -a), (1e-18 * a, 1e-18 * a), (1e-25 * a, a)]
    for sign in (1, -1, 0):
        for x, y in sides:
            same_kinds(
                lambda m, x, y, s=sign: m.cosine_embedding_loss(
                    x, y, torch.tensor([s]), margin=margin
                ),
                x,
                y,
                by=2,
            )
    # Long vectors: torch's product of the squares overflows; see KNOWN in the documentation.
    each = losses.cosine_embedding_loss(1e18 * a, 1e18 * a, torch.tensor([1]))
    assert each.item() == pytest.approx(0.0, abs=1e-6)
    for bad in (INF, NAN):
        assert losses.cosine_embedding_loss(bad * a, a, torch.tensor([1])).isnan()
        assert losses.cosine_embedding_loss(bad * a, a, torch.tensor([-1])).isnan()


# ------------------------------------------------------------------------------ ignored rows


@pytest.mark.parametrize(
    "name", ["cross_entropy", "nll_loss", "focal_loss", "linear_cross_entropy"]
)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("how", ["along", "across", "tensor operations"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ignored_rows_may_hold_anything(name: str, bad: float, how: str, reduction: str) -> None:
    call = getattr(losses, name)
    if name == "linear_cross_entropy":
        if how == "across":
            pytest.skip("it has no dimensions behind its classes")
        call = lambda x, y, **more: losses.linear_cross_entropy(x, torch.eye(3), y, **more)  # noqa: E731
    x = torch.randn(4, 3)
    x[2, 1] = bad
    if name == "linear_cross_entropy":
        x[2, 1] = NAN if bad != bad else 1e30  # a product with infinities is NaN
    y = torch.tensor([0, 2, -100, 1])
    keep = [0, 1, 3]
    clean = x[keep]
    if how == "across":
        x, y = x.t().reshape(1, 3, 4).contiguous(), y.reshape(1, 4)
    x.requires_grad_()
    found = call(x, y, reduction=reduction)
    (slope,) = torch.autograd.grad(found.sum(), x, create_graph=how == "tensor operations")
    if how == "across":
        slope, found = slope[0].t(), found[0] if reduction == "none" else found
    clean.requires_grad_()
    wanted = call(clean, torch.tensor([0, 2, 1]), reduction=reduction)
    (right,) = torch.autograd.grad(wanted.sum(), clean)
    if reduction == "none":
        assert found[2] == 0
        found = found[keep]
    torch.testing.assert_close(found, wanted)
    assert slope[2].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(slope[keep], right)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "focal_loss"])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 3.0])], ids=["equal", "weighted"])
def test_all_rows_ignored(name: str, shape: tuple[int, ...], weight: Tensor | None) -> None:
    x = torch.full(shape, NAN, requires_grad=True)
    y = torch.full_like(classes(shape), 7)
    for reduction, wanted in (("mean", NAN), ("sum", 0.0), ("none", 0.0)):
        loss = getattr(losses, name)(x, y, weight, ignore_index=7, reduction=reduction)
        assert loss.isnan().all() if wanted != wanted else not loss.any()
        (slope,) = torch.autograd.grad(loss.sum(), x)
        assert not slope.any()


# ------------------------------------------------------------------------------ identities


@pytest.mark.parametrize("case", CROSS_ENTROPIES, ids=str)
def test_focal_loss_without_focus_is_cross_entropy(case: RowCase) -> None:
    if case.name != "cross_entropy" or case.operands["target"] is distribution:
        pytest.skip("the target is a class")
    operands = case.make((9, 4))
    for reduction in case.reductions:
        torch.testing.assert_close(
            losses.focal_loss(**operands, gamma=0, reduction=reduction, **case.options),
            losses.cross_entropy(**operands, reduction=reduction, **case.options),
            rtol=0,
            atol=0,
        )


@pytest.mark.parametrize("gamma", [0, 0.5, 2, 3.5])
def test_focal_loss_of_two_classes(gamma: float) -> None:
    x, y = 4 * torch.randn(50, 2), torch.randint(0, 2, (50,))
    leaves = [x.double().requires_grad_() for _ in "ab"]
    alpha = torch.tensor([0.75, 0.25], dtype=torch.float64)
    found = losses.focal_loss(leaves[0], y, alpha, gamma, reduction="none")
    wanted = losses.sigmoid_focal_loss(
        leaves[1][:, 1] - leaves[1][:, 0], y.double(), alpha=0.25, gamma=gamma, reduction="none"
    )
    torch.testing.assert_close(found, wanted)
    slopes = [
        torch.autograd.grad(v.sum(), t)[0] for v, t in zip((found, wanted), leaves, strict=True)
    ]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("gamma", [0.5, 1, 2])
def test_focal_loss_far_out(gamma: float) -> None:
    x = torch.tensor([[1e4, 0.0], [0.0, 1e4], [60.0, 0.0], [0.0, 60.0], [9.0, 0.0]])
    y = torch.zeros(5, dtype=torch.int64)
    x.requires_grad_()
    found = losses.focal_loss(x, y, gamma=gamma, reduction="none")
    (slope,) = torch.autograd.grad(found.sum(), x)
    assert torch.stack([found, *slope.unbind(1)]).isfinite().all()
    assert found[0] == 0
    assert found[1] == 1e4
    right = focal_reference(x.detach().double(), y, gamma=gamma, reduction="none")
    torch.testing.assert_close(found[1:].double(), right[1:], rtol=1e-5, atol=1e-20)


def test_smoothing_and_probabilities_agree() -> None:
    """Smoothed classes are probabilities: (1 - s) of the class and s shared by all."""
    x, y = torch.randn(8, 5).double(), torch.randint(0, 5, (8,))
    for s in (0.0, 0.3, 1.0):
        soft = (1 - s) * F.one_hot(y, 5) + s / 5
        torch.testing.assert_close(
            losses.cross_entropy(x, y, label_smoothing=s), losses.cross_entropy(x, soft)
        )


@pytest.mark.parametrize("start_dim", [1, 2, -1, 0])
def test_dice_by_hand(start_dim: int) -> None:
    x, y = probability((2, 3, 4)), (probability((2, 3, 4)) > 0.5).float()
    for reduction in ("none", "mean", "sum"):
        torch.testing.assert_close(
            losses.dice_loss(x, y, 0.5, start_dim, reduction),
            dice_reference(x, y, 0.5, start_dim, reduction),
        )
    empty = torch.zeros(2, 5)
    assert losses.dice_loss(empty, empty, reduction="none").tolist() == [0.0, 0.0]
    assert losses.dice_loss(empty, empty, smooth=0.0).isnan()


@pytest.mark.parametrize("swap", [False, True])
def test_distances_of_ones_own(swap: bool) -> None:
    def city(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().sum(-1)

    operands = [torch.randn(5, 3, requires_grad=True) for _ in range(3)]
    found = []
    for module in (losses, F):
        for reduction in ("none", "mean", "sum"):
            loss = module.triplet_margin_with_distance_loss(
                *operands, distance_function=city, swap=swap, reduction=reduction
            )
            found.append([loss.detach(), *torch.autograd.grad(loss.sum(), operands)])
    for ours, torchs in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(ours, torchs)


# ------------------------------------------------------------------------------ torch's examples

MODULES = [
    info
    for info in module_db
    if info.module_cls.__name__
    in (
        "CrossEntropyLoss",
        "NLLLoss",
        "MultiMarginLoss",
        "CosineEmbeddingLoss",
        "TripletMarginLoss",
        "TripletMarginWithDistanceLoss",
        "LinearCrossEntropyLoss",
    )
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:linear_cross_entropy. ``options`` ignored")
@pytest.mark.parametrize("info", MODULES, ids=lambda m: m.module_cls.__name__)
def test_torchs_own_examples(info: Any) -> None:
    """Each option in the examples of its own tests: as close to float64 as torch's."""
    name = info.module_cls.__name__
    examples = info.module_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=True, training=True
    )
    assert examples
    for example in examples:
        built, called = example.constructor_input, example.forward_input
        torchs = info.module_cls(*built.args, **built.kwargs)
        ours = getattr(losses, name)(*built.args, **built.kwargs)
        wide = info.module_cls(*built.args, **built.kwargs)
        for module in (ours, wide):
            module.load_state_dict(torchs.state_dict())
        assert not called.kwargs
        weight = built.kwargs.get("weight")  # of both signs: the terms of a sum cancel
        least = 1.0 if weight is None else max(1.0, weight.abs().max().item())
        found = []
        for module in (ours, torchs, wide.double()):
            given = [
                t.detach().double().requires_grad_(t.requires_grad)
                if module is wide and isinstance(t, torch.Tensor) and t.is_floating_point()
                else t
                for t in called.args
            ]
            by = [t for t in given if isinstance(t, torch.Tensor) and t.requires_grad]
            value = module(*given)
            slopes = torch.autograd.grad(
                value.sum(), [*by, *module.parameters()], materialize_grads=True
            )
            found.append([value.detach(), *slopes])
        for k, (a, b, exact) in enumerate(zip(*found, strict=True)):
            assert a.dtype is b.dtype
            compare(f"{example.desc}: {k}", a, b, exact, least)


CRITERIA = {
    name: getattr(common_nn, name)()
    for name, function in vars(common_nn).items()
    if name.endswith("_test")
    and name.startswith(("nllloss", "multimarginloss"))
    and inspect.isfunction(function)
    and not inspect.signature(function).parameters
}


@pytest.mark.parametrize("name", CRITERIA)
def test_torchs_examples_of_functions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example = CRITERIA[name]
    x = (example["input_fn"]() if "input_fn" in example else example["input"]).clone()
    x.requires_grad_()
    ours = types.SimpleNamespace(
        **{**vars(F), **{n: getattr(losses, n) for n in NAMES if hasattr(F, n)}}
    )
    found = []
    for module in (ours, F):
        monkeypatch.setattr(common_nn, "F", module)
        value = example["constructor"]()(x)
        found.append([value.detach(), *torch.autograd.grad(value.sum(), x)])
    torch.testing.assert_close(*found)


# ------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "focal_loss", "multi_margin_loss"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_weights_are_the_same_with_and_without_a_gradient(name: str, reduction: str) -> None:
    x, y, weight = torch.randn(6, 4), torch.randint(0, 4, (6,)), positive((4,))
    found = []
    for needed in (False, True):
        leaf = x.clone().requires_grad_()
        w = weight.clone().requires_grad_(needed)
        loss = getattr(losses, name)(leaf, y, weight=w, reduction=reduction)
        found.append([loss.detach(), *torch.autograd.grad(loss.sum(), leaf)])
    torch.testing.assert_close(*found)


def test_strides_of_targets() -> None:
    x = torch.randn(4, 3, 5, 6, requires_grad=True)
    y = classes(x.shape)
    wanted = torch.autograd.grad(F.cross_entropy(x, y), x)[0]
    for layout in (transposed, sliced):
        found = torch.autograd.grad(losses.cross_entropy(x, layout(y)), x)[0]
        torch.testing.assert_close(found, wanted)
