"""A linear layer and cross entropy in one: beside torch's, and beside the two by themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from tests.losses.examples import Tensor, positive
from tests.losses.test_contract import outcome
from tests.losses.test_values import compare
from thalweg import losses
from thalweg.losses import linear_cross_entropy

REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"linear_bias": torch.linspace(-1, 1, 11)},
    "weight": {"weight": torch.linspace(0.2, 2, 11)},
    "smoothing": {"label_smoothing": 0.2},
    "weight and smoothing": {"weight": torch.linspace(0.2, 2, 11), "label_smoothing": 0.2},
    "ignored": {"ignore_index": 3},
    "all": {
        "linear_bias": torch.linspace(-1, 1, 11),
        "weight": torch.linspace(0.2, 2, 11),
        "label_smoothing": 0.1,
        "ignore_index": 5,
    },
}


def composed(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    ignore_index: int | None = None,
    options: object = None,
    **more: Any,
) -> Tensor:
    logits = F.linear(input, linear_weight, linear_bias)
    ignored = -100 if ignore_index is None else ignore_index
    return F.cross_entropy(logits, target, ignore_index=ignored, **more)


def differentiated(call: Any, x: Tensor, w: Tensor, y: Tensor, options: dict[str, Any]) -> Any:
    leaves = [x.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()]
    given = dict(options)
    if "linear_bias" in given:
        leaves.append(given["linear_bias"].to(x.dtype).detach().clone().requires_grad_())
        given["linear_bias"] = leaves[-1]
    if "weight" in given:
        given["weight"] = given["weight"].to(x.dtype)
    value = call(leaves[0], leaves[1], y, **given)
    upstream = torch.linspace(0.5, 1.5, value.numel()).reshape(value.shape).to(value.dtype)
    return value.detach(), *torch.autograd.grad(value, leaves, upstream)


def operands(rows: int = 23, classes: int = 11, size: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.randint(0, classes, (rows,))
    return torch.randn(rows, size), torch.randn(classes, size), torch.where(y == 2, -100, y)


@pytest.mark.parametrize("what", OPTIONS)
@pytest.mark.parametrize("chunk", [None, 1, 5, 23, 64])
@REDUCTIONS
def test_values_and_gradients(what: str, chunk: int | None, reduction: str) -> None:
    """At most one and a half of the error that the two have, whatever the rows of a chunk."""
    x, w, y = operands()
    given = {**OPTIONS[what], "reduction": reduction}
    if what in ("ignored", "all"):
        y = torch.where(y < 0, 0, y)
    mine = {**given, "options": SimpleNamespace(batch_chunk_size=chunk)} if chunk else given
    ours = differentiated(linear_cross_entropy, x, w, y, mine)
    torchs = differentiated(composed, x, w, y, given)
    exact = differentiated(composed, x.double(), w.double(), y, given)
    for name, *found in zip(("value", "x", "w", "b"), ours, torchs, exact, strict=False):
        assert found[0].dtype is found[1].dtype
        # The sums of a chunk and those of all are rounded in different places.
        compare(name, *found, max(1.0, found[2].abs().max().item()))
    theirs = differentiated(F.linear_cross_entropy, x, w, y, given)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("chunk", [None, 5])
@REDUCTIONS
def test_16_bits(half: torch.dtype, chunk: int | None, reduction: str) -> None:
    x, w, y = operands(64, 11, 16)
    given: dict[str, Any] = {"reduction": reduction}
    mine = {**given, "options": SimpleNamespace(batch_chunk_size=chunk)} if chunk else given
    x, w = x.to(half), w.to(half)
    ours = differentiated(linear_cross_entropy, x, w, y, mine)
    exact = differentiated(composed, x.double(), w.double(), y, given)
    eps = torch.finfo(half).eps
    for found, right in zip(ours, exact, strict=True):
        assert found.dtype is half
        scale = right.abs().max().item()
        torch.testing.assert_close(found.double(), right, rtol=8 * eps, atol=8 * eps * scale)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_many_chunks_of_16_bits(half: torch.dtype) -> None:
    """The gradients of the layer are sums over the chunks, in more than 16 bits."""
    x, w, y = operands(4096, 50, 32)
    x, w = x.to(half), (0.2 * w).to(half)
    given: dict[str, Any] = {"linear_bias": torch.zeros(50), "reduction": "sum"}
    mine = {**given, "options": SimpleNamespace(batch_chunk_size=64)}
    ours = differentiated(linear_cross_entropy, x, w, y, mine)
    torchs = differentiated(composed, x, w, y, given)
    exact = differentiated(composed, x.double(), w.double(), y, given)
    for a, b, right in zip(ours[1:], torchs[1:], exact[1:], strict=True):
        errors = [((t.double() - right).norm() / right.norm()).item() for t in (a, b)]
        assert errors[0] <= 1.5 * errors[1] + torch.finfo(half).eps / 16


@pytest.mark.parametrize("what", OPTIONS)
@REDUCTIONS
def test_derivatives(what: str, reduction: str) -> None:
    x, w, y = operands(4, 11, 3)
    if what in ("ignored", "all"):
        y = y.clamp_min(0)
    given = {n: v.double() if torch.is_tensor(v) else v for n, v in OPTIONS[what].items()}
    bias = given.pop("linear_bias", None)
    leaves = [x.double().requires_grad_(), w.double().requires_grad_()]
    leaves += [] if bias is None else [bias.clone().requires_grad_()]

    def loss(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return linear_cross_entropy(x, w, y, linear_bias=b, reduction=reduction, **given)

    assert gradcheck(loss, leaves)
    assert gradgradcheck(loss, leaves)


@REDUCTIONS
def test_more_dimensions_and_probabilities(reduction: str) -> None:
    x = torch.randn(6, 4)
    cases: list[tuple[Tensor, Tensor, dict[str, Any]]] = [
        (torch.randn(5, 2, 3, 4), torch.randint(0, 5, (6, 2, 3)), {"weight": positive((5,))}),
        (torch.randn(5, 2, 4), torch.rand(6, 5, 2), {}),
        (torch.randn(5, 4), torch.rand(6, 5), {"label_smoothing": 0.1}),
        (torch.randn(5, 2, 4), torch.randint(0, 5, (6, 2)), {"linear_bias": torch.randn(5, 2)}),
    ]
    for w, y, given in cases:
        given = {**given, "reduction": reduction}
        found = [differentiated(m.linear_cross_entropy, x, w, y, given) for m in (losses, F)]
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@REDUCTIONS
def test_one_vector_and_no_vectors(reduction: str) -> None:
    x, w, _ = operands(1)
    for vectors, y in (
        (x[0], torch.tensor(3)),
        (x[0], torch.tensor([3])),
        (x[:0], torch.zeros(0, dtype=torch.int64)),
        (x[:, :0], torch.tensor([3])),
    ):
        weight = w[:, : vectors.shape[-1]]
        found = [
            m.linear_cross_entropy(vectors, weight, y, reduction=reduction) for m in (losses, F)
        ]
        torch.testing.assert_close(*found, equal_nan=True)


@pytest.mark.parametrize("what", OPTIONS)
@REDUCTIONS
def test_what_is_given_is_left_as_it_is(what: str, reduction: str) -> None:
    """Logits are turned into their gradients in place; nothing that is given may be."""
    x, w, y = operands()
    if what in ("ignored", "all"):
        y = y.clamp_min(0)
    before = [t.clone() for t in (x, w, y)]
    options = {n: v.clone() if torch.is_tensor(v) else v for n, v in OPTIONS[what].items()}
    leaves = [x.requires_grad_(), w.requires_grad_()]
    loss = linear_cross_entropy(*leaves, y, reduction=reduction, **options).sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    kept = [t.clone() for t in first]
    second = torch.autograd.grad(loss, leaves)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(list(first), kept)
    for now, then in zip((x, w, y), before, strict=True):
        assert torch.equal(now, then)
    for name, value in options.items():
        if torch.is_tensor(value):
            assert torch.equal(value, OPTIONS[what][name])


def test_a_layer_of_the_identity_is_not_overwritten() -> None:
    """Rows, weight and target of one chunk that fills the room exactly; strides of each kind."""
    x, y = torch.randn(11, 11), torch.arange(11)
    for rows in (x, x.t(), x.t().contiguous().t(), x.expand(11, 11)):
        leaf = rows.detach().requires_grad_()
        loss = linear_cross_entropy(leaf, leaf, y)
        (found,) = torch.autograd.grad(loss, leaf)
        twin = rows.detach().clone().requires_grad_()
        (wanted,) = torch.autograd.grad(composed(twin, twin, y), twin)
        torch.testing.assert_close(found, wanted)


def test_scaled_loss_in_float16() -> None:
    x, w, y = operands(512, 11, 8)
    leaf = x.half().requires_grad_()
    wide = leaf.detach().double().requires_grad_()
    (linear_cross_entropy(leaf, w.half(), y) * 4096.0).backward()
    (composed(wide, w.half().double(), y) * 4096.0).backward()
    assert leaf.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(leaf.grad.double(), wide.grad, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64], ids=str)
@REDUCTIONS
def test_autocast(half: torch.dtype, dtype: torch.dtype | None, reduction: str) -> None:
    x, w, y = operands()
    x, w = x.to(dtype or half), w.to(dtype or half)
    found = []
    for m in (losses, F):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", half):
            value = m.linear_cross_entropy(leaf, w, y, reduction=reduction)
        found.append((value.detach(), torch.autograd.grad(value.sum(), leaf)[0]))
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype is theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("out", [(), (2, 3)])
def test_module(bias: bool, out: tuple[int, ...]) -> None:
    options: dict[str, Any] = {"bias": bias, "out_features": out, "label_smoothing": 0.1}
    ours = losses.LinearCrossEntropyLoss(4, 5, weight=torch.ones(5), **options)
    torchs = torch.nn.LinearCrossEntropyLoss(4, 5, weight=torch.ones(5), **options)
    assert [(n, t.shape) for n, t in ours.state_dict().items()] == [
        (n, t.shape) for n, t in torchs.state_dict().items()
    ]
    ours.load_state_dict(torchs.state_dict())
    x, y = torch.randn(6, 4), torch.randint(0, 5, (6, *out))
    found = []
    for module in (ours, torchs):
        loss = module(x, y)
        found.append([loss.detach(), *torch.autograd.grad(loss, list(module.parameters()))])
    torch.testing.assert_close(*found)


# ------------------------------------------------------------------------------ bad arguments

X, W, Y, B = torch.zeros(7, 4), torch.zeros(5, 4), torch.zeros(7, dtype=torch.int64), torch.zeros(5)
BAD: dict[str, Any] = {
    "three dimensions": lambda f: f(X[None], W, Y[None]),
    "number": lambda f: f(torch.tensor(1.0), W, Y),
    "vector as weight": lambda f: f(X, W[0], Y),
    "other vectors": lambda f: f(X, W[:, :3], Y),
    "other bias": lambda f: f(X, W, Y, linear_bias=B[:3]),
    "other weight": lambda f: f(X, W, Y, weight=B[:3]),
    "float64 weight": lambda f: f(X, W, Y, weight=B.double()),
    "float64 layer": lambda f: f(X, W.double(), Y),
    "float64 bias": lambda f: f(X, W, Y, linear_bias=B.double()),
    "integers": lambda f: f(X.long(), W.long(), Y),
    "complex": lambda f: f(X.cfloat(), W.cfloat(), Y),
    "int32": lambda f: f(X, W, Y.int()),
    "floating target": lambda f: f(X, W, Y.float()),
    "list of weights": lambda f: f(X, W, Y, weight=[1.0]),
    "smoothing of 2": lambda f: f(X, W, Y, label_smoothing=2),
    "word for smoothing": lambda f: f(X, W, Y, label_smoothing="a"),
    "fraction to ignore": lambda f: f(X, W, Y, ignore_index=1.5),
    "probabilities and a class to ignore": lambda f: f(X, W, torch.rand(7, 5), ignore_index=1),
    "too large": lambda f: f(X, W, Y + 5),
    "too large, none": lambda f: f(X, W, Y + 5, reduction="none"),
    "negative": lambda f: f(X, W, Y - 1),
    "fewer targets": lambda f: f(X, W, Y[:3]),
    "column of targets": lambda f: f(X, W, Y[:, None]),
    "one vector, more dimensions": lambda f: f(X[0], torch.zeros(5, 2, 4), Y[:2]),
    "more dimensions, other target": lambda f: f(X, torch.zeros(5, 2, 4), Y),
    "unknown reduction": lambda f: f(X, W, Y, reduction="avg"),
    "None for reduction": lambda f: f(X, W, Y, reduction=None),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arguments_as_torch(what: str) -> None:
    wanted = outcome(lambda: BAD[what](F.linear_cross_entropy))
    assert wanted is not None
    with pytest.raises(wanted):
        BAD[what](linear_cross_entropy)


@pytest.mark.parametrize("name", ["input", "linear_weight", "target", "linear_bias", "weight"])
def test_arguments_that_are_no_tensors(name: str) -> None:
    """torch's AttributeErrors come from within."""
    given = {"input": X, "linear_weight": W, "target": Y, name: [1.0]}
    with pytest.raises(TypeError, match=f"{name} must be a Tensor, got list"):
        linear_cross_entropy(**given)


@pytest.mark.parametrize("chunk", [None, 3])
@REDUCTIONS
def test_a_class_out_of_range_in_a_later_chunk(chunk: int | None, reduction: str) -> None:
    y = Y.clone()
    y[5] = 7
    options = SimpleNamespace(batch_chunk_size=chunk)
    with pytest.raises(IndexError, match=r"^linear_cross_entropy: Target 7 is out of bounds"):
        linear_cross_entropy(X, W, y, reduction=reduction, options=options)


def test_operands_with_gaps() -> None:
    x, w, y = operands()
    gaps = {
        "linear_bias": torch.randn(2 * len(w))[::2],
        "weight": torch.rand(len(w), 3)[:, 1],
    }
    y = torch.stack([y, y.flip(0)], 1)[:, 0]
    found = losses.linear_cross_entropy(x, w, y, **gaps)
    packed = {name: t.contiguous() for name, t in gaps.items()}
    right = composed(x, w, y.contiguous(), **packed)
    torch.testing.assert_close(found, right)
