"""Losses under torch.autocast: computed in float32 where torch's are, gradients in their dtypes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.losses.examples import CASES, REFERENCES, Case, Tensor
from thalweg import losses

EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=str)
HALVES = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "mean"])

# Losses that torch has not: ours are in float32, as those that it has, where a composition of its
# operations may stay in 16 bits.
OURS_ALONE = tuple(REFERENCES)


def in_dtypes(case: Case, pair: tuple[torch.dtype, torch.dtype]) -> dict[str, Tensor]:
    """Operands in [2, 3]: the first in one dtype, the others in the other; each of few bits."""
    torch.manual_seed(0)
    made = {name: t.to(torch.bfloat16) for name, t in case.make((2, 3)).items()}
    first, *_ = made
    return {name: t.to(pair[name != first]) for name, t in made.items()}


@EVERY_CASE
@HALVES
@REDUCTIONS
@pytest.mark.parametrize("mixed", ["neither", "first", "others"])
def test_as_torch_on_the_cpu(case: Case, half: torch.dtype, reduction: str, mixed: str) -> None:
    pairs = {
        "neither": (half, half),
        "first": (torch.float32, half),
        "others": (half, torch.float32),
    }
    operands = in_dtypes(case, pairs[mixed])

    def run(call: Callable[..., Tensor], given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        leaves = {name: t.detach() for name, t in given.items()}
        first = next(iter(leaves.values())).requires_grad_()
        with torch.autocast("cpu", half):
            value = call(leaves, reduction=reduction)
        return value.detach(), torch.autograd.grad(value.sum(), first)[0]

    ours, torchs = run(case.ours, operands), run(case.torchs, operands)
    exact = run(case.torchs, {name: t.double() for name, t in operands.items()})
    wanted = torch.float32 if case.name in OURS_ALONE else torchs[0].dtype
    assert ours[0].dtype is wanted
    assert ours[1].dtype is torchs[1].dtype
    for mine, right in zip(ours, exact, strict=True):
        tolerance = 1e-5 if mine.dtype is torch.float32 else 2 * torch.finfo(half).eps
        torch.testing.assert_close(mine.double(), right, rtol=tolerance, atol=tolerance)


@EVERY_CASE
def test_off_means_off(case: Case) -> None:
    operands = in_dtypes(case, (torch.bfloat16, torch.bfloat16))
    with torch.autocast("cpu", enabled=False):
        assert case.ours(operands).dtype is torch.bfloat16


@EVERY_CASE
def test_float64_stays(case: Case) -> None:
    operands = in_dtypes(case, (torch.float64, torch.float64))
    with torch.autocast("cpu"):
        assert case.ours(operands).dtype is torch.float64


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_kernels_compute_in_float32(reduction: str) -> None:
    x = torch.randn(1000).bfloat16().requires_grad_()
    y = torch.randn(1000).bfloat16()
    with torch.autocast("cpu"):
        found = losses.mse_loss(x, y, reduction=reduction)
    wide = losses.mse_loss(x.float(), y.float(), reduction=reduction)
    assert torch.equal(found, wide)
    slopes = [torch.autograd.grad(v.sum(), x)[0] for v in (found, wide)]
    assert torch.equal(*slopes)


@contextmanager
def autocast_on(device: str) -> Iterator[None]:
    """As ``torch.autocast``, which does nothing for a device that this machine has not."""
    before = torch.is_autocast_enabled(device)
    torch.set_autocast_enabled(device, True)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before)


# A composition of torch's: its sum is in float32, its values are not.
NOT_ON_CUDA = {("l1_loss-weight", "none")}


@EVERY_CASE
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_as_torch_on_cuda(case: Case, reduction: str) -> None:
    """Dtypes alone: fake tensors have no values."""
    if case.name in (*OURS_ALONE, "binary_cross_entropy", "gaussian_nll_loss"):
        pytest.skip("not in torch, refused, or torch looks at values")
    if (str(case), reduction) in NOT_ON_CUDA:
        pytest.skip("torch's stays in 16 bits")
    found = []
    for call in (case.ours, case.torchs):
        with FakeTensorMode(), autocast_on("cuda"):
            operands = {
                name: torch.empty(2, 3, device="cuda", dtype=torch.float16)
                for name in case.operands
            }
            found.append(call(operands, reduction=reduction).dtype)
    assert found[0] is found[1]


@pytest.mark.parametrize("name", ["binary_cross_entropy", "BCELoss"])
def test_cross_entropy_of_probabilities_is_refused_on_cuda(name: str) -> None:
    theirs = torch.nn if name == "BCELoss" else torch.nn.functional
    for module, message in (losses, "^binary_cross_entropy: .*autocast"), (theirs, "unsafe"):
        call = getattr(module, name)
        with FakeTensorMode(), autocast_on("cuda"):
            x = torch.empty(3, device="cuda")
            with pytest.raises(RuntimeError, match=message):
                (call() if name == "BCELoss" else call)(x, x)
