"""CTC: against all paths one by one, against torch, and where torch's is odd."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.testing._internal.common_modules import module_db

from thalweg.losses.ctc import CTCLoss, ctc_loss

Tensor = torch.Tensor
INF, NAN = float("inf"), float("nan")
REDUCTIONS = ["none", "mean", "sum"]


def log_probs(*size: int, dtype: torch.dtype = torch.float64, spread: float = 1.0) -> Tensor:
    return (spread * torch.randn(size, dtype=torch.float64)).log_softmax(-1).to(dtype)


def differentiated(
    call: Callable[..., Tensor], x: Tensor, *rest: Any, create_graph: bool = False, **options: Any
) -> tuple[Tensor, Tensor]:
    """The loss, and the gradient of its sum, each sample counted differently."""
    leaf = x.detach().requires_grad_()
    loss = call(leaf, *rest, **options)
    counted = loss * torch.linspace(1, 2, loss.numel(), dtype=loss.dtype).view(loss.shape)
    (slope,) = torch.autograd.grad(counted.sum(), leaf, create_graph=create_graph)
    return loss.detach(), slope.detach()


# ------------------------------------------------------------------------------ all paths


def all_paths(x: Tensor, target: list[int], blank: int = 0) -> Tensor:
    """Graves et al., equations 2 and 3, as they are written; x is [T, C]."""
    steps, classes = x.shape
    found = []
    for path in itertools.product(range(classes), repeat=steps):
        merged = [c for c, _ in itertools.groupby(path)]
        if [c for c in merged if c != blank] == target:
            found.append(sum((x[t, c] for t, c in enumerate(path)), x.new_zeros(())))
    return -torch.stack(found).logsumexp(0) if found else x.sum() * 0 + INF


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_sum_over_all_paths(steps: int, blank: int) -> None:
    one, two = [c for c in range(3) if c != blank]
    targets = [[], [one], [one, one], [one, two], [two, one, two], [one, one, two], [two] * 3]
    for target in targets:
        logits = torch.randn(steps, 3, dtype=torch.float64, requires_grad=True)
        x = logits.log_softmax(-1)
        wanted = all_paths(x, target, blank)
        arguments = torch.tensor(target, dtype=torch.int64), (steps,), (len(target),)
        found = ctc_loss(x, *arguments, blank=blank, reduction="sum")
        torch.testing.assert_close(found, wanted)
        if wanted.isfinite():
            slopes = [torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (found, wanted)]
            torch.testing.assert_close(*slopes)
            (by_x,) = torch.autograd.grad(wanted, x, retain_graph=True)
            (ours,) = torch.autograd.grad(found, x)
            torch.testing.assert_close(ours, x.exp() + by_x)  # as the docstring has it


@pytest.mark.parametrize("target", [[], [1], [1, 1], [2, 1]], ids=str)
def test_second_derivative_of_all_paths(target: list[int]) -> None:
    def loss(which: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda z: which(z.log_softmax(-1))

    label = torch.tensor(target, dtype=torch.int64)
    ours = loss(lambda x: ctc_loss(x, label, (4,), (len(target),), reduction="sum"))
    logits = torch.randn(4, 3, dtype=torch.float64)
    hessians = [
        torch.autograd.functional.hessian(call, logits)
        for call in (ours, loss(lambda x: all_paths(x, target)))
    ]
    torch.testing.assert_close(*hessians)


# ------------------------------------------------------------------------------ against torch

# Target lengths and input lengths of a batch of four: of 7 time steps, and at most 4 labels.
BATCHES: dict[str, tuple[list[int], list[int]]] = {
    "ragged": ([4, 1, 3, 2], [7, 4, 6, 5]),
    "empty targets": ([0, 2, 0, 4], [7, 3, 1, 7]),
    "all empty": ([0, 0, 0, 0], [7, 3, 1, 0]),
    "too short": ([4, 3, 1, 2], [3, 7, 1, 2]),
    "no time": ([1, 0, 2, 3], [0, 0, 7, 6]),
}


def labels(counts: list[int], classes: int, blank: int, padded: bool, repeats: bool) -> Tensor:
    known = torch.tensor([c for c in range(classes) if c != blank])
    drawn = known[torch.randint(0, 2 if repeats else classes - 1, (len(counts), 4))]
    if padded:
        return drawn
    return torch.cat([row[:count] for row, count in zip(drawn, counts, strict=True)])


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_as_torch(batch: tuple[list[int], list[int]], zero_infinity: bool, reduction: str) -> None:
    counts, steps = batch
    options: dict[str, Any] = {"zero_infinity": zero_infinity, "reduction": reduction}
    for padded, repeats, blank in itertools.product([True, False], [True, False], [0, 2, 4]):
        x = log_probs(7, 4, 5)
        target = labels(counts, 5, blank, padded, repeats)
        lengths: Any = (steps, counts) if repeats else (torch.tensor(steps), torch.tensor(counts))
        wanted = differentiated(F.ctc_loss, x, target, *lengths, blank=blank, **options)
        for create_graph in (False, True):
            found = differentiated(
                ctc_loss,
                x,
                target,
                *lengths,
                blank=blank,
                **options,
                create_graph=create_graph,
            )
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.float32]
)
def test_dtypes_of_targets(dtype: torch.dtype) -> None:
    x, target = log_probs(6, 2, 5), torch.tensor([[1, 2], [3, 3]])
    wanted = F.ctc_loss(x, target, (6, 5), (2, 2))
    assert torch.equal(
        ctc_loss(x, target.to(dtype), (6, 5), (2, 2)), ctc_loss(x, target, (6, 5), (2, 2))
    )
    torch.testing.assert_close(ctc_loss(x, target.to(dtype), (6, 5), (2, 2)), wanted)
    if not dtype.is_floating_point:
        lengths = torch.tensor([6, 5], dtype=dtype), torch.tensor([2, 2], dtype=dtype)
        torch.testing.assert_close(ctc_loss(x, target, *lengths), wanted)


def test_a_label_that_is_the_blank() -> None:
    x, target = log_probs(6, 2, 3), torch.tensor([[1, 0, 2], [0, 0, 1]])
    arguments = x, target, (6, 6), (3, 3)
    torch.testing.assert_close(
        differentiated(ctc_loss, *arguments), differentiated(F.ctc_loss, *arguments)
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_one_sample(reduction: str) -> None:
    x = log_probs(6, 4)
    cases: list[tuple[Tensor, Any, Any]] = [
        (torch.tensor([1, 2]), torch.tensor(6), torch.tensor(2)),
        (torch.tensor([1, 2]), torch.tensor([6]), torch.tensor([2])),
        (torch.tensor([1, 2]), (6,), (2,)),
        (torch.tensor([[3, 3]]), [5], [2]),
    ]
    for rest in cases:
        found = differentiated(ctc_loss, x, *rest, reduction=reduction)
        assert found[0].shape == ()
        torch.testing.assert_close(found, differentiated(F.ctc_loss, x, *rest, reduction=reduction))


def channels_in_front(x: Tensor) -> Tensor:
    return x.permute(2, 1, 0).contiguous().permute(2, 1, 0)


LAYOUTS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    channels_in_front,
    lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    lambda x: x.repeat_interleave(2, 0)[::2],
    lambda x: x[:, :1].expand(-1, 3, -1),
    lambda x: torch._neg_view(-x),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layouts(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x = log_probs(9, 3, 40, dtype=dtype)
    target = torch.randint(1, 40, (4, 6)).t()[1:5, :3].t()  # neither dimension is dense
    arguments = (9, 7, 5), (4, 4, 1)
    wanted = differentiated(F.ctc_loss, layout(x).contiguous().double(), target, *arguments)
    found = differentiated(ctc_loss, layout(x), target, *arguments)
    torch.testing.assert_close(found, tuple(v.to(dtype) for v in wanted))


# ------------------------------------------------------------------------------ precision


@pytest.mark.parametrize(
    ("steps", "longest", "classes", "spread"),
    [(3, 1, 4, 1), (60, 12, 20, 1), (60, 12, 20, 8), (500, 100, 50, 3), (700, 300, 5, 1)],
)
def test_closer_to_float64_than_torch(
    steps: int, longest: int, classes: int, spread: float
) -> None:
    """300 labels are 601 states: more than the kernel takes at a time."""
    x = log_probs(steps, 3, classes, dtype=torch.float32, spread=spread)
    target = torch.randint(1, classes, (3, longest))
    rest = target, [steps, steps - 1, steps], [longest, longest // 2, longest]
    for reduction in REDUCTIONS:
        exact = differentiated(F.ctc_loss, x.double(), *rest, reduction=reduction)
        torchs = differentiated(F.ctc_loss, x, *rest, reduction=reduction)
        for create_graph in (False, True) if steps < 100 else (False,):
            ours = differentiated(
                ctc_loss, x, *rest, reduction=reduction, create_graph=create_graph
            )
            for a, b, e in zip(ours, torchs, exact, strict=True):
                assert a.dtype is torch.float32
                ulp = torch.finfo(torch.float32).eps * e.abs().max()
                assert ((a - e).abs() <= 1.5 * (b - e).abs() + 4 * ulp).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_16_bits_are_for_storage(dtype: torch.dtype, reduction: str) -> None:
    """torch's has no such dtypes on the CPU."""
    x = log_probs(20, 3, 7, dtype=dtype)
    rest = torch.randint(1, 7, (3, 5)), (20, 15, 9), (5, 4, 1)
    wanted = differentiated(F.ctc_loss, x.double(), *rest, reduction=reduction)
    for create_graph in (False, True):
        found = differentiated(ctc_loss, x, *rest, reduction=reduction, create_graph=create_graph)
        eps = torch.finfo(dtype).eps
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype is dtype
            torch.testing.assert_close(a.double(), b, rtol=eps, atol=eps * b.abs().max().item())


def test_under_autocast() -> None:
    x = log_probs(6, 1, 4, dtype=torch.bfloat16).requires_grad_()
    rest = torch.tensor([[1, 2]]), (6,), (2,)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, wanted = ctc_loss(x, *rest), F.ctc_loss(x, *rest)
    assert found.dtype is wanted.dtype is torch.float32
    torch.testing.assert_close(found, wanted)
    (slope,) = torch.autograd.grad(found, x)
    assert slope.dtype is torch.bfloat16


def test_threads_give_the_same_bits() -> None:
    x = log_probs(40, 17, 30, dtype=torch.float32)
    rest = torch.randint(1, 30, (17, 8)), [40] * 17, [8] * 17
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append([differentiated(ctc_loss, x, *rest, reduction=r) for r in REDUCTIONS])
    assert str(found[0]) == str(found[1]) == str(found[2])
    for ours in found[1:]:
        for (a, b), (c, d) in zip(ours, found[0], strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)


# ------------------------------------------------------------------------------ odd numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("low", [-100.0, -177.0, -400.0, -1e4, -3e6])
def test_improbable_labels(low: float, dtype: torch.dtype) -> None:
    """Probabilities that no float64 holds, of states beside others that it does hold."""
    x = log_probs(30, 2, 6, dtype=dtype)
    x[:, :, 2] = low
    x[3:7, 0, :] += low
    rest = torch.tensor([[1, 2, 2, 3], [2, 1, 2, 4]]), (30, 20), (4, 4)
    exact = differentiated(F.ctc_loss, x.double(), *rest)
    torchs = differentiated(F.ctc_loss, x, *rest)
    for create_graph in (False, True):
        found = differentiated(ctc_loss, x, *rest, create_graph=create_graph)
        for a, b, e in zip(found, torchs, exact, strict=True):
            least = 4 * torch.finfo(dtype).eps * max(1.0, e.abs().max().item())
            # In float64 what is exact is so up to the rounding of numbers as large as the lowest.
            rounding = 1e-15 * abs(low) * 10
            assert ((a - e).abs() <= 1.5 * (b - e).abs() + least + rounding).all()


def test_enormous_numbers() -> None:
    for dtype, low in ((torch.float32, -1e37), (torch.float64, -1e300), (torch.float64, -1e306)):
        x = torch.full((3, 1, 2), low, dtype=dtype)
        found, slope = differentiated(ctc_loss, x, torch.tensor([[1]]), (3,), (1,), reduction="sum")
        torch.testing.assert_close(found, -3 * x[0, 0, 0], rtol=1e-6, atol=0)
        assert slope.isfinite().all()


def kinds(t: Tensor) -> list[float]:
    """0 for a finite number, 2 for NaN, the sign of an infinite one."""
    return torch.where(t.isnan(), 2.0, torch.where(t.isinf(), t.sign(), 0.0)).flatten().tolist()


# Class 4 is in no target. The last column: where torch's gradient is NaN and ours is not.
@pytest.mark.parametrize(
    ("where", "value", "known"),
    [
        # A probability of 0 has a share of 0 in the paths; torch subtracts inf from inf.
        ((2, 0, 4), -INF, True),
        ((2, 0, 2), -INF, True),
        ((2, 0, 0), -INF, True),
        ((slice(None), 0, 2), -INF, False),  # no path is left: NaN everywhere
        ((2, 0, 4), NAN, False),
        ((0, 0, 3), NAN, False),  # no path begins with the last label
        ((2, 0, 2), NAN, False),
        ((2, 0, 2), INF, False),
        ((2, 0, 4), INF, False),
    ],
)
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_odd_numbers(where: Any, value: float, known: bool, zero_infinity: bool) -> None:
    x = log_probs(6, 2, 5)
    x[where] = value
    rest = torch.tensor([[1, 2, 3], [1, 2, 3]]), (6, 6), (3, 3)
    options: dict[str, Any] = {"reduction": "none", "zero_infinity": zero_infinity}
    wanted, slope = differentiated(F.ctc_loss, x, *rest, **options)
    found, ours = differentiated(ctc_loss, x, *rest, **options)
    torch.testing.assert_close(found, wanted, equal_nan=True)
    if known:
        assert slope[where].isnan()
        assert ours[where] == 0.0
        slope[where] = 0.0
    torch.testing.assert_close(ours, slope, equal_nan=True)
    if value == INF:
        return  # not a probability: in float64 either way only NaN or inf
    again, eager = differentiated(ctc_loss, x, *rest, **options, create_graph=True)
    torch.testing.assert_close((again, eager), (found, ours), equal_nan=True)


def test_nan_where_no_path_is() -> None:
    """At the second step no path is at the third label; torch's alphas carry the NaN on."""
    x = log_probs(6, 1, 5)
    x[1, 0, 3] = NAN
    rest = torch.tensor([[1, 2, 3]]), (6,), (3,)
    assert F.ctc_loss(x, *rest).isnan()
    found, slope = differentiated(ctc_loss, x, *rest)
    torch.testing.assert_close(found, all_paths(x[:, 0].nan_to_num(0.0), [1, 2, 3]) / 3)
    assert slope.isnan().nonzero().tolist() == [[1, 0, 3]]


# ------------------------------------------------------------------------------ autograd


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_first_and_second_derivatives(reduction: str, zero_infinity: bool) -> None:
    target = torch.tensor([[1, 2], [2, 2], [1, 1]])
    counts, steps = [2, 2, 0], [2, 1 if zero_infinity else 4, 3]

    def loss(z: Tensor) -> Tensor:
        return ctc_loss(z.log_softmax(-1), target, steps, counts, 0, reduction, zero_infinity)

    logits = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, logits)
    assert torch.autograd.gradgradcheck(loss, logits)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_backward_twice_and_changes(reduction: str) -> None:
    logits = torch.randn(5, 2, 4, requires_grad=True)
    rest = torch.tensor([[1, 2], [3, 3]]), (5, 5), (2, 2)
    x = logits.log_softmax(-1)
    loss = ctc_loss(x, *rest, reduction=reduction).sum()
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    kept = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(loss, x, retain_graph=True)
    assert torch.equal(second, kept)
    rest[0].add_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, x)


def test_without_gradients() -> None:
    x = log_probs(5, 2, 4).requires_grad_()
    rest = torch.tensor([[1, 2], [3, 3]]), (5, 5), (2, 2)
    wanted = ctc_loss(x, *rest)
    assert wanted.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = ctc_loss(x, *rest)
        assert not found.requires_grad
        assert torch.equal(found, wanted)
    assert ctc_loss(x.detach(), *rest).grad_fn is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch deprecates what it uses
@pytest.mark.parametrize("as_tensors", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_transforms_of_functions(as_tensors: bool, padded: bool) -> None:
    target = torch.tensor([[1, 2], [3, 3]])
    target = target if padded else target.flatten()
    lengths: Any = ((5, 4), (2, 2))
    if as_tensors:
        lengths = tuple(map(torch.tensor, lengths))
    logits = torch.randn(5, 2, 4, dtype=torch.float64)

    def loss(z: Tensor) -> Tensor:
        return ctc_loss(z.log_softmax(-1), target, *lengths)

    (wanted,) = torch.autograd.grad(loss(logits.requires_grad_()), logits)
    logits = logits.detach()
    torch.testing.assert_close(torch.func.grad(loss)(logits), wanted)
    _, along = torch.func.jvp(loss, (logits,), (wanted,))
    torch.testing.assert_close(along, (wanted * wanted).sum())
    many = torch.stack([logits, 2 * logits])
    torch.testing.assert_close(torch.vmap(loss)(many), torch.stack([loss(z) for z in many]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("as_tensors", [False, True])
def test_one_graph_when_compiled(as_tensors: bool) -> None:
    x = log_probs(4, 2, 4)
    rest: Any = torch.tensor([[1, 2], [3, 3]]), (4, 3), (2, 2)
    if as_tensors:
        rest = tuple(map(torch.as_tensor, rest))
    torch.compiler.reset()
    run = torch.compile(ctc_loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(run(x, *rest), F.ctc_loss(x, *rest))


def test_on_meta() -> None:
    x, target = log_probs(4, 2, 4).to("meta"), torch.zeros(2, 2, dtype=torch.int64, device="meta")
    assert ctc_loss(x, target, (4, 4), (2, 2), reduction="none").shape == (2,)
    assert ctc_loss(x, target, target[0], target[0]).shape == ()


# ------------------------------------------------------------------------------ torch's examples


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_torchs_own_examples(dtype: torch.dtype) -> None:
    (info,) = [m for m in module_db if m.module_cls is torch.nn.CTCLoss]
    examples = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=True
    )
    assert examples
    for example in examples:
        built, called = example.constructor_input, example.forward_input
        x, *rest = called.args
        ours, torchs = (
            functools.partial(module(*built.args, **built.kwargs), **called.kwargs)
            for module in (CTCLoss, torch.nn.CTCLoss)
        )
        wanted = differentiated(torchs, x.double(), *rest)
        torch.testing.assert_close(
            differentiated(ours, x, *rest), tuple(v.to(dtype) for v in wanted)
        )


# ------------------------------------------------------------------------------ contract


def test_signatures_and_attributes() -> None:
    for ours, torchs in ((ctc_loss, F.ctc_loss), (CTCLoss, torch.nn.CTCLoss)):
        a, b = (inspect.signature(f).parameters for f in (ours, torchs))
        assert {n: (p.kind, p.default) for n, p in a.items()} == {
            n: (p.kind, p.default) for n, p in b.items()
        }
        assert list(a) == list(b)
    module, torchs = (m(2, "sum", True) for m in (CTCLoss, torch.nn.CTCLoss))
    assert repr(module) == repr(torchs)
    public = {n: v for n, v in vars(torchs).items() if not n.startswith("_")}
    assert {n: v for n, v in vars(module).items() if not n.startswith("_")} == public
    arguments = log_probs(4, 1, 3), torch.tensor([[1]]), (4,), (1,)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(*arguments), module(*arguments))


def test_older_name_of_mean() -> None:
    arguments = log_probs(4, 1, 3), torch.tensor([[1]]), (4,), (1,)
    with pytest.warns(UserWarning, match="elementwise_mean") as caught:
        found = ctc_loss(*arguments, reduction="elementwise_mean")
    assert caught[0].filename == __file__
    assert torch.equal(found, ctc_loss(*arguments))


X = torch.zeros(6, 2, 4).log_softmax(-1)
Y = torch.tensor([[1, 2], [3, 3]])
SIX, TWO = torch.tensor([6, 6]), torch.tensor([2, 2])
GOOD = {"log_probs": X, "targets": Y, "input_lengths": [6, 6], "target_lengths": [2, 2]}
BOTH = {"input_lengths": SIX, "target_lengths": TWO}
NONE = {"input_lengths": [], "target_lengths": []}
BAD: list[tuple[str, dict[str, Any]]] = [
    ("log_probs must be a Tensor", {"log_probs": [1.0]}),
    ("log_probs must be floating", {"log_probs": X.long()}),
    ("log_probs must", {"log_probs": X.to(torch.cfloat)}),
    ("log_probs must have the dim", {"log_probs": X[0, 0]}),
    ("log_probs must have the dim", {"log_probs": X[0, 0, 0]}),
    ("log_probs must have the dim", {"log_probs": X[None]}),
    ("log_probs must have elements", {"log_probs": X[:0]}),
    ("log_probs must have elements", {"log_probs": X[:, :0], "targets": Y[:0], **NONE}),
    ("log_probs must have elements", {"log_probs": X[:, :, :0]}),
    ("targets must be a Tensor", {"targets": [[1, 2], [3, 3]]}),
    ("targets must have one dim", {"targets": Y[None]}),
    ("targets must have one dim", {"targets": torch.tensor(1)}),
    ("targets must have one dim", {"targets": torch.ones(3, 2, dtype=torch.int64)}),
    ("targets in one dimension", {"targets": torch.tensor([1, 2, 3])}),
    ("targets in one dimension", {"targets": torch.tensor([1, 2, 3, 3, 2])}),
    ("input_lengths and target_lengths must both", {"target_lengths": TWO}),
    ("input_lengths and target_lengths must both", {"input_lengths": SIX}),
    ("input_lengths must hold integers", {**BOTH, "input_lengths": SIX.float()}),
    ("input_lengths must hold integers", {**BOTH, "input_lengths": SIX.bool()}),
    ("target_lengths must hold integers", {**BOTH, "target_lengths": TWO.double()}),
    (r"input_lengths\[1\] must be an integer", {"input_lengths": [6, 6.0]}),
    (r"input_lengths\[0\] must be an integer", {"input_lengths": [None, 6]}),
    ("input_lengths must be a tensor, a list", {"input_lengths": 6}),
    ("input_lengths must be a tensor, a list", {"input_lengths": "66"}),
    ("input_lengths must be a tensor, a list", {"input_lengths": SIX.numpy()}),
    ("target_lengths must be a tensor, a list", {"target_lengths": None}),
    ("input_lengths must have a number for each of 2", {"input_lengths": [6]}),
    ("target_lengths must have a number for each of 2", {"target_lengths": [2, 2, 2]}),
    ("input_lengths must have a number", {**BOTH, "input_lengths": torch.tensor(6)}),
    ("input_lengths must be >= 0 and at most 6", {"input_lengths": [6, 7]}),
    ("input_lengths must be >= 0", {"input_lengths": [-1, 6]}),
    ("input_lengths must be >= 0", {**BOTH, "input_lengths": SIX + 1}),
    ("target_lengths must be >= 0 and at most 2", {"target_lengths": [2, 3]}),
    ("target_lengths must be >= 0", {"target_lengths": [2, -1]}),
    ("target_lengths must be >= 0", {"target_lengths": [5, -1], "targets": Y.flatten()}),
    ("blank must be a class", {"blank": -1}),
    ("blank must be a class", {"blank": 4}),
    ("blank must be an integer", {"blank": 1.0}),
    ("blank must be an integer", {"blank": True}),
    ("blank must be an integer", {"blank": None}),
    ("zero_infinity must be True or False", {"zero_infinity": 1}),
    ("zero_infinity must be True or False", {"zero_infinity": None}),
    ("reduction must be one of", {"reduction": "median"}),
]


@pytest.mark.parametrize(("message", "bad"), BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_bad_arguments_as_torch(message: str, bad: dict[str, Any]) -> None:
    with pytest.raises(Exception) as torchs:  # noqa: PT011, its type is what is asked
        F.ctc_loss(**{**GOOD, **bad})
    with pytest.raises(type(torchs.value), match=f"^ctc_loss: {message}") as ours:
        ctc_loss(**{**GOOD, **bad})
    assert type(ours.value) is type(torchs.value)


@pytest.mark.parametrize("bad", [-1, 4, 2**40, -(2**62)])
@pytest.mark.parametrize("padded", [False, True])
def test_a_label_that_is_no_class(bad: int, padded: bool) -> None:
    """torch reads, and in the backward pass writes, what lies beside its tensors."""
    target = torch.tensor([[1, 2], [3, bad]])
    target = target if padded else target.flatten()
    for x in (X, X.clone().requires_grad_()):
        with pytest.raises(IndexError, match=f"^ctc_loss: targets must be .* < 4, got {bad};"):
            ctc_loss(x, target, (6, 6), (2, 2))
    if padded:  # nothing behind the length is a label
        assert ctc_loss(X, target, (6, 6), (2, 1)).isfinite()


def test_blank_is_checked_by_the_function() -> None:
    with pytest.raises(RuntimeError, match="ctc_loss: blank must be a class"):
        CTCLoss(blank=9)(*GOOD.values())


def test_operands_are_left_as_they_are() -> None:
    x, target, steps, counts = X.clone().requires_grad_(), Y.clone(), SIX.clone(), TWO.clone()
    ctc_loss(x, target, steps, counts).backward()
    for kept, before in ((x, X), (target, Y), (steps, SIX), (counts, TWO)):
        assert torch.equal(kept.detach(), before)
