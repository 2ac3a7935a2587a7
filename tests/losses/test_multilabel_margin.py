"""The hinge of several classes: against pairs counted one by one in float64, and against torch."""

from __future__ import annotations

import inspect
import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.testing._internal.common_modules import module_db

from tests.losses.examples import differentiated
from tests.losses.test_values import compare
from thalweg.engine.passes import handwritten
from thalweg.losses import multilabel_margin
from thalweg.losses.multilabel_margin import MultiLabelMarginLoss, multilabel_margin_loss

Tensor = torch.Tensor
NAN, INF = math.nan, math.inf
REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])


def targets(rows: int, classes: int, seed: int = 0) -> Tensor:
    """Some classes of each row in any order, perhaps none or all, -1 and then anything."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(rows, classes, generator=generator).argsort(1)
    ends = torch.randint(0, classes + 1, (rows,), generator=generator)
    for row, end in zip(found, ends.tolist(), strict=True):
        row[end : end + 1] = -1
    return found


def by_pairs(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The value of each row, and its derivatives, in float64."""
    values, slopes = [], []
    for x, y in zip(input.double().tolist(), target.tolist(), strict=True):
        chosen = list(itertools.takewhile(lambda t: t >= 0, y))
        value, slope = 0.0, [0.0] * len(x)
        for t, c in itertools.product(chosen, range(len(x))):
            short = 1 - (x[t] - x[c])
            if c not in chosen and short > 0:
                value, slope[t], slope[c] = value + short, slope[t] - 1, slope[c] + 1
        values.append(value / len(x))
        slopes.append([s / len(x) for s in slope])
    return torch.tensor(values, dtype=torch.float64), torch.tensor(slopes, dtype=torch.float64)


@REDUCTIONS
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (5, 3), (33, 17), (9, 130)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_and_gradients(reduction: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    x, y = 1.5 * torch.randn(size).to(dtype), targets(*size)
    values, slopes = by_pairs(x, y)
    upstream = torch.linspace(0.5, 1.5, size[0], dtype=torch.float64)
    if reduction == "none":
        slopes *= upstream[:, None]
    else:
        count = size[0] if reduction == "mean" else 1
        values, slopes = values.sum() / count, slopes * 0.5 / count
    found, torchs = (
        differentiated(lambda o, f=f: f(o["x"], y, reduction=reduction), {"x": x}, ["x"])
        for f in (multilabel_margin_loss, F.multilabel_margin_loss)
    )
    assert found[0].dtype is found[1]["x"].dtype is dtype
    compare("value", found[0], torchs[0], values, 0.0)
    compare("input", found[1]["x"], torchs[1]["x"], slopes, 0.0)
    with torch.no_grad():
        assert torch.equal(multilabel_margin_loss(x, y, reduction=reduction), found[0])


@REDUCTIONS
@pytest.mark.parametrize("sizes", [((4,), (4,)), ((1,), (1,)), ((), ()), ((), (1,)), ((1,), ())])
def test_one_row(reduction: str, sizes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    x, y = torch.randn(sizes[0], requires_grad=True), torch.zeros(sizes[1], dtype=torch.int64)
    if y.numel() > 1:
        y = torch.tensor([2, 0, -1, 3])
    found = multilabel_margin_loss(x, y, reduction=reduction)
    wanted = F.multilabel_margin_loss(x, y, reduction=reduction)
    assert found.shape == wanted.shape == ()
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(wanted, x))


def test_a_class_that_is_there_twice_counts_twice() -> None:
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = torch.tensor([0, 0, 1])
    loss = multilabel_margin_loss(x, y)
    torch.testing.assert_close(loss, F.multilabel_margin_loss(x, y))
    assert loss.item() == pytest.approx((3 + 3 + 2) / 3)


@pytest.mark.parametrize("threads", [1, 2, 5])
@REDUCTIONS
def test_threads_change_no_bit(threads: int, reduction: str) -> None:
    x, y = torch.randn(301, 257), targets(301, 257)
    found = []
    before = torch.get_num_threads()
    for count in (1, threads):
        torch.set_num_threads(count)
        try:
            leaf = x.clone().requires_grad_()
            loss = multilabel_margin_loss(leaf, y, reduction=reduction)
            found.append((loss.detach(), *torch.autograd.grad(loss.sum(), leaf)))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][0], F.multilabel_margin_loss(x, y, reduction=reduction))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.t().contiguous().t(),
    "sliced": lambda t: t.repeat_interleave(2, 1)[:, ::2],
    "expanded": lambda t: t[:1].expand(8, 6),
    "conjugate's part": lambda t: (
        torch.complex(t, t).conj().imag.neg() if t.is_floating_point() else t
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@REDUCTIONS
def test_layouts(layout: str, reduction: str) -> None:
    x, y = (LAYOUTS[layout](t) for t in (torch.randn(8, 6), targets(8, 6)))
    x.requires_grad_()
    found, wanted = (
        f(x, y, reduction=reduction) for f in (multilabel_margin_loss, F.multilabel_margin_loss)
    )
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad(loss.sum(), x)[0] for loss in (found, wanted)]
    torch.testing.assert_close(*slopes)


def test_a_view_that_is_negative() -> None:
    z = torch.complex(torch.randn(8, 6), torch.randn(8, 6))
    x, y = z.conj().imag, targets(8, 6)
    assert x.is_neg()
    torch.testing.assert_close(multilabel_margin_loss(x, y), F.multilabel_margin_loss(x, y))


# ------------------------------------------------------------------------------------- odd numbers

ODD = [0.0, 1.0, -1.0, INF, -INF, NAN, 1e37, -1e37, 1e-40]


@REDUCTIONS
@pytest.mark.filterwarnings("ignore:.*overflow.*")
def test_odd_numbers_as_torch(reduction: str) -> None:
    x = torch.tensor(list(itertools.product(ODD, repeat=3)), requires_grad=True)
    for chosen in ([0, -1, -1], [2, 0, -1], [-1, 0, 1], [1, 2, 0]):
        y = torch.tensor(chosen).expand(len(x), 3)
        ours, torchs = (
            f(x, y, reduction="none") for f in (multilabel_margin_loss, F.multilabel_margin_loss)
        )
        torch.testing.assert_close(ours, torchs, equal_nan=True)
        if reduction == "none":
            ours, torchs = ours.sum(), torchs.sum()
        else:
            ours = multilabel_margin_loss(x, y, reduction=reduction)
            torchs = F.multilabel_margin_loss(x, y, reduction=reduction)
        slopes = [torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in (ours, torchs)]
        torch.testing.assert_close(*slopes)
        again = torch.autograd.grad(ours, x, create_graph=True)[0]
        torch.testing.assert_close(again, slopes[0])


def test_sums_do_not_overflow_before_they_are_divided() -> None:
    x, y = torch.tensor([[-1e38, 1e38, 1e38, 1e38]]), torch.tensor([[0, -1, -1, -1]])
    assert F.multilabel_margin_loss(x, y).isinf()
    assert multilabel_margin_loss(x, y).item() == pytest.approx(1.5e38)


def test_no_rows() -> None:
    """The mean of nothing is NaN; torch returns memory that it has not written."""
    x, y = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, 3, dtype=torch.int64)
    assert multilabel_margin_loss(x, y).isnan()
    assert multilabel_margin_loss(x, y, reduction="sum").item() == 0.0
    each = multilabel_margin_loss(x, y, reduction="none")
    assert each.shape == (0,)
    for loss in (each.sum(), multilabel_margin_loss(x, y)):
        for graph in (False, True):
            (slope,) = torch.autograd.grad(loss, x, create_graph=graph, retain_graph=True)
            assert slope.shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bits_are_for_storage(dtype: torch.dtype) -> None:
    """Where torch raises. A gradient scaler's factor saves what float16 cannot hold."""
    x, y = torch.randn(64, 9).to(dtype).requires_grad_(), targets(64, 9)
    values, slopes = by_pairs(x.detach(), y)
    loss = multilabel_margin_loss(x, y, reduction="none")
    assert torch.equal(loss.detach(), values.float().to(dtype))
    (slope,) = torch.autograd.grad((loss.float() * 1e-6).sum() * 1e6, x)
    torch.testing.assert_close(slope.double(), slopes, rtol=2e-2, atol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, torchs = (f(x, y) for f in (multilabel_margin_loss, F.multilabel_margin_loss))
    assert ours.dtype is torchs.dtype is torch.float32
    torch.testing.assert_close(ours, torchs)


# ------------------------------------------------------------------------------------- autograd


@REDUCTIONS
def test_first_and_second_derivatives(reduction: str) -> None:
    x, y = torch.randn(4, 5, dtype=torch.float64, requires_grad=True), targets(4, 5)

    def loss(a: Tensor) -> Tensor:
        return multilabel_margin_loss(a, y, reduction=reduction)

    assert gradcheck(loss, x)
    assert gradgradcheck(loss, x)
    assert gradgradcheck(lambda a: loss(a) ** 2, x)


@REDUCTIONS
def test_backward_twice_and_scaled(reduction: str) -> None:
    x, y = torch.randn(6, 5, requires_grad=True), targets(6, 5)
    (wanted,) = torch.autograd.grad(F.multilabel_margin_loss(x, y, reduction=reduction).sum(), x)
    loss = multilabel_margin_loss(x, y, reduction=reduction).sum()
    loss.backward(retain_graph=True)
    kept, x.grad = x.grad, None
    assert kept is not None
    kept.mul_(3.0)  # a gradient in use must not be what the second backward hands out
    loss.backward()
    torch.testing.assert_close(x.grad, wanted)
    torch.testing.assert_close(kept, 3 * wanted)
    for factor in (0.0, -2.5, 65536.0):
        scaled = factor * multilabel_margin_loss(x, y, reduction=reduction).sum()
        torch.testing.assert_close(torch.autograd.grad(scaled, x)[0], factor * wanted)


@REDUCTIONS
@pytest.mark.parametrize("changed", ["input", "target"])
def test_a_change_of_an_operand_gives_no_wrong_gradient(reduction: str, changed: str) -> None:
    """A reduced loss has its gradient from the forward pass; what is computed later refuses."""
    x, y = torch.randn(6, 5, requires_grad=True), targets(6, 5)
    (wanted,) = torch.autograd.grad(F.multilabel_margin_loss(x, y, reduction=reduction).sum(), x)
    middle, other = x * 1.0, y.clone()
    loss = multilabel_margin_loss(middle, other, reduction=reduction).sum()
    with torch.no_grad():
        (middle if changed == "input" else other).zero_()
    if reduction != "none":
        torch.testing.assert_close(torch.autograd.grad(loss, x, retain_graph=True)[0], wanted)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transforms_and_compilers() -> None:
    x, y = torch.randn(3, 4, 5), torch.stack([targets(4, 5, seed) for seed in range(3)])
    each = torch.stack([by_pairs(a, b)[0].mean() for a, b in zip(x, y, strict=True)]).float()
    torch.testing.assert_close(torch.vmap(multilabel_margin_loss)(x, y), each)
    slope = torch.func.grad(lambda a: multilabel_margin_loss(a, y[0], reduction="sum"))(x[0])
    torch.testing.assert_close(slope, by_pairs(x[0], y[0])[1].float())
    torch.compiler.reset()
    run = torch.compile(multilabel_margin_loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(run(x[0], y[0]), each[0])


def test_the_kernel_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    kernel = handwritten.run
    monkeypatch.setattr(handwritten, "run", lambda *a: (ran.append(a[0]), kernel(*a))[1])
    x, y = torch.randn(6, 5, requires_grad=True), targets(6, 5)
    multilabel_margin_loss(x, y).backward()
    assert ran == ["_multilabel_margin.py"]  # once: it gives the gradient too
    monkeypatch.setattr(multilabel_margin, "_by_tensor_operations", None)
    multilabel_margin_loss(x, y, reduction="none").sum().backward()
    assert len(ran) == 2


# ------------------------------------------------------------------------------------- contract


def test_signatures() -> None:
    def parameters(function: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(multilabel_margin_loss) == parameters(F.multilabel_margin_loss)
    assert parameters(MultiLabelMarginLoss) == parameters(torch.nn.MultiLabelMarginLoss)
    assert repr(MultiLabelMarginLoss()) == repr(torch.nn.MultiLabelMarginLoss())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_torchs_own_examples(dtype: torch.dtype) -> None:
    (info,) = [m for m in module_db if m.module_cls is torch.nn.MultiLabelMarginLoss]
    examples = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=True
    )
    assert len(examples) >= 3
    for example in examples:
        built, (x, y) = example.constructor_input, example.forward_input.args
        modules = [
            cls(*built.args, **built.kwargs)
            for cls in (MultiLabelMarginLoss, torch.nn.MultiLabelMarginLoss)
        ]
        ours, torchs = (m(x, y) for m in modules)
        torch.testing.assert_close(ours, torchs)
        torch.testing.assert_close(
            *(torch.autograd.grad(loss.sum(), x)[0] for loss in (ours, torchs))
        )


@pytest.mark.parametrize(
    ("size_average", "reduce"), list(itertools.product([None, False, True], repeat=2))[1:]
)
def test_older_arguments(size_average: bool | None, reduce: bool | None) -> None:
    x, y = torch.randn(3, 4), targets(3, 4)
    given = {"size_average": size_average, "reduce": reduce, "reduction": "sum"}
    with pytest.warns(UserWarning, match="size_average and reduce") as caught:
        found = multilabel_margin_loss(x, y, **given)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(found, F.multilabel_margin_loss(x, y, **given))
        module = MultiLabelMarginLoss(**given)
    torch.testing.assert_close(module(x, y), found)


X, Y = torch.zeros(2, 3), torch.tensor([[0, -1, 1], [2, 1, -1]])


def _with(value: int, place: int) -> Tensor:
    changed = Y.clone()
    changed[0, place] = value
    return changed


@pytest.mark.parametrize("wants_gradient", [False, True])
@pytest.mark.parametrize(
    ("input", "target", "message"),
    [
        (X, _with(3, 0), "target must hold classes from 0 to 2, .* got 3 at place 0 of row 0"),
        (X, _with(3, 2), "target must hold classes from 0 to 2, .* got 3 at place 2 of row 0"),
        (X, _with(-2, 2), "target must hold classes from 0 to 2, .* got -2 at place 2 of row 0"),
        (X, _with(2**62, 1), "target must hold classes"),
        (X[0], torch.tensor([1, 5, -1]), "target must hold classes"),
        (X, Y.int(), "target must hold classes as int64"),
        (X, Y.float(), "target must hold classes as int64"),
        (X, Y[:, :2], "target must have the input's size"),
        (X, Y[0], "target must have the input's size"),
        (X, Y.reshape(6), "target must have the input's size"),
        (X[0], Y[:1], "target must have the input's size"),
        (X[:1], Y[0], "target must have the input's size"),
        (X[:1, :1], torch.tensor(0), "target must have the input's size"),
        (X[0], Y[0, :2], "target must have the input's size"),
        (X[:, :0], Y[:, :0], r"input must be \[C\] or \[N, C\]"),
        (X[0, :0], Y[0, :0], r"input must be \[C\] or \[N, C\]"),
        (X[None], Y[None], r"input must be \[C\] or \[N, C\]"),
    ],
)
def test_bad_arguments_as_torch(
    input: Tensor, target: Tensor, message: str, wants_gradient: bool
) -> None:
    x = input.clone().requires_grad_(wants_gradient)
    with pytest.raises(RuntimeError):
        F.multilabel_margin_loss(x, target)
    with pytest.raises(RuntimeError, match=f"^multilabel_margin_loss: {message}"):
        multilabel_margin_loss(x, target)
    with pytest.MonkeyPatch.context() as patch:  # as on another device
        patch.setattr(multilabel_margin, "have_kernel", lambda values: False)
        with pytest.raises(RuntimeError, match=f"^multilabel_margin_loss: {message}"):
            multilabel_margin_loss(x, target)


def test_other_bad_arguments() -> None:
    for bad in (X.long(), X.to(torch.cfloat)):
        for loss in (F.multilabel_margin_loss, multilabel_margin_loss):
            with pytest.raises(NotImplementedError):
                loss(bad, Y)
    for given in ({"input": X.tolist(), "target": Y}, {"input": X, "target": Y.tolist()}):
        for loss in (F.multilabel_margin_loss, multilabel_margin_loss):
            with pytest.raises(TypeError, match="must be"):
                loss(**given)
    for reduction in ("median", None, "batchmean"):
        with pytest.raises(ValueError, match=r"^multilabel_margin_loss: reduction must be one of"):
            multilabel_margin_loss(X, Y, reduction=reduction)
