"""Losses of boxes: against the papers' formulas in float64, where boxes meet, and refusals."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.losses.examples import differentiated
from tests.losses.test_values import compare
from thalweg.losses import boxes

Tensor = torch.Tensor
NAN, INF = math.nan, math.inf


def _areas(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.max(p[..., :2], q[..., :2]), torch.min(p[..., 2:], q[..., 2:])
    sides = (high - low).prod(-1)
    both = torch.where((high > low).all(-1), sides, torch.zeros_like(sides))
    union = (p[..., 2:] - p[..., :2]).prod(-1) + (q[..., 2:] - q[..., :2]).prod(-1) - both
    return both, union


def _hull(p: Tensor, q: Tensor) -> Tensor:
    return torch.max(p[..., 2:], q[..., 2:]) - torch.min(p[..., :2], q[..., :2])


def iou(p: Tensor, q: Tensor, eps: float) -> Tensor:
    both, union = _areas(p, q)
    return 1 - both / (union + eps)


def giou(p: Tensor, q: Tensor, eps: float) -> Tensor:
    around, (_, union) = _hull(p, q).prod(-1), _areas(p, q)
    return iou(p, q, eps) + (around - union) / (around + eps)


def diou(p: Tensor, q: Tensor, eps: float) -> Tensor:
    apart = (p - q).unflatten(-1, (2, 2)).mean(-2)
    return iou(p, q, eps) + (apart**2).sum(-1) / ((_hull(p, q) ** 2).sum(-1) + eps)


def shape(p: Tensor, q: Tensor) -> Tensor:
    angles = []
    for box in (p, q):
        width, height = (box[..., 2:] - box[..., :2]).unbind(-1)
        angles.append(torch.atan(width / height))
    return 4 / math.pi**2 * (angles[1] - angles[0]) ** 2


def alpha(p: Tensor, q: Tensor, eps: float) -> Tensor:
    v = shape(p, q)
    return (v / (iou(p, q, eps) + v + eps)).detach()


def ciou(p: Tensor, q: Tensor, eps: float) -> Tensor:
    return diou(p, q, eps) + alpha(p, q, eps) * shape(p, q)


REFERENCES = {"iou_loss": iou, "giou_loss": giou, "diou_loss": diou, "ciou_loss": ciou}
MODULES = {f"{n[:-8].upper()}IoULoss": n for n in REFERENCES}
EVERY = pytest.mark.parametrize("name", list(REFERENCES))


def reference(name: str, reduction: str = "mean", eps: float = 1e-7) -> Callable[..., Tensor]:
    def loss(operands: dict[str, Tensor], **_: object) -> Tensor:
        each = REFERENCES[name](operands["input"], operands["target"], eps)
        return {"none": lambda: each, "mean": each.mean, "sum": each.sum}[reduction]()

    return loss


def ours(name: str, **options: object) -> Callable[..., Tensor]:
    return lambda operands, **_: getattr(boxes, name)(**operands, **options)


def random_boxes(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand((*shape, 2, 2), generator=generator, dtype=torch.float64)
    low, high = corners.amin(-2), corners.amax(-2) + 0.05
    return torch.cat([low, high], -1) * scale


def assert_right(
    name: str, input: Tensor, target: Tensor, least: float = 0.0, **options: object
) -> None:
    """As the formula in float64 has it; in float32 no further from it than in torch's operations.

    ``least``: the size of the parts of a gradient that cancel.
    """
    for dtype in (torch.float64, torch.float32):
        narrow = {"input": input.to(dtype), "target": target.to(dtype)}
        wide = {key: t.double() for key, t in narrow.items()}
        of_torch = reference(name, **options)
        found = differentiated(ours(name, **options), narrow, list(narrow))
        torchs = differentiated(of_torch, narrow, list(narrow))
        exact = differentiated(of_torch, wide, list(wide))
        compare("value", found[0], torchs[0], exact[0], 0.0)
        for key in narrow:
            compare(key, found[1][key], torchs[1][key], exact[1][key], least)


# ------------------------------------------------------------------------------------- values


@EVERY
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("size", [(4,), (1, 4), (7, 4), (3, 5, 4), (4099, 4)], ids=str)
def test_values_and_gradients(name: str, reduction: str, size: tuple[int, ...]) -> None:
    p, q = (random_boxes(*size[:-1], seed=k) for k in (0, 1))
    assert_right(name, p, q, reduction=reduction)


@EVERY
@pytest.mark.parametrize("scale", [1e4, 1e-4])
@pytest.mark.parametrize("eps", [1e-7, 0.0, 0.25])
def test_sizes_of_boxes(name: str, scale: float, eps: float) -> None:
    p, q = (random_boxes(500, scale=scale, seed=k) for k in (0, 1))
    assert_right(name, p, q, reduction="none", eps=eps)


@EVERY
def test_neighbours_far_from_the_origin(name: str) -> None:
    p = random_boxes(500) * 32 + 4096
    assert_right(name, p, p + random_boxes(500, seed=2), reduction="none")


BOX = [1.0, 2.0, 4.0, 8.0]
MEETINGS = {  # of BOX: another box, and the four losses with eps = 0, computed by hand
    "equal": (BOX, (0.0, 0.0, 0.0)),
    "nested": ([2.0, 3.0, 3.0, 5.0], (1 - 2 / 18, 1 - 2 / 18, 1 - 2 / 18 + 1 / 45)),
    "half": ([2.5, 2.0, 4.0, 8.0], (0.5, 0.5, 0.5 + 0.5625 / 45)),
    "touching": ([4.0, 2.0, 7.0, 8.0], (1.0, 1.0, 1 + 9 / 72)),
    "corner": ([4.0, 8.0, 7.0, 14.0], (1.0, 1 + 36 / 72, 1 + 45 / 180)),
    "disjoint": ([7.0, 2.0, 10.0, 8.0], (1.0, 1 + 18 / 54, 1 + 36 / 117)),
}


@pytest.mark.parametrize("which", MEETINGS)
def test_how_boxes_meet(which: str) -> None:
    other, wanted = MEETINGS[which]
    p, q = (torch.tensor(box, dtype=torch.float64) for box in (BOX, other))
    found = [
        getattr(boxes, n)(p, q, eps=0.0).item() for n in ("iou_loss", "giou_loss", "diou_loss")
    ]
    assert found == pytest.approx(wanted, rel=1e-15, abs=0)
    v = 4 / math.pi**2 * (math.atan(0.5) - math.atan2(q[2] - q[0], q[3] - q[1])) ** 2
    with_shape = wanted[2] + (v * v / (wanted[0] + v) if v else 0.0)
    eps = 0.0 if v else 1e-300  # 0 / 0 of equal boxes
    assert boxes.ciou_loss(p, q, eps=eps).item() == pytest.approx(with_shape, rel=1e-15, abs=0)
    for name in REFERENCES:
        assert_right(name, p, q, least=1 / 3)  # one over a side
        assert_right(name, q, p, least=1 / 3)


@EVERY
def test_training_moves_boxes_onto_each_other(name: str) -> None:
    """All but those that are apart at first, for the loss that has no gradient there."""
    p, q = random_boxes(64, seed=3), random_boxes(64, seed=4)
    apart = boxes.iou_loss(p, q, "none") == 1
    assert 8 <= apart.sum() <= 56
    sides = (p[:, 2:] - p[:, :2]).log().requires_grad_()
    centre = ((p[:, 2:] + p[:, :2]) / 2).requires_grad_()
    optimizer = torch.optim.Adam([sides, centre], lr=0.01)
    for _ in range(600):
        half = sides.exp() / 2
        p = torch.cat([centre - half, centre + half], -1)
        optimizer.zero_grad()
        getattr(boxes, name)(p, q, "sum").backward()
        optimizer.step()
    left = boxes.iou_loss(p.detach(), q, "none")
    assert (left[~apart] < 0.3).all()
    assert (left[apart] == 1).all() if name == "iou_loss" else (left[apart] < 0.3).all()


# A box without an area has values and gradients all the same.
FLAT = {
    "point": [2.0, 3.0, 2.0, 3.0],
    "upright": [2.0, 3.0, 2.0, 5.0],
    "level": [2.0, 3.0, 6.0, 3.0],
}


@EVERY
@pytest.mark.parametrize("which", FLAT)
@pytest.mark.parametrize("other", [*FLAT, "box"])
def test_boxes_without_an_area(name: str, which: str, other: str) -> None:
    for dtype in (torch.float32, torch.float64):
        p, q = (
            torch.tensor({"box": BOX, **FLAT}[w], dtype=dtype).requires_grad_()
            for w in (which, other)
        )
        loss = getattr(boxes, name)(p, q)
        slopes = torch.autograd.grad(loss, [p, q])
        assert loss.isfinite()
        assert torch.stack(slopes).isfinite().all()
        wanted = REFERENCES["diou_loss" if name == "ciou_loss" else name](p, q, 1e-7)
        if name != "ciou_loss" or "point" in (which, other):  # no shape, and torch's is NaN
            torch.testing.assert_close(loss, wanted)
        else:
            angle = {"upright": 0.0, "level": math.pi / 2, "box": math.atan(0.5)}
            v = 4 / math.pi**2 * (angle[which] - angle[other]) ** 2
            torch.testing.assert_close(
                loss.item() - wanted.item(), v * v / (1 + v), atol=2e-7, rtol=0
            )


def test_slope_of_the_shape_where_a_side_vanishes() -> None:
    """1 / width by the height of a box of height 0, where the quotient's own is 0 times inf."""
    p = torch.tensor([0.0, 0.0, 2.0, 0.0], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    (slope,) = torch.autograd.grad(boxes.shape(p.unbind(), q.unbind()), p)
    by_height = 8 / math.pi**2 * (math.pi / 4 - math.pi / 2) * (2 / 4)
    assert slope.tolist() == pytest.approx([0.0, -by_height, 0.0, by_height], rel=1e-12)


@EVERY
@pytest.mark.parametrize("at", range(8))
def test_nan_makes_nan(name: str, at: int) -> None:
    corners = torch.tensor([BOX, BOX]).reshape(8).clone()
    corners[at] = NAN
    p, q = corners.view(2, 4).requires_grad_().unbind()
    each = getattr(boxes, name)(torch.stack([p, q]), torch.stack([q, q]), "none")
    assert each.isnan().tolist() == [True, at >= 4]
    assert getattr(boxes, name)(p, q).isnan()


@EVERY
def test_infinite_boxes_as_the_formula_has_them(name: str) -> None:
    p = torch.tensor([[0.0, 0.0, INF, 1.0], [-INF, 0.0, 1.0, 2.0], [0.0, 0.0, INF, INF]])
    q = torch.tensor(BOX).expand(3, 4)
    found, wanted = getattr(boxes, name)(p, q, "none"), REFERENCES[name](p, q, 1e-7)
    torch.testing.assert_close(found, wanted, equal_nan=True)


@EVERY
def test_no_boxes(name: str) -> None:
    none = torch.zeros(0, 4, requires_grad=True)
    loss = getattr(boxes, name)
    assert loss(none, none).isnan()
    assert loss(none, none, "sum").item() == 0.0
    assert loss(none, none, "none").shape == (0,)
    assert torch.autograd.grad(loss(none, none), none)[0].shape == (0, 4)


# ------------------------------------------------------------------------------------- autograd


def _with_alpha(name: str, p: Tensor, q: Tensor) -> Callable[..., Tensor]:
    """The loss with alpha as it is at p and q, so that differences have it constant too."""
    if name != "ciou_loss":
        return lambda a, b: getattr(boxes, name)(a, b, "none")
    fixed = alpha(p, q, 1e-7)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        moved = alpha(a, b, 1e-7)
        return boxes.ciou_loss(a, b, "none") + (fixed - moved) * shape(a, b)

    return loss


@EVERY
def test_first_and_second_derivatives(name: str) -> None:
    p, q = (random_boxes(6, seed=k) for k in (5, 6))
    q[:3] = p[:3] + 0.1 * torch.tensor([0.3, -0.2, 0.45, 0.15])  # at least some overlap
    p.requires_grad_()
    q.requires_grad_()
    loss = _with_alpha(name, p, q)
    assert gradcheck(loss, (p, q))
    assert gradcheck(lambda a, b: loss(a, b).sum() ** 2, (p, q))
    if name != "ciou_loss":
        assert gradgradcheck(loss, (p, q))


@EVERY
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_derivatives_with_a_graph_as_torch_has_them(name: str, reduction: str) -> None:
    found = []
    for call in (ours(name, reduction=reduction), reference(name, reduction)):
        p, q = (random_boxes(9, seed=k).requires_grad_() for k in (5, 6))
        loss = (call({"input": p, "target": q}) ** 2).sum()
        slopes = torch.autograd.grad(loss, [p, q], create_graph=True)
        again = torch.autograd.grad(sum((s * s).sum() for s in slopes), [p, q])
        found.append([*(s.detach() for s in slopes), *again])
    torch.testing.assert_close(*found)


def test_alpha_is_a_constant() -> None:
    """The gradient by way of alpha, which is left out, would be seen: it is large here."""
    p, q = (random_boxes(6, seed=k) for k in (5, 6))
    p.requires_grad_()
    v = shape(p, q)
    whole = diou(p, q, 1e-7) + v * v / (iou(p, q, 1e-7) + v + 1e-7)
    (other,) = torch.autograd.grad(whole.sum(), p)
    (slope,) = torch.autograd.grad(boxes.ciou_loss(p, q, "sum"), p)
    (wanted,) = torch.autograd.grad(ciou(p, q, 1e-7).sum(), p)
    torch.testing.assert_close(slope, wanted)
    assert (other - slope).abs().max() > 0.05


@EVERY
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch deprecates what it uses
def test_transforms_of_functions(name: str) -> None:
    loss = getattr(boxes, name)
    p, q = (random_boxes(4, 3, seed=k) for k in (0, 1))
    torch.testing.assert_close(torch.vmap(loss)(p, q), loss(p, q, "none").mean(-1))
    slope = torch.func.grad(lambda a: loss(a, q))(p)
    leaf = p.clone().requires_grad_()
    torch.testing.assert_close(slope, torch.autograd.grad(loss(leaf, q), leaf)[0])


@EVERY
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_one_graph_when_compiled(name: str) -> None:
    torch.compiler.reset()
    p, q = (random_boxes(5, seed=k).float() for k in (0, 1))
    run = torch.compile(getattr(boxes, name), backend="eager", fullgraph=True)
    torch.testing.assert_close(run(p, q), getattr(boxes, name)(p, q))


@EVERY
def test_layouts_and_dtypes(name: str) -> None:
    loss = getattr(boxes, name)
    p, q = (random_boxes(6, seed=k) for k in (0, 1))
    wanted = loss(p, q, "none")
    for layout in (lambda t: t.t().contiguous().t(), lambda t: t.repeat(1, 2)[:, :4]):
        torch.testing.assert_close(loss(layout(p), q, "none"), wanted)
    one = p[:1].expand(6, 4)
    torch.testing.assert_close(loss(one, q, "none"), loss(one.contiguous(), q, "none"))
    narrow = loss(p.bfloat16(), q.bfloat16(), "none")
    assert narrow.dtype is torch.bfloat16
    wide = loss(p.bfloat16().double(), q.bfloat16().double(), "none")
    torch.testing.assert_close(narrow, wide.bfloat16(), rtol=1e-2, atol=0)
    whole = (100 * p).long(), (100 * q).long()
    torch.testing.assert_close(loss(*whole), loss(*(t.float() for t in whole)))


# ------------------------------------------------------------------------------------- refusals


@EVERY
def test_crossed_corners(name: str) -> None:
    good = random_boxes(2, 3)
    for side in (0, 1):
        bad = good.clone()
        bad[1, 2, side], bad[1, 2, side + 2] = 5.0, 4.0
        for key in ("input", "target"):
            operands = {"input": good, "target": good, key: bad}
            box = bad[1, 2].tolist()
            with pytest.raises(ValueError, match=f"^{name}: {key} must have x1 <= x2") as caught:
                getattr(boxes, name)(**operands)
            assert f"got {box} at index (1, 2)" in str(caught.value)
    with pytest.raises(ValueError, match=r"at index \(\)"):
        getattr(boxes, name)(torch.tensor([1.0, 0, 0, 1]), torch.ones(4))


@EVERY
@pytest.mark.parametrize("size", [(), (0,), (3,), (4, 3), (4, 5), (4, 1)], ids=str)
def test_what_holds_no_boxes(name: str, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"^{name}: input must hold boxes"):
        getattr(boxes, name)(torch.ones(size), torch.ones(size))


@EVERY
def test_bad_arguments(name: str) -> None:
    loss, p = getattr(boxes, name), random_boxes(3)
    for other in (random_boxes(2), random_boxes(1), random_boxes(3, 3), random_boxes()):
        with pytest.raises(ValueError, match=f"^{name}: target must have the input's size"):
            loss(p, other)
    for reduction in ("median", None, "batchmean"):
        with pytest.raises(ValueError, match=f"^{name}: reduction must be one of"):
            loss(p, p, reduction)
    for eps in (-1e-9, NAN, INF):
        with pytest.raises(ValueError, match=f"^{name}: eps must be a finite number >= 0"):
            loss(p, p, eps=eps)
    with pytest.raises(TypeError, match="eps must be a number"):
        loss(p, p, eps="a")
    for key in ("input", "target"):
        with pytest.raises(TypeError, match=f"^{name}: {key} must be a Tensor, got list"):
            loss(**{"input": p, "target": p, key: p.tolist()})
        with pytest.raises(NotImplementedError, match=f"^{name}: {key} must hold real numbers"):
            loss(**{"input": p, "target": p, key: p.to(torch.cfloat)})


@pytest.mark.parametrize("module", MODULES)
def test_modules(module: str) -> None:
    cls, loss = getattr(boxes, module), getattr(boxes, MODULES[module])
    p, q = (random_boxes(6, seed=k) for k in (0, 1))
    assert torch.equal(cls()(p, q), loss(p, q))
    assert torch.equal(cls("none", eps=0.5)(p, q), loss(p, q, "none", 0.5))
    assert list(inspect.signature(cls).parameters) == ["reduction", "eps"]
    assert repr(cls()) == f"{module}()"
    with pytest.raises(ValueError, match="reduction"):
        cls("median")(p, q)
