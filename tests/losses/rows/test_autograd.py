"""Row losses within autograd: derivatives of both orders, transforms, hooks, autocast."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from tests.losses.examples import Tensor, positive
from tests.losses.rows.examples import (
    CROSS_ENTROPIES,
    FIRST,
    ROW_CASES,
    RowCase,
    classes,
    each_case,
    floating,
    in_dtype,
    rows_last,
    sliced,
    transposed,
)
from tests.losses.test_autograd import assert_backward_repeats, assert_change_is_noticed
from thalweg import losses

REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])


def ready(case: RowCase, shape: tuple[int, ...] = (6, 5)) -> tuple[dict[str, Tensor], Tensor]:
    """Operands, the first of which requires a gradient; and that one."""
    operands = case.make(shape)
    return operands, next(iter(operands.values())).requires_grad_()


def torchs_gradient(case: RowCase, operands: dict[str, Tensor], reduction: str) -> Tensor:
    first = next(iter(operands))
    leaf = operands[first].detach().clone().requires_grad_()
    loss = case.torchs({**operands, first: leaf}, reduction=reduction).sum()
    return torch.autograd.grad(loss, leaf)[0]


# ------------------------------------------------------------------------------ derivatives


@each_case()
@REDUCTIONS
def test_first_and_second_derivatives(case: RowCase, reduction: str) -> None:
    """By weights and by probabilities too."""
    shapes: list[tuple[int, ...]] = [(3, 4)] + [(2, 3, 2)] * case.spatial
    for shape in shapes:
        operands = in_dtype(case.make(shape), torch.float64)
        names = [n for n, t in operands.items() if t.is_floating_point()]
        given = [operands[n].requires_grad_() for n in names]

        def loss(*values: Tensor, operands: Any = operands, names: Any = names) -> Tensor:
            return case.ours(
                {**operands, **dict(zip(names, values, strict=True))}, reduction=reduction
            )

        assert gradcheck(loss, given)
        assert gradgradcheck(loss, given)


@each_case()
@REDUCTIONS
def test_kernels_and_tensor_operations_agree(case: RowCase, reduction: str) -> None:
    operands = in_dtype(case.make((5, 4)), torch.float64)
    wanted = floating(case, operands)
    leaves = {n: t.requires_grad_(n in wanted) for n, t in operands.items()}
    loss = case.ours(leaves, reduction=reduction).sum()
    by = [leaves[n] for n in wanted]
    kernel = torch.autograd.grad(loss, by, retain_graph=True)
    torch.testing.assert_close(kernel, torch.autograd.grad(loss, by, create_graph=True))


@each_case()
@REDUCTIONS
def test_backward_twice_gives_the_gradient_twice(case: RowCase, reduction: str) -> None:
    operands, first = ready(case)
    wanted = torchs_gradient(case, operands, reduction)
    assert_backward_repeats(case.ours(operands, reduction=reduction).sum(), first, wanted)


@each_case()
@REDUCTIONS
@pytest.mark.parametrize("factor", [2.5, 0.0, -1.0, 65536.0])
def test_scaled_loss(case: RowCase, reduction: str, factor: float) -> None:
    operands, first = ready(case)
    (case.ours(operands, reduction=reduction) * factor).sum().backward()
    wanted = factor * torchs_gradient(case, operands, reduction)
    torch.testing.assert_close(first.grad, wanted, rtol=2e-5, atol=1e-6 * abs(factor))


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "multi_margin_loss"])
def test_a_gradient_scaler_keeps_what_float16_cannot(name: str) -> None:
    x, y = torch.randn(2**17, 4).half(), torch.randint(0, 4, (2**17,))
    x.requires_grad_()
    wide = x.detach().double().requires_grad_()
    for leaf in (x, wide):
        (getattr(losses, name)(leaf, y) * 4096.0).backward()
    assert x.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(x.grad, wide.grad.half(), rtol=2e-3, atol=6e-8)


@each_case()
@REDUCTIONS
def test_change_of_an_operand_gives_no_wrong_gradient(case: RowCase, reduction: str) -> None:
    operands, first = ready(case)
    wanted = torchs_gradient(case, operands, reduction)
    assert_change_is_noticed(case.ours, operands, first, reduction, wanted)


@each_case()
def test_operands_are_left_as_they_are(case: RowCase) -> None:
    for layout in (transposed, sliced, rows_last):
        operands = {name: layout(t) for name, t in case.make((6, 5)).items()}
        before = {name: t.clone() for name, t in operands.items()}
        leaves = {n: t.detach().requires_grad_(t.is_floating_point()) for n, t in operands.items()}
        case.ours(leaves, reduction="mean").backward()
        assert all(torch.equal(operands[name], t) for name, t in before.items())


@each_case()
@REDUCTIONS
def test_without_gradients(case: RowCase, reduction: str) -> None:
    operands, _ = ready(case)
    wanted = case.ours(operands, reduction=reduction).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = case.ours(operands, reduction=reduction)
        assert not found.requires_grad
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    plain = {name: t.detach() for name, t in operands.items()}
    assert case.ours(plain, reduction=reduction).grad_fn is None


@REDUCTIONS
def test_one_tensor_in_several_places(reduction: str) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    found = []
    for module in (losses, torch.nn.functional):
        loss = module.triplet_margin_loss(x, x.flip(0), x, reduction=reduction).sum()
        loss = loss + module.cross_entropy(x, x.softmax(1), reduction=reduction).sum()
        found.append([loss.detach(), torch.autograd.grad(loss, x)[0]])
    torch.testing.assert_close(*found)


# ------------------------------------------------------------------------------ hooks


def as_numpy(t: Tensor) -> Any:
    return t.detach().numpy().copy()


def without_strides(t: Tensor) -> Tensor:
    return t.detach().clone(memory_format=torch.contiguous_format)


@REDUCTIONS
@pytest.mark.parametrize(
    ("pack", "unpack"),
    [(as_numpy, torch.from_numpy), (without_strides, lambda t: t), (sliced, lambda t: t)],
    ids=["numpy", "contiguous", "sliced"],
)
def test_saved_tensors_may_come_back_with_other_strides(
    reduction: str, pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]
) -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = classes(x.shape)
    found = []
    for module in (losses, torch.nn.functional):
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            loss = module.cross_entropy(x, y, reduction=reduction).sum()
        found.append([torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2)])
    torch.testing.assert_close(*found)


def test_checkpoints() -> None:
    x, y = torch.randn(6, 3, requires_grad=True), torch.randint(0, 3, (6,))
    loss = torch.utils.checkpoint.checkpoint(
        lambda a: losses.cross_entropy(a * 2, y), x, use_reentrant=False
    )
    plain = torch.nn.functional.cross_entropy(x * 2, y)
    torch.testing.assert_close(torch.autograd.grad(loss, x), torch.autograd.grad(plain, x))


# ------------------------------------------------------------------------------ transforms

TRANSFORMS: dict[str, Callable[[Callable[..., Tensor], Tensor, Tensor], Any]] = {
    "grad": lambda f, x, y: torch.func.grad(f)(x[0], y[0]),
    "vmap": lambda f, x, y: torch.vmap(f)(x, y),
    "vmap of targets": lambda f, x, y: torch.vmap(f, (None, 0))(x[0], y),
    "vmap of inputs": lambda f, x, y: torch.vmap(f, (0, None))(x, y[0]),
    "vmap of grad": lambda f, x, y: torch.vmap(torch.func.grad(f))(x, y),
    "jvp": lambda f, x, y: torch.func.jvp(lambda a: f(a, y[0]), (x[0],), (x[1],)),
    "hessian": lambda f, x, y: torch.func.hessian(f)(x[0], y[0]),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch deprecates what it uses
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "multi_margin_loss", "focal_loss"])
def test_transforms_of_functions(transform: str, name: str) -> None:
    x, y = torch.randn(5, 6, 3).double(), torch.randint(0, 3, (5, 6))
    weight = positive((3,)).double()

    def of_rows(a: Tensor, b: Tensor) -> Tensor:
        return getattr(losses, name)(a, b, weight=weight)

    def by_hand(a: Tensor, b: Tensor) -> Tensor:
        """The loss by operations that every transform has."""
        taken = (torch.arange(3) == b.unsqueeze(-1)).to(a.dtype)
        w = (taken * weight).sum(-1)
        if name == "multi_margin_loss":
            short = (1 - (taken * a).sum(-1, keepdim=True) + a).clamp_min(0) * (1 - taken)
            return (short.mean(-1) * w).mean()
        log_p = ((a if name == "nll_loss" else a.log_softmax(-1)) * taken).sum(-1)
        factor = (1 - log_p.exp()) ** 2 if name == "focal_loss" else 1
        return -(log_p * w * factor).sum() / w.sum()

    run = TRANSFORMS[transform]
    torch.testing.assert_close(run(of_rows, x, y), run(by_hand, x, y))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:There is a performance drop")
def test_vmap_of_vectors() -> None:
    a, b, c = torch.randn(3, 5, 4, 3)
    target = torch.where(torch.rand(5, 4) < 0.5, 1, -1)
    F = torch.nn.functional
    for ours, theirs, operands in (
        (losses.triplet_margin_loss, F.triplet_margin_loss, (a, b, c)),
        (losses.cosine_embedding_loss, F.cosine_embedding_loss, (a, b, target)),
    ):
        torch.testing.assert_close(torch.vmap(ours)(*operands), torch.vmap(theirs)(*operands))
    p = a.sigmoid()
    each = torch.stack([losses.dice_loss(q, q) for q in p])
    torch.testing.assert_close(torch.vmap(losses.dice_loss)(p, p), each)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@REDUCTIONS
def test_forward_mode(reduction: str) -> None:
    x, v, y = torch.randn(6, 3), torch.randn(6, 3), torch.randint(0, 3, (6,))
    found = []
    for module in (losses, torch.nn.functional):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, v)
            value = module.cross_entropy(dual, y, reduction=reduction)
            tangent = forward_ad.unpack_dual(value).tangent
            assert tangent is not None, module.__name__
            found.append(tangent)
    torch.testing.assert_close(*found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@each_case()
def test_one_graph_when_compiled(case: RowCase) -> None:
    operands, first = ready(case)
    names = list(operands)

    def call(*values: Tensor) -> Tensor:
        return case.ours(dict(zip(names, values, strict=True)))

    with torch.no_grad():
        wanted = call(*operands.values())
    del first

    def plain(*values: Tensor) -> Tensor:
        result: Tensor = getattr(losses, case.name)(
            **dict(zip(names, values, strict=True)), **case.options
        )
        return result

    torch.compiler.reset()
    run = torch.compile(plain, backend="eager", fullgraph=True)
    torch.testing.assert_close(run(*operands.values()).detach(), wanted)
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["CrossEntropyLoss", "FocalLoss", "MultiMarginLoss"])
def test_compiled_training_step(name: str) -> None:
    x, y = torch.randn(8, 3), torch.randint(0, 4, (8,))
    found = []
    for compiled in (False, True):
        torch.manual_seed(1)
        net, loss = torch.nn.Linear(3, 4), getattr(losses, name)(weight=torch.ones(4))

        def step(net: Any = net, loss: Any = loss) -> Tensor:
            total: Tensor = loss(net(x), y)
            total.backward()
            return total

        run: Callable[[], Tensor] = torch.compile(step, backend="eager") if compiled else step
        total = run()
        found.append((total.detach(), *[p.grad for p in net.parameters()]))
    torch.compiler.reset()
    torch.testing.assert_close(*found)


# ------------------------------------------------------------------------------ threads, autocast


def test_calls_from_several_threads() -> None:
    """Each has its own argument block; a class out of range is raised where it is."""
    x, y = torch.randn(2000, 7), torch.randint(0, 7, (2000,))
    wanted = losses.cross_entropy(x, y)
    bad = y.clone()
    bad[1234] = 9
    wrong: list[object] = []

    def work(k: int) -> None:
        for _ in range(30):
            if k % 2:
                try:
                    losses.cross_entropy(x, bad)
                    wrong.append("no error")
                except IndexError:
                    continue
            elif not torch.equal(losses.cross_entropy(x, y), wanted):
                wrong.append("another value")

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [c for c in ROW_CASES if c.halves], ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_autocast_as_torch_on_the_cpu(case: RowCase, half: torch.dtype, reduction: str) -> None:
    if case.name in ("focal_loss", "dice_loss"):
        pytest.skip("torch has none")
    for dtype in (half, torch.float32, torch.float64):
        torch.manual_seed(0)
        operands = in_dtype(case.make((3, 4)), dtype)
        found = []
        for call in (case.ours, case.torchs):
            leaves = {n: t.detach().clone() for n, t in operands.items()}
            first = next(iter(leaves.values())).requires_grad_()
            with torch.autocast("cpu", half):
                value = call(leaves, reduction=reduction)
            found.append((value.detach(), torch.autograd.grad(value.sum(), first)[0]))
        for mine, theirs in zip(*found, strict=True):
            assert mine.dtype is theirs.dtype
            torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["focal_loss", "dice_loss"])
def test_autocast_of_ours_is_in_float32(name: str) -> None:
    case = FIRST[name]
    operands = in_dtype(case.make((3, 4)), torch.bfloat16)
    with torch.autocast("cpu"):
        found = case.ours(operands)
    torch.testing.assert_close(found, case.ours(in_dtype(operands, torch.float32)))


# ------------------------------------------------------------------------------ modules

BUILT: list[torch.nn.Module] = [
    losses.CrossEntropyLoss(torch.ones(4), label_smoothing=0.1),
    losses.NLLLoss(torch.ones(4), ignore_index=1),
    losses.FocalLoss(torch.ones(4), gamma=1.5),
    losses.MultiMarginLoss(p=2, weight=torch.ones(4)),
    losses.DiceLoss(smooth=0.5, start_dim=0),
    losses.CosineEmbeddingLoss(margin=0.2),
    losses.TripletMarginLoss(p=1, swap=True),
    losses.TripletMarginWithDistanceLoss(margin=0.5),
]


@pytest.mark.parametrize("module", BUILT, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
def test_copies_of_modules(module: torch.nn.Module, copied: Callable[[Any], Any]) -> None:
    name = type(module).__name__
    x = torch.randn(3, 4).log_softmax(1)
    arguments: tuple[Tensor, ...] = (x, torch.tensor([0, 3, 2]))
    if name == "DiceLoss":
        arguments = (x.exp(), x.exp())
    elif name == "CosineEmbeddingLoss":
        arguments = (x, x + 1, torch.tensor([1, -1, 1]))
    elif name.startswith("Triplet"):
        arguments = (x, x + 1, x - 1)
    twin = copied(module)
    assert repr(twin) == repr(module)
    assert str(twin.state_dict()) == str(module.state_dict())
    assert torch.equal(twin(*arguments), module(*arguments))


def test_weights_follow_their_module() -> None:
    loss = losses.CrossEntropyLoss(torch.ones(3)).double()
    assert loss.weight is not None
    assert loss.weight.dtype is torch.float64
    assert loss(torch.randn(2, 3).double(), torch.tensor([0, 1])).dtype is torch.float64


@pytest.mark.parametrize("case", CROSS_ENTROPIES, ids=str)
def test_probabilities_as_the_only_ones_to_differentiate_by(case: RowCase) -> None:
    operands = case.make((6, 5))
    if not operands["target"].is_floating_point():
        assert not operands["target"].requires_grad
        return
    found = []
    for call in (case.ours, case.torchs):
        leaf = operands["target"].detach().clone().requires_grad_()
        loss = call({**operands, "target": leaf}).sum()
        found.append(torch.autograd.grad(loss, leaf)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("view", [torch.clone, torch._neg_view])
@REDUCTIONS
def test_a_constant_gradient_has_derivatives_of_zero(reduction: str, view: Any) -> None:
    x, weight = torch.randn(4, 3, requires_grad=True), view(torch.rand(3) + 0.5)
    target = torch.tensor([0, 2, 1, 1])
    loss = losses.nll_loss(x, target, weight, reduction=reduction).sum()
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    assert slope.requires_grad
    (second,) = torch.autograd.grad(slope.square().sum(), x)
    assert second.tolist() == torch.zeros(4, 3).tolist()
